"""call_log.py: every call, with references and without secrets."""

from __future__ import annotations

import threading

import pytest
import XenAPI

from tools.simulator.control import Control, ControlError
from tools.simulator.faults.call_log import CallLog
from tools.simulator.faults.errors import FaultError
from tools.simulator.faults.rules import Arrival
from tools.simulator.process import SimulatorProcess

from ..support import Vm, failure, make_vm, plugin, vm_record


def test_calls_of_a_session(control: Control, simulator: SimulatorProcess) -> None:
    session = XenAPI.Session(simulator.url)
    session.login_with_password(simulator.username, simulator.password, "1.0", "me")
    api = session.xenapi
    vm = make_vm(session)
    api.VM.set_xenstore_data(vm.ref, {"vm-data/password": "hush"})
    assert failure(api.VM.suspend, vm.ref)[0] == "VM_BAD_POWER_STATE"
    (network,) = api.network.get_all()
    vif = {"device": "0", "network": network, "VM": vm.ref, "MAC": "", "MTU": "1500", "other_config": {"secret": "s"}}
    vif |= {"qos_algorithm_type": "", "qos_algorithm_params": {}, "locking_mode": "network_default"}
    api.VIF.create(vif)
    api.session.get_uuid(session.handle)
    vm.destroy()
    handle = session.handle
    session.logout()
    calls = control.read_calls()
    found = {call.name: call for call in calls}
    assert [call.number for call in calls] == list(range(calls[0].number, calls[0].number + len(calls)))
    assert found["session.login_with_password"].originator == "me"
    assert {call.originator for call in calls} == {"me"}
    assert found["VM.suspend"].outcome == "VM_BAD_POWER_STATE"
    assert found["VM.set_xenstore_data"].references == (vm.ref,)
    assert set(found["VIF.create"].references) == {vm.ref, network}
    assert found["session.get_uuid"].references == ()
    assert found["session.logout"].outcome == "SUCCESS"
    assert all(call.duration is not None and call.duration >= 0 and call.started > 0 for call in calls)
    for secret in (handle, simulator.password, "hush", "'s'", "vm-data"):
        assert secret not in repr(calls)


def test_references_are_taken_where_references_belong(control: Control, session: XenAPI.Session) -> None:
    # A reference as a label may be anything, even a session.
    vm = make_vm(session, name_label=session.handle, other_config={"a": session.handle})
    (create,) = [call for call in control.read_calls() if call.name == "VM.create"]
    assert create.references == ()
    assert failure(session.xenapi.VM.get_uuid, "not a reference")[0] == "HANDLE_INVALID"
    assert control.read_calls()[-1].references == ()
    vm.destroy()


def test_unknown_calls_and_bad_sessions(control: Control, session: XenAPI.Session) -> None:
    failure(session.xenapi.VM.explode, "hush")
    handle, session._session = session._session, "hush"
    details = session.pool.get_all("hush")
    session._session = handle
    assert details["ErrorDescription"][0] == "SESSION_INVALID"
    calls = control.read_calls()
    assert [(call.name, call.outcome) for call in calls] == [
        ("unknown", "MESSAGE_METHOD_UNKNOWN"),
        ("pool.get_all", "SESSION_INVALID"),
    ]
    assert "hush" not in repr(calls)


def test_calls_of_plugins_are_logged(control: Control, simulator: SimulatorProcess, session: XenAPI.Session) -> None:
    body = (
        "import XenAPI\n"
        "(session, arguments), name = xmlrpc.client.loads(sys.argv[1])\n"
        "local = XenAPI.xapi_local()\n"
        "local._session = session\n"
        "print(answer(local.xenapi.pool.get_all()[0]))"
    )
    plugin(simulator.plugins, "caller", body)
    path = simulator.plugins / "caller"
    path.write_text(path.read_text("utf-8").replace(" -IS", ""), "utf-8")
    (host,) = session.xenapi.host.get_all()
    pool = session.xenapi.host.call_plugin(host, "caller", "f", {"secret": "hush"})
    path.unlink()
    assert pool.startswith("OpaqueRef:")
    calls = control.read_calls()
    assert [call.name for call in calls] == ["host.get_all", "host.call_plugin", "pool.get_all"]
    assert {call.originator for call in calls} == {"tests"}
    assert calls[1].references == (host,)


def test_switched_off_and_cleared(control: Control, vm: Vm) -> None:
    vm.get_uuid()
    last = control.read_calls()[-1].number
    control.log_calls(False)
    vm.get_uuid()
    assert control.read_calls()[-1].number == last
    with pytest.raises(ControlError, match="off"):
        control.await_calls("*", timeout=0)
    control.clear_calls()
    assert control.read_calls() == []
    control.log_calls()
    vm.get_uuid()
    assert [call.number for call in control.read_calls()] == [last + 1]
    assert control.read_calls(last + 2) == []


def test_waiting(control: Control, vm: Vm) -> None:
    found = []
    waiter = threading.Thread(target=lambda: found.extend(control.await_calls("VM.get_*", 3, 20)))
    waiter.start()
    for _ in range(3):
        vm.get_uuid()
    waiter.join(20)
    assert len(found) >= 3
    with pytest.raises(ControlError, match="instead of 1"):
        control.await_calls("VDI.*", timeout=0)
    with pytest.raises(ControlError, match="timeout"):
        control.await_calls("VDI.*", timeout=601)
    with pytest.raises(ControlError, match="instead of 4"):
        control.await_calls("VM.get_uuid", 4, timeout=0, since=control.read_calls()[-3].number)


def test_it_is_bounded() -> None:
    log = CallLog(limit=3)
    log.switch(True)
    for _ in range(5):
        log.end(log.begin(Arrival("call", "VM.start", arguments={"secret": "hush"})), "SUCCESS")
    with pytest.raises(FaultError, match="up to number 2"):
        log.read()
    assert [call.number for call in log.read(3)] == [3, 4, 5]
    log.clear()
    assert log.read() == []


def test_the_end_wakes_who_waits() -> None:
    log = CallLog()
    log.switch(True)
    outcome: list[Exception] = []

    def wait() -> None:
        try:
            log.wait("*", 1, 600)
        except FaultError as error:
            outcome.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    log.stop()
    waiter.join(20)
    assert len(outcome) == 1


def test_the_record_of_a_vm_is_not_kept(control: Control, session: XenAPI.Session) -> None:
    (host,) = session.xenapi.host.get_all()
    ref = session.xenapi.VM.create(vm_record(affinity=host))
    session.xenapi.VM.destroy(ref)
    (create,) = [call for call in control.read_calls() if call.name == "VM.create"]
    assert create.references == (host,)
