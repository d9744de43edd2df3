"""A pool that is kept in its state directory, as clients find it again after a restart."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import stat
import threading
import xmlrpc.client
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import XenAPI

from tools.simulator import persistence, state_directory
from tools.simulator.disks import BLOCK
from tools.simulator.process import SimulatorError, SimulatorProcess
from tools.simulator.server import Simulator
from tools.simulator.settings import Settings

from .support import NULL, Vm, failure, make_vm, until
from .test_devices import vbd_record
from .test_events import since
from .transfers import Transfers, vdi_record

Start = Callable[..., SimulatorProcess]


def log_in(simulator: SimulatorProcess) -> XenAPI.Session:
    session = XenAPI.Session(simulator.url, ignore_ssl=True)
    session.login_with_password(simulator.username, simulator.password)
    return session


@pytest.fixture
def start(arguments: list[str], tmp_path: Path) -> Iterator[Start]:
    """Starts a simulator on one state directory, after ending the one before."""
    running: list[SimulatorProcess] = []

    def run(*options: str, kill: bool = False) -> SimulatorProcess:
        end(kill)
        running.append(SimulatorProcess([*arguments, "--state", str(tmp_path / "state"), *options]))
        running[-1].start()
        return running[-1]

    def end(kill: bool = False) -> None:
        while running:
            if kill:
                os.kill(running[-1].pid, signal.SIGKILL)
            running.pop().stop()

    yield run
    end()


def records(session: XenAPI.Session) -> dict[str, Any]:
    """What the API tells of all objects but those that end with the hosts' power."""
    classes = ("pool", "host", "SR", "PBD", "VDI", "VBD", "VIF", "network", "PIF", "VM", "secret", "VM_guest_metrics")
    found = {name: getattr(session.xenapi, name).get_all_records() for name in (*classes, "message", "Certificate")}
    plain: dict[str, Any] = json.loads(json.dumps(found, default=lambda value: value.value))
    for host in plain["host"].values():
        # It did boot.
        assert host["other_config"].pop("boot_time")
    return plain


def populate(session: XenAPI.Session, transfers: Transfers) -> tuple[Vm, str]:
    """A VM with all that it may have; itself and its disk."""
    api = session.xenapi
    vm = make_vm(session, name_label="ä <&>\n", other_config={"a": "b"})
    vif = {"device": "0", "network": api.network.get_all()[0], "VM": vm.ref, "MAC": "", "MTU": "1500"}
    qos = {"qos_algorithm_type": "", "qos_algorithm_params": {}, "locking_mode": "network_default"}
    api.VIF.create({**vif, **qos, "other_config": {}, "ipv4_allowed": [], "ipv6_allowed": []})
    vdi = transfers.disk(b"x" * (2 * BLOCK))
    api.VBD.create(vbd_record(vm, vdi))
    api.VM.snapshot(vm.ref, "a snapshot")
    # The disk now shares what it had with its snapshot, and holds this alone.
    assert transfers.put("/import_raw_vdi", b"y" * 100, vdi=vdi)["status"] == "success"
    api.secret.create({"value": "a secret", "other_config": {}})
    api.message.create("VM_STARTED", "5", "VM", vm.uuid, "a body")
    return vm, vdi


def test_an_end_in_the_middle_of_a_start(tmp_path: Path, own_plugin: Path, start: Start) -> None:
    """The devices are attached already, and the VM does not run yet."""
    (tmp_path / "state").mkdir()
    former = Simulator(Settings(tmp_path / "state", plugins=own_plugin, is_kept=True))
    former.start()
    session = XenAPI.Session(former.hosts[0].plain_url)
    session.login_with_password("root", former.settings.password)
    vm, vdi = populate(session, Transfers(former.hosts[0], session))
    ((vbd, _), (vif, _)) = (api.get_all_records().popitem() for api in (session.xenapi.VBD, session.xenapi.VIF))
    former.state.database.set("VBD", vbd, currently_attached=True)
    former.state.database.set("VIF", vif, currently_attached=True)
    former.stop()
    simulator = start()
    session = log_in(simulator)
    assert session.xenapi.VM.get_power_state(vm.ref) == "Halted"
    assert not session.xenapi.VBD.get_currently_attached(vbd)
    assert not session.xenapi.VIF.get_currently_attached(vif)
    assert Transfers(simulator, session).content(vdi).startswith(b"y" * 100)


