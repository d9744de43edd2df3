"""The simulator as a process: how it starts, and that nothing is left of it however it ends."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import XenAPI

from tools.simulator.process import SimulatorError, SimulatorProcess

from .support import failure, lives, make_vm, plugin, until

LAUNCHER = """
import json, sys, time
from tools.simulator.process import SimulatorProcess
simulator = SimulatorProcess(json.loads(sys.argv[1]))
simulator.start()
facts = {"url": simulator.url, "password": simulator.password, "pid": simulator.pid, "state": str(simulator.state)}
print(json.dumps(facts), flush=True)
time.sleep(600)
"""


def log_in(url: str, password: str) -> XenAPI.Session:
    session = XenAPI.Session(url)
    session.login_with_password("root", password)
    return session


def agent_of(state: Path, uuid: str) -> int:
    pid_file = state / "guests" / uuid / "agent.pid"
    until(lambda: (state / "guests" / uuid / "root/var/log/boots").exists())
    return int(pid_file.read_text())


def children(pid: int) -> list[int]:
    """The processes that a process started, by whichever of its threads."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid:
            found.append(int(status.parent.name))
    return found


def test_stop_leaves_nothing(arguments: list[str]) -> None:
    with SimulatorProcess(arguments) as simulator:
        session = log_in(simulator.url, simulator.password)
        vms = [make_vm(session) for _ in range(2)]
        for vm in vms:
            vm.start(False, False)
        agents = [agent_of(simulator.state, vm.uuid) for vm in vms]
        assert all(lives(agent) for agent in agents)
        assert agents == [simulator.agent_pid(vm.uuid) for vm in vms]
        pid, state = simulator.pid, simulator.state
        started = [*children(pid), pid]
        assert set(agents) < set(started)
        session("close")()
    assert not any(Path(f"/proc/{process}").exists() for process in started)
    assert not state.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_cleanly(arguments: list[str], tmp_path: Path, number: signal.Signals) -> None:
    with SimulatorProcess([*arguments, "--state", str(tmp_path / "state")]) as simulator:
        process = simulator._process
        assert process is not None
        os.kill(simulator.pid, number)
        assert process.wait(10) == 0
    assert (tmp_path / "state").is_dir()


def test_dies_with_its_parent(arguments: list[str]) -> None:
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, json.dumps(arguments)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    assert launcher.stdout is not None
    facts = json.loads(launcher.stdout.readline())
    session = log_in(facts["url"], facts["password"])
    vm = make_vm(session)
    vm.start(False, False)
    agent = agent_of(Path(facts["state"]), vm.uuid)
    started = [*children(facts["pid"]), facts["pid"], agent]
    session("close")()
    launcher.kill()
    launcher.wait()
    launcher.stdout.close()
    until(lambda: not any(lives(process) for process in started))
    until(lambda: not Path(facts["state"]).exists())


def test_agents_and_plugins_die_even_when_it_is_killed(arguments: list[str], tmp_path: Path) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    plugin(plugins, "xenward", f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()) + '.')\nsignal.pause()")
    simulator = SimulatorProcess([*arguments, "--plugins", str(plugins), "--state", str(tmp_path / "state")])
    simulator.start()
    session = log_in(simulator.url, simulator.password)
    vm = make_vm(session)
    vm.start(False, False)
    agent = agent_of(simulator.state, vm.uuid)
    (host,) = session.xenapi.host.get_all()

    def call() -> None:
        with pytest.raises(OSError):
            session.xenapi.host.call_plugin(host, "xenward", "f", {})

    caller = threading.Thread(target=call)
    caller.start()
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("."))
    running = int((tmp_path / "pid").read_text()[:-1])
    assert lives(agent)
    assert lives(running)
    os.kill(simulator.pid, signal.SIGKILL)
    until(lambda: not lives(agent) and not lives(running))
    caller.join(10)
    simulator.stop()
    session("close")()


def test_stop_ends_plugins_that_hang(arguments: list[str], tmp_path: Path) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    plugin(plugins, "xenward", f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()) + '.')\nsignal.pause()")
    with SimulatorProcess([*arguments, "--plugins", str(plugins)]) as simulator:
        session = log_in(simulator.url, simulator.password)
        (host,) = session.xenapi.host.get_all()

        def call() -> None:
            with pytest.raises((OSError, XenAPI.Failure)):
                session.xenapi.host.call_plugin(host, "xenward", "f", {})

        caller = threading.Thread(target=call)
        caller.start()
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("."))
    assert not lives(int((tmp_path / "pid").read_text()[:-1]))
    caller.join(10)
    session("close")()


def test_settings(arguments: list[str], own_plugin: Path, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("päss word\n")
    record = tmp_path / "record"
    options: list[Any] = ["--plugins", own_plugin, "--no-agent", "--login-failure-delay", "0"]
    options += ["--state", tmp_path / "state", "--password-file", tmp_path / "password", "--username", "admin"]
    options += ["--host-name", "other", "--record-xenstore", record, "--log-file", tmp_path / "log"]
    with SimulatorProcess([str(option) for option in options]) as simulator:
        assert (simulator.username, simulator.password) == ("admin", "päss word")
        assert simulator.state == tmp_path / "state"
        assert "päss word".encode() not in Path(f"/proc/{simulator.pid}/cmdline").read_bytes()
        session = XenAPI.Session(simulator.url)
        assert failure(session.login_with_password, "root", "päss word")[0] == "SESSION_AUTHENTICATION_FAILED"
        session.login_with_password("admin", "päss word")
        assert session.xenapi.host.get_all_where('field "name__label"="other"')
        vm = make_vm(session)
        vm.start(False, False)
        domid = vm.get_domid()
        with pytest.raises(FileNotFoundError):
            simulator.agent_pid(vm.uuid)
        assert simulator.guest_root(vm.uuid).is_dir()
        vm.clean_shutdown()
        session("close")()
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert {line["direction"] for line in lines} >= {"request", "reply"}
    written = [line for line in lines if line["operation"] == "WRITE" and line["domid"] == 0]
    assert any(base64.b64decode(line["payload"]).startswith(f"/local/domain/{domid}/name".encode()) for line in written)
    assert "VM.start " in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    "bad",
    [
        ["--port", "x"],
        ["--agent-command", "not json"],
        ["--agent-command", "[]"],
        ["--agent-command", "[1]"],
        ["--password-file", "/does/not/exist"],
        ["--password", "secret"],
        ["--state", "{tmp}/" + "x" * 120],
    ],
)
def test_bad_settings(own_plugin: Path, tmp_path: Path, bad: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    bad = [argument.replace("{tmp}", str(tmp_path)) for argument in bad]
    with pytest.raises(SimulatorError):
        SimulatorProcess(["--plugins", str(own_plugin), *bad]).start()
    assert "xenward-simulator: " in capfd.readouterr().err


def test_start_has_a_deadline() -> None:
    simulator = SimulatorProcess(start_timeout=0.0)
    with pytest.raises(SimulatorError):
        simulator.start()
