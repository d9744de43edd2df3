"""Guests, agents, plugins, storage, sessions, events and the toolstack misbehave, seen by a client."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import XenAPI

from tools.simulator.control import Control, ControlError
from tools.simulator.process import SimulatorProcess

from ..support import MIB, Vm, failure, lives, make_vm, until
from ..transfers import Transfers, make_sr, vdi_record


def log_in(simulator: SimulatorProcess, originator: str) -> XenAPI.Session:
    session = XenAPI.Session(simulator.url)
    session.login_with_password(simulator.username, simulator.password, "1.0", originator)
    return session


# Guests


class Booted:
    """A running VM, and what its agent wrote down."""

    def __init__(self, simulator: SimulatorProcess, vm: Vm) -> None:
        self.simulator = simulator
        self.vm = vm
        vm.start(False, False)
        until(lambda: len(self.boots()) == 1)

    @property
    def pid(self) -> int:
        return self.simulator.agent_pid(self.vm.uuid)

    def boots(self) -> list[Any]:
        return self._lines("boots")

    def ended(self) -> list[Any]:
        return self._lines("ended")

    def _lines(self, name: str) -> list[Any]:
        path: Path = self.simulator.guest_root(self.vm.uuid) / "var/log" / name
        return path.read_text("utf-8").splitlines() if path.exists() else []


@pytest.fixture
def guest(simulator: SimulatorProcess, vm: Vm) -> Iterator[Booted]:
    yield Booted(simulator, vm)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_an_agent_is_killed_and_comes_back(control: Control, guest: Booted) -> None:
    pid = guest.pid
    control.kill_agent(guest.vm.ref)
    assert not lives(pid)
    assert guest.ended() == []
    with pytest.raises(FileNotFoundError):
        assert guest.pid
    assert guest.vm.get_power_state() == "Running"
    control.kill_agent(guest.vm.ref, restart=True)
    until(lambda: len(guest.boots()) == 2)
    second = guest.pid
    control.kill_agent(guest.vm.ref, restart=True)
    until(lambda: len(guest.boots()) == 3)
    assert not lives(second)
    first, _, last = map(json.loads, guest.boots())
    assert first["socket"] == last["socket"]


def test_an_agent_is_frozen(control: Control, guest: Booted) -> None:
    control.freeze_agent(guest.vm.ref)
    until(lambda: state_of(guest.pid) == "T")
    assert guest.vm.get_power_state() == "Running"
    control.thaw_agent(guest.vm.ref)
    until(lambda: state_of(guest.pid) in "SR")


def test_a_dead_agent(control: Control, guest: Booted) -> None:
    control.replace_agent(guest.vm.ref)
    until(lambda: "signal.pause" in Path(f"/proc/{guest.pid}/cmdline").read_text())
    guest.vm.clean_reboot()
    until(lambda: "signal.pause" in Path(f"/proc/{guest.pid}/cmdline").read_text())
    assert len(guest.boots()) == 1
    control.restore_agent(guest.vm.ref)
    until(lambda: len(guest.boots()) == 2)
    control.replace_agent(guest.vm.ref, ["/bin/sh", "-c", "echo ran > {root}/var/log/ended; exec sleep 600"])
    until(lambda: guest.ended() == ["ran"])


@pytest.mark.parametrize(
    ("how", "field", "action", "power_state"),
    [
        ("reboot", "actions_after_reboot", "restart", "Running"),
        ("reboot", "actions_after_reboot", "destroy", "Halted"),
        ("shutdown", "actions_after_shutdown", "destroy", "Halted"),
        ("shutdown", "actions_after_shutdown", "restart", "Running"),
        ("crash", "actions_after_crash", "restart", "Running"),
        ("crash", "actions_after_crash", "coredump_and_restart", "Running"),
        ("crash", "actions_after_crash", "rename_restart", "Running"),
        ("crash", "actions_after_crash", "destroy", "Halted"),
        ("crash", "actions_after_crash", "coredump_and_destroy", "Halted"),
        ("crash", "actions_after_crash", "preserve", "Paused"),
    ],
)
def test_guests_end_by_themselves(
    control: Control, guest: Booted, how: Any, field: str, action: str, power_state: str
) -> None:
    getattr(guest.vm, f"set_{field}")(action)
    before = int(guest.vm.get_domid())
    token = guest.vm.session.xenapi.event_from(["VM"], "", 0.0)["token"]
    domid = control.end_guest(guest.vm.ref, how)
    assert guest.vm.get_power_state() == power_state
    assert int(guest.vm.get_domid()) == domid
    if power_state == "Paused":
        assert domid == before
    else:
        assert (domid > before) == (power_state == "Running")
        # Only a guest that crashes has no time to end well.
        assert guest.ended() == ([] if how == "crash" else ["cleanly"])
    events = guest.vm.session.xenapi.event_from(["VM"], token, 5.0)["events"]
    assert [event["snapshot"]["power_state"] for event in events] == [power_state]


def test_only_running_guests(control: Control, vm: Vm) -> None:
    for act in (control.kill_agent, control.freeze_agent, control.thaw_agent, control.replace_agent):
        with pytest.raises(ControlError, match="no guest runs"):
            act(vm.ref)
    with pytest.raises(ControlError, match="no guest runs"):
        control.end_guest(vm.ref, "crash")
    with pytest.raises(ControlError, match="HANDLE_INVALID VM x"):
        control.kill_agent("x")


# Plugins


def test_plugins_fail(control: Control, session: XenAPI.Session) -> None:
    (host,) = session.xenapi.host.get_all()
    call = session.xenapi.host.call_plugin
    control.fail_plugin("xenward.exch*", first=2)
    rule = control.fail_plugin("xenward.other", error=["ANY", "x"], host=host)
    with pytest.raises(ControlError, match="HANDLE_INVALID host"):
        control.fail_plugin("*", host="x")
    for _ in range(2):
        assert failure(call, host, "xenward", "exchange", {}) == ["XENAPI_PLUGIN_FAILURE", "non-zero exit", "", ""]
    assert call(host, "xenward", "exchange", {}) == "pong"
    assert failure(call, host, "xenward", "other", {}) == ["ANY", "x"]
    assert failure(call, host, "nothing", "other", {}) == ["XENAPI_MISSING_PLUGIN", "nothing"]
    control.remove_rule(rule)
    assert call(host, "xenward", "other", {}) == "pong"


def test_plugins_hang(control: Control, simulator: SimulatorProcess, session: XenAPI.Session) -> None:
    (host,) = session.xenapi.host.get_all()
    rule = control.hang_plugin("xenward.*")
    task = session.xenapi.Async.host.call_plugin(host, "xenward", "ping", {})
    until(lambda: control.list_rules()[0].matches)
    assert session.xenapi.task.get_status(task) == "pending"
    control.remove_rule(rule)
    until(lambda: session.xenapi.task.get_status(task) == "success")
    session.xenapi.task.destroy(task)


# Storage


@pytest.fixture
def sr(session: XenAPI.Session) -> str:
    return make_sr(session, 64 * MIB)


def test_a_full_sr(control: Control, session: XenAPI.Session, transfers: Transfers, sr: str) -> None:
    api = session.xenapi
    no_space = ["SR_BACKEND_FAILURE_44", "", "There is insufficient space", ""]
    vdi = transfers.disk(b"x" * MIB, SR=sr)
    control.fill_sr(sr)
    assert api.SR.get_physical_utilisation(sr) == api.SR.get_physical_size(sr) == str(64 * MIB)
    assert failure(api.VDI.create, vdi_record(session, SR=sr, virtual_size="1")) == no_space
    assert failure(api.VDI.snapshot, vdi, {}) == no_space
    assert failure(api.VDI.clone, vdi, {}) == no_space
    assert failure(api.VDI.resize, vdi, str(16 * MIB)) == no_space
    assert failure(api.VDI.copy, vdi, sr, "OpaqueRef:NULL", "OpaqueRef:NULL") == no_space
    record = transfers.put("/import_raw_vdi", b"y" * 2 * MIB, vdi=vdi)
    assert (record["status"], record["error_info"][0]) == ("failure", "VDI_IO_ERROR")
    # What was there already can be overwritten.
    assert transfers.content(vdi)[: 2 * MIB] == b"y" * MIB + bytes(MIB)
    control.empty_sr(sr)
    assert int(api.SR.get_physical_utilisation(sr)) < 2 * MIB
    api.VDI.destroy(api.VDI.snapshot(vdi, {}))
    assert transfers.put("/import_raw_vdi", b"y" * 2 * MIB, vdi=vdi)["status"] == "success"
    api.VDI.destroy(vdi)
    with pytest.raises(ControlError, match="HANDLE_INVALID SR"):
        control.fill_sr("x")


def test_a_broken_sr(control: Control, session: XenAPI.Session, transfers: Transfers, vm: Vm, sr: str) -> None:
    api = session.xenapi
    vdi = transfers.disk(SR=sr)
    record = {"VM": vm.ref, "VDI": vdi, "userdevice": "0", "bootable": False, "mode": "RW", "type": "Disk"}
    record |= {"unpluggable": True, "empty": False, "other_config": {}}
    vbd = api.VBD.create({**record, "qos_algorithm_type": "", "qos_algorithm_params": {}})
    control.break_sr(sr)
    code = "SR_BACKEND_FAILURE_47"
    assert failure(api.SR.scan, sr)[0] == code
    assert failure(api.VDI.create, vdi_record(session, SR=sr))[0] == code
    assert failure(vm.start, False, False)[0] == code
    assert transfers.request("GET", "/export_raw_vdi", vdi=vdi).status == 500
    # Refusals of the call itself come first.
    assert failure(api.VBD.plug, vbd)[0] == "VM_BAD_POWER_STATE"
    assert failure(vm.resume, False, False)[0] == "VM_BAD_POWER_STATE"
    (pbd,) = api.SR.get_PBDs(sr)
    api.PBD.plug(pbd)
    api.PBD.unplug(pbd)
    assert failure(api.PBD.plug, pbd)[0] == code
    control.break_sr(sr, ["SR_BACKEND_FAILURE_140", "", "x", ""])
    assert failure(api.PBD.plug, pbd)[0] == "SR_BACKEND_FAILURE_140"
    control.repair_sr(sr)
    api.PBD.plug(pbd)
    vm.start(False, False)
    until(lambda: vm.get_record()["power_state"] == "Running")
    vm.hard_shutdown()
    api.VDI.destroy(vdi)


# Sessions and events


def assert_expired(session: XenAPI.Session) -> None:
    # Not by `xenapi`, which logs in again by itself.
    answer = session.pool.get_all(session.handle)
    assert answer["ErrorDescription"] == ["SESSION_INVALID", session.handle]
    session("close")()


def test_sessions_expire(control: Control, simulator: SimulatorProcess, session: XenAPI.Session) -> None:
    others = [log_in(simulator, "other") for _ in range(2)]
    assert control.expire_sessions("other") == 2
    for other in others:
        assert_expired(other)
    assert session.xenapi.pool.get_all()
    everybody = [log_in(simulator, name) for name in ("a", "b")]
    assert control.expire_sessions() >= 3
    for other in everybody:
        assert_expired(other)
    session.login_with_password(simulator.username, simulator.password, "1.0", "tests")


def test_whoever_waits_for_events_learns_that_his_session_expired(
    control: Control, simulator: SimulatorProcess
) -> None:
    other = log_in(simulator, "waiting")
    token = other.xenapi.event_from(["SR"], "", 0.0)["token"]
    outcome: list[Any] = []
    handle = other.handle
    waiter = threading.Thread(
        target=lambda: outcome.append(other.event_from(handle, ["SR"], token, 60.0)["ErrorDescription"])
    )
    waiter.start()
    control.await_calls("event.from", 2)
    assert control.expire_sessions("waiting") == 1
    waiter.join(20)
    assert outcome == [["SESSION_INVALID", handle]]


def test_events_are_lost_and_tokens_reset(control: Control, session: XenAPI.Session) -> None:
    since = session.xenapi.event_from
    token = since(["pool"], "", 0.0)["token"]
    control.lose_events()
    assert failure(since, ["pool"], token, 0.0) == ["EVENTS_LOST"]
    assert since(["pool"], token, 0.0)["events"] == []
    control.reset_event_tokens()
    assert failure(since, ["pool"], token, 0.0) == ["EVENT_FROM_TOKEN_PARSE_FAILURE", token]
    answer = since(["pool"], "", 0.0)
    assert len(answer["events"]) == 1
    assert since(["pool"], answer["token"], 0.0)["events"] == []
    assert failure(since, ["pool"], "nonsense", 0.0) == ["EVENT_FROM_TOKEN_PARSE_FAILURE", "nonsense"]
    rule = control.lose_events(first=None)
    for _ in range(3):
        assert failure(since, ["pool"], "", 0.0) == ["EVENTS_LOST"]
    control.remove_rule(rule)


# The toolstack


def refuses(simulator: SimulatorProcess) -> bool:
    connection = http.client.HTTPConnection(simulator.url.partition("//")[2], timeout=20)
    try:
        connection.connect()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        # Closed between the client's first packet and the server's.
        return False
    finally:
        connection.close()
    return False


def test_the_toolstack_restarts(control: Control, simulator: SimulatorProcess, session: XenAPI.Session, vm: Vm) -> None:
    api = session.xenapi
    token = api.event_from(["VM"], "", 0.0)["token"]
    mine = api.task.create("mine", "")
    rule = control.stick_tasks("VM.start")
    stuck = api.Async.VM.start(vm.ref, False, False)
    control.await_calls("VM.start")
    waiting = http.client.HTTPConnection(simulator.url.partition("//")[2], timeout=20)
    waiting.connect()
    restart = threading.Thread(target=control.restart_toolstack, args=(1.0,))
    restart.start()
    until(lambda: refuses(simulator))
    restart.join(20)
    assert not refuses(simulator)
    # The connection from before is cut, the session and the token are good.
    with contextlib.suppress(ConnectionResetError):
        assert waiting.sock.recv(1) == b""
    waiting.close()
    vm.set_name_label("after")
    events = api.event_from(["VM"], token, 5.0)["events"]
    assert [event["snapshot"]["name_label"] for event in events] == ["after"]
    assert {api.task.get_status(task) for task in (mine, stuck)} == {"cancelled"}
    control.remove_rule(rule)
    control.await_calls("VM.start", ended=True)
    assert vm.get_power_state() == "Halted"
    for task in (mine, stuck):
        api.task.destroy(task)
    with pytest.raises(ControlError, match="seconds"):
        control.restart_toolstack(-1)


def test_it_ends_while_everything_hangs(arguments: list[str]) -> None:
    with SimulatorProcess(arguments) as simulator:
        control = simulator.control
        session = log_in(simulator, "tests")
        control.log_calls()
        control.add_rule("pool.get_all", "hang")
        control.hang_plugin("*")
        control.stick_tasks()
        (host,) = session.xenapi.host.get_all()
        session.xenapi.Async.host.call_plugin(host, "xenward", "ping", {})
        outcome: list[Any] = []

        def call() -> None:
            try:
                session.xenapi.pool.get_all()
            except (OSError, http.client.HTTPException) as error:
                outcome.append(error)

        caller = threading.Thread(target=call, daemon=True)
        caller.start()
        control.await_calls("pool.get_all")
        pid = simulator.pid
    assert not lives(pid)
    caller.join(20)
    assert len(outcome) == 1


# What is left


def test_leftovers(control: Control, simulator: SimulatorProcess, session: XenAPI.Session) -> None:
    api = session.xenapi
    control.mark()
    assert control.leftovers() == []
    other = log_in(simulator, "other")
    vm = make_vm(session, name_label="left")
    vdi = api.VDI.create(vdi_record(session, name_label="disk"))
    network = {"name_label": "net", "name_description": "", "MTU": "1500", "other_config": {}, "tags": []}
    net = api.network.create(network)
    vif = {"device": "0", "network": net, "VM": vm.ref, "MAC": "", "MTU": "1500", "other_config": {}}
    vif |= {"qos_algorithm_type": "", "qos_algorithm_params": {}, "locking_mode": "network_default"}
    api.VIF.create(vif)
    sr = make_sr(session)
    task = api.task.create("pending", "")
    ended = api.task.create("ended", "")
    api.task.set_status(ended, "success")
    vm.start(False, False)
    left = control.leftovers()
    assert [item.cls for item in left] == ["VM", "VDI", "VIF", "SR", "PBD", "network", "session", "task", "console"]
    found = {item.cls: item for item in left}
    assert (found["VM"].ref, found["VM"].uuid, found["VM"].name) == (vm.ref, vm.uuid, "left")
    assert (found["VDI"].ref, found["task"].ref, found["session"].ref) == (vdi, task, "")
    assert (found["session"].name, found["session"].uuid) == ("other", api.session.get_uuid(other.handle))
    assert other.handle not in repr(left)
    vm.destroy()
    api.VDI.destroy(vdi)
    api.network.destroy(net)
    (pbd,) = api.SR.get_PBDs(sr)
    api.PBD.unplug(pbd)
    api.SR.forget(sr)
    for ref in (task, ended):
        api.task.set_status(ref, "success")
        api.task.destroy(ref)
    other.logout()
    assert control.leftovers() == []


def test_leftovers_of_the_beginning(arguments: list[str]) -> None:
    with SimulatorProcess(arguments) as simulator:
        assert simulator.control.leftovers() == []


# Hosts


def test_hosts_crash_and_change_roles(arguments: list[str]) -> None:
    with SimulatorProcess([*arguments, "--hosts", "2"]) as simulator:
        control, session = simulator.control, log_in(simulator, "tests")
        first, second = (session.xenapi.host.get_by_uuid(host.uuid) for host in simulator.hosts)
        control.fail_plugin("xenward.*", host=second)
        call = session.xenapi.host.call_plugin
        assert call(first, "xenward", "ping", {}) == "pong"
        assert failure(call, second, "xenward", "ping", {})[0] == "XENAPI_PLUGIN_FAILURE"
        control.crash_host(second)
        assert failure(call, second, "xenward", "ping", {})[0] == "HOST_OFFLINE"
        with pytest.raises(ControlError, match="HOST_OFFLINE"):
            control.crash_host(second)
        control.start_host(second)
        # The rule holds for the host's new life too.
        assert failure(call, second, "xenward", "ping", {})[0] == "XENAPI_PLUGIN_FAILURE"
        control.change_coordinator(second)
        other = XenAPI.Session(simulator.url)
        login = (simulator.username, simulator.password, "1.0", "tests")
        assert failure(other.login_with_password, *login)[0] == "HOST_IS_SLAVE"
        other = XenAPI.Session(simulator.hosts[1].url)
        other.login_with_password(*login)
        control.restart_toolstack(0.0)
        assert other.xenapi.pool.get_master(other.xenapi.pool.get_all()[0]) == second