@pytest.mark.parametrize("kill", [False, True])
def test_everything_is_there_again(start: Start, kill: bool) -> None:
    simulator = start("--tls")
    transfers = Transfers(simulator, session := log_in(simulator))
    transfers.address = simulator.plain_url.partition("//")[2]
    vm, vdi = populate(session, transfers)
    content, before = transfers.content(vdi), records(session)
    token = since(session, ["*"])["token"]
    if kill:
        # What is older than a moment is kept, whatever happens.
        session.xenapi.pool.add_to_other_config(session.xenapi.pool.get_all()[0], "the", "latest")
        before = records(session)
        until(lambda: '"latest"' in (simulator.state / persistence.FILE_NAME).read_text())
    facts = simulator.password, simulator.url, simulator.plain_url, simulator.fingerprint
    session("close")()
    again = start("--tls", kill=kill)
    session = log_in(again)
    assert (again.password, again.url, again.plain_url, again.fingerprint) == facts
    assert records(session) == before
    transfers = Transfers(again, session)
    transfers.address = again.plain_url.partition("//")[2]
    assert transfers.content(vdi) == content
    assert content.startswith(b"y" * 100 + b"x" * (2 * BLOCK - 100) + b"\0")
    # A client that was there before is told of what changes after: of the booting, and of nothing that did not change.
    events = since(session, ["VM", "VDI"], token)["events"]
    assert vm.ref not in [event["ref"] for event in events]
    api = session.xenapi
    api.VM.set_name_label(vm.ref, "another")
    token = since(session, ["VM", "VDI"], token)["token"]
    assert [(event["ref"], event["operation"]) for event in since(session, ["VM"], token)["events"]] == []
    api.VM.set_name_label(vm.ref, "yet another")
    assert [(event["ref"], event["operation"]) for event in since(session, ["VM"], token)["events"]] == [
        (vm.ref, "mod")
    ]
    session("close")()


def test_sessions_and_tasks_end(start: Start) -> None:
    simulator = start()
    session = log_in(simulator)
    task = session.xenapi.task.create("a task", "")
    handle = session.handle
    session("close")()
    session = XenAPI.Session(start().url)
    session._session = handle
    with pytest.raises(xmlrpc.client.Fault, match="You must log in"):
        session.xenapi.VM.get_all()
    session("close")()
    session = log_in(start())
    assert failure(session.xenapi.task.get_record, task) == ["HANDLE_INVALID", "task", task]
    session("close")()


