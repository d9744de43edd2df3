from __future__ import annotations

import configparser
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_protocol.messages import ADVERT, parse_advert
from agent_protocol.outcomes import Outcome
from guest_agent import VERSION
from guest_agent.__main__ import main

from .conftest import ANNOUNCED, DEADLINE, REPOSITORY, AgentProcess, Host
from .sealing import SealedHost


def configure(root: Path, text: str) -> None:
    (root / "etc/xenward").mkdir(parents=True)
    (root / "etc/xenward/agent.conf").write_text(text)


def test_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    assert setup["metadata"]["version"] == VERSION
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == VERSION


def test_missing_root(tmp_path: Path) -> None:
    assert main(["--root", str(tmp_path / "missing"), "--store", f"unix:{tmp_path}/nobody"]) == 1


def test_other_platforms_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Plan9")
    assert main(["--root", str(tmp_path), "--store", f"unix:{tmp_path}/nobody"]) == 1
    assert "serves Linux and Windows, this is Plan9" in caplog.text


def test_unknown_store(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--store", "tcp:somewhere"])
    assert ended.value.code == 2
    assert "unix:PATH or xenbus" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[agent]\nblock = ping, pnig\n", "block names pnig, and there is no such command"),
        ("[agent]\nstore = tcp:somewhere\n", "[agent] store: a store is unix:PATH or xenbus"),
        ("[agent]\nsotre = xenbus\n", "[agent] has no option sotre"),
        ("[agent\n", "agent.conf"),
    ],
)
def test_a_wrong_configuration(root: Path, text: str, words: str, caplog: pytest.LogCaptureFixture) -> None:
    configure(root, text)
    assert main(["--root", str(root)]) == 2
    assert words in caplog.text


def test_a_configuration_that_is_no_file(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "etc/xenward/agent.conf").mkdir(parents=True)
    assert main(["--root", str(root)]) == 2
    assert "not a regular file" in caplog.text


def test_blocked_commands_are_not_there(start_agent: Callable[..., AgentProcess], host: Host, root: Path) -> None:
    configure(root, "[agent]\nblock = password file_put, ping\n")
    start_agent()
    sealed = SealedHost(host)
    blocked = {"password", "file_put", "ping"}
    served = [name for name in ANNOUNCED if name not in blocked]
    assert list(parse_advert(host.read(ADVERT) or b"").features) == served
    assert host.ask("features")["message"].split(",") == served
    for name in blocked:
        assert (sealed.ask(name).outcome, host.ask(name)["outcome"]) == (Outcome.UNSUPPORTED, "unsupported")
    assert sealed.ask("version").outcome is Outcome.SUCCEEDED


def run_for(host: Host, root: Path, *options: str) -> None:
    """Start the agent, and see it serve."""
    command = [sys.executable, "-m", "guest_agent", "--root", str(root), *options]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL) as process:
        try:
            host.wait_for_agent()
            assert host.ask("version")["returncode"] == "0"
        finally:
            process.terminate()
        assert process.wait(DEADLINE) == 0


def test_the_store_that_is_configured(host: Host, root: Path) -> None:
    configure(root, f"[agent]\nstore = unix:{host.guest_socket}\n")
    run_for(host, root)


def test_the_command_line_goes_before_the_configuration(host: Host, root: Path) -> None:
    configure(root, "[agent]\nstore = unix:/nowhere\n")
    run_for(host, root, "--store", f"unix:{host.guest_socket}")


def test_a_guest_has_one_agent(start_agent: Callable[..., AgentProcess], host: Host) -> None:
    """Two would answer for each other: one that a request was not carried out, while the other carries it out."""
    first = start_agent()
    host.wait_for_agent()
    refused = start_agent()
    assert refused.process.wait(DEADLINE) == 1
    assert "another agent serves this guest already" in refused.log
    assert SealedHost(host).ask("version").outcome is Outcome.SUCCEEDED
    # The lock goes with the process, however that ends.
    first.process.kill()
    first.process.wait(DEADLINE)
    host.remove(ADVERT)
    second = start_agent()
    host.wait_for_agent()
    assert second.end() == 0


def test_where_there_can_be_no_lock(start_agent: Callable[..., AgentProcess], host: Host, root: Path) -> None:
    (root / "var/lib/xenward/lock").mkdir(parents=True)
    started = start_agent()
    assert SealedHost(host).ask("version").outcome is Outcome.SUCCEEDED
    assert started.end() == 0
    assert "nothing keeps a second agent out of this guest: EISDIR" in started.log


@pytest.mark.services
def test_a_start_before_there_is_a_network(
    start_agent: Callable[..., AgentProcess], host: Host, tmp_path: Path
) -> None:
    """No interface is up, not even the loopback one, and nothing tells names."""
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 192.0.2.1\n")
    hide = f"mount --make-rprivate / && mount --bind {resolv} /etc/resolv.conf && exec"
    started = start_agent(prefix=["unshare", "--net", "--mount", "sh", "-c", f'{hide} "$@"', "sh"])
    assert SealedHost(host).ask("info").outcome is Outcome.SUCCEEDED
    assert started.end() == 0