@pytest.mark.parametrize("kill", [False, True])
def test_vms_lose_their_power(start: Start, kill: bool) -> None:
    simulator = start("--hosts", "2")
    session = log_in(simulator)
    transfers = Transfers(simulator, session)
    running, disk = populate(session, transfers)
    paused, suspended, halted = (make_vm(session) for _ in range(3))
    for vm in running, paused, suspended:
        vm.start(False, False)
    (simulator.guest_root(running.uuid) / "etc/mark").write_text("here")
    if kill:
        # A frozen guest cannot end by itself, which a clean end would wait for.
        paused.pause()
    suspended.suspend()
    image = suspended.get_suspend_VDI()
    assert len(session.xenapi.console.get_all()) == 6
    token = since(session, ["*"])["token"]
    if kill:
        session.xenapi.secret.create({"value": "the latest", "other_config": {}})
        until(lambda: "the latest" in (simulator.state / persistence.FILE_NAME).read_text())
    session("close")()
    simulator = start(kill=kill)
    session = log_in(simulator)
    for vm in (Vm(session, vm.ref) for vm in (running, paused)):
        record = vm.get_record()
        assert record["power_state"] == "Halted"
        assert (record["domid"], record["resident_on"], record["consoles"]) == ("-1", NULL, [])
        assert record["current_operations"] == {}
        assert {"start", "destroy"} <= set(record["allowed_operations"])
        assert not any(session.xenapi.VBD.get_currently_attached(vbd) for vbd in record["VBDs"])
        assert not any(session.xenapi.VIF.get_currently_attached(vif) for vif in record["VIFs"])
    assert "destroy" in session.xenapi.VDI.get_allowed_operations(disk)
    assert len(session.xenapi.console.get_all()) == 4
    events = since(session, ["VM", "console"], token)["events"]
    assert {event["ref"]: event["operation"] for event in events if event["class"] == "vm"}.items() >= {
        (running.ref, "mod"),
        (paused.ref, "mod"),
    }
    assert [event["operation"] for event in events if event["class"] == "console"].count("del") == 2
    assert halted.ref not in [event["ref"] for event in events]
    assert session.xenapi.VM.get_power_state(suspended.ref) == "Suspended"
    assert session.xenapi.VM.get_suspend_VDI(suspended.ref) == image
    assert not list(simulator.state.glob("guests/*/agent.pid"))
    Vm(session, suspended.ref).resume(False, False)
    Vm(session, running.ref).start(False, False)
    assert session.xenapi.VM.get_power_state(suspended.ref) == "Running"
    assert (simulator.guest_root(running.uuid) / "etc/mark").read_text() == "here"
    # Both hosts are there again, each with its own dom0.
    hosts = session.xenapi.host.get_all()
    assert len(hosts) == 2
    for host in hosts:
        assert session.xenapi.host.call_plugin(host, "xenward", "f", {}) == "pong"
        assert session.xenapi.host_metrics.get_live(session.xenapi.host.get_metrics(host))
    session("close")()


def test_what_starts_with_the_pool(start: Start) -> None:
    session = log_in(start())
    automatic, manual = make_vm(session, other_config={"auto_poweron": "true"}), make_vm(session)
    session("close")()
    session = log_in(start())
    assert session.xenapi.VM.get_power_state(automatic.ref) == "Halted"
    session.xenapi.pool.set_other_config(session.xenapi.pool.get_all()[0], {"auto_poweron": "true"})
    session("close")()
    session = log_in(start())
    assert session.xenapi.VM.get_power_state(automatic.ref) == "Running"
    assert session.xenapi.VM.get_power_state(manual.ref) == "Halted"
    session("close")()


def test_the_password(start: Start, tmp_path: Path) -> None:
    simulator = start()
    password = simulator.password
    path = simulator.state / state_directory.PASSWORD_NAME
    assert path.read_text() == password
    for kept in path, simulator.state / persistence.FILE_NAME:
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    session = log_in(simulator)
    session.xenapi.session.change_password(password, "another one")
    session("close")()
    assert start().password == "another one"
    (tmp_path / "given").write_text("given")
    simulator = start("--password-file", str(tmp_path / "given"))
    assert simulator.password == "given"
    session = log_in(simulator)
    session.xenapi.session.change_password("given", "yet another")
    session("close")()
    # What was given is not the directory's to keep.
    assert path.read_text() == "another one"


def test_one_at_a_time(start: Start, arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    simulator = start()
    second = SimulatorProcess([*arguments, "--state", str(simulator.state)])
    with pytest.raises(SimulatorError):
        second.start()
    assert "another simulator runs on this state directory" in capfd.readouterr().err
    session = log_in(simulator)
    assert session.xenapi.VM.get_all()
    session("close")()


@pytest.mark.parametrize("name", [persistence.FILE_NAME, "disks.journal", state_directory.HOSTS_NAME])
def test_a_damaged_directory_is_left_alone(
    start: Start, arguments: list[str], capfd: pytest.CaptureFixture[str], name: str
) -> None:
    simulator = start()
    session = log_in(simulator)
    populate(session, Transfers(simulator, session))
    session("close")()
    state = simulator.state
    simulator.stop()
    content = (state / name).read_bytes()
    middle = len(content) // 2
    damaged = content[:middle] + b"\0" + content[middle + 1 :]
    (state / name).write_bytes(damaged)
    others = {path: path.read_bytes() for path in state.iterdir() if path.is_file() and path.suffix != ".log"}
    disks = {path: path.read_bytes() for path in (state / "disks").iterdir()}
    with pytest.raises(SimulatorError):
        SimulatorProcess([*arguments, "--state", str(state)]).start()
    assert "nothing was changed" in capfd.readouterr().err
    assert {path: path.read_bytes() for path in others} == others
    assert {path: path.read_bytes() for path in (state / "disks").iterdir()} == disks
    (state / name).write_bytes(content)
    session = log_in(start())
    assert len(session.xenapi.secret.get_all()) == 1
    session("close")()


def test_a_port_that_somebody_took(start: Start) -> None:
    simulator = start()
    port = int(simulator.url.rpartition(":")[2])
    start(kill=True).stop()
    with socket.create_server(("127.0.0.1", port)):
        again = start()
        assert not again.url.endswith(f":{port}")
        session = log_in(again)
        (host,) = session.xenapi.host.get_all()
        assert session.xenapi.host.get_address(host) == again.url.partition("//")[2]
        session("close")()


def test_a_pool_without_a_directory_leaves_nothing(arguments: list[str]) -> None:
    with SimulatorProcess(arguments) as simulator:
        state = simulator.state
        assert not (state / persistence.FILE_NAME).exists()
        assert not (state / state_directory.PASSWORD_NAME).exists()
    assert not state.exists()


@pytest.mark.parametrize("pause", [0.0, 0.05, 0.2])
def test_killed_at_any_moment(start: Start, pause: float) -> None:
    """A client makes and removes what it can until all is killed; each start finds a pool that fits together."""
    known: set[str] = set()
    for _ in range(2):
        simulator = start(kill=True)
        session = log_in(simulator)
        consistent(session, known)
        killer = threading.Timer(pause, os.kill, (simulator.pid, signal.SIGKILL))
        known = set(session.xenapi.VM.get_all())
        killer.start()
        with pytest.raises((OSError, http.client.HTTPException, XenAPI.Failure, xmlrpc.client.ProtocolError)):
            while True:
                churn(session)
        killer.join()
        session("close")()
    session = log_in(start(kill=True))
    consistent(session, known)
    session("close")()


def churn(session: XenAPI.Session) -> None:
    api = session.xenapi
    vm = make_vm(session)
    vdi = api.VDI.create(vdi_record(session))
    api.VBD.create(vbd_record(vm, vdi))
    clones = [api.VDI.clone(vdi) for _ in range(2)]
    vm.start(False, False)
    api.message.create("VM_STARTED", "5", "VM", vm.uuid, "a body")
    api.VDI.destroy(clones[0])
    vm.hard_shutdown()
    api.VDI.destroy(vdi)
    if len(api.VM.get_all()) % 2:
        vm.destroy()


def consistent(session: XenAPI.Session, known: set[str]) -> None:
    """Both ends of relations agree, nothing is under way, and what was there long before is still there."""
    api = session.xenapi
    vms, vbds, vdis = api.VM.get_all_records(), api.VBD.get_all_records(), api.VDI.get_all_records()
    assert known <= set(vms)
    for ref, vm in vms.items():
        assert set(vm["VBDs"]) == {vbd for vbd, record in vbds.items() if record["VM"] == ref}
        assert vm["power_state"] == ("Running" if vm["is_control_domain"] else "Halted")
        assert vm["current_operations"] == {}
    for ref, vdi in vdis.items():
        assert set(vdi["VBDs"]) == {vbd for vbd, record in vbds.items() if record["VDI"] == ref}
    for sr in api.SR.get_all():
        # What disks.py holds and what the database knows is settled by a scan, as on a real repository.
        api.SR.scan(sr)
        for vdi in api.SR.get_VDIs(sr):
            parent = api.VDI.get_sm_config(vdi).get("vhd-parent")
            assert parent is None or api.VDI.get_by_uuid(parent)
