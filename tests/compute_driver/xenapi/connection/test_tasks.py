from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from agent_protocol.outcomes import Outcome
from compute_driver.errors import ObjectGone, XenServerAnswerLost, XenServerFailure, XenServerUnreachable
from compute_driver.xenapi.connection import tasks
from compute_driver.xenapi.connection.session import Connection, XenServer
from tools.simulator.process import SimulatorProcess

from ..bad_server import DEADLINE, BadServer, Drop, Failure, client
from ..waiting import eventually, vm_record

TASK = "OpaqueRef:task"


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    with SimulatorProcess(["--no-agent", "--login-failure-delay", "0"]) as it:
        it.control.log_calls()
        yield it


@pytest.fixture
def xenserver(simulator: SimulatorProcess) -> Iterator[XenServer]:
    server = XenServer(Connection(simulator.url, simulator.username, simulator.password))
    assert server.events.await_change(lambda view: True, DEADLINE)
    yield server
    simulator.control.clear_rules()
    eventually(lambda: not server.call("task.get_all"))
    server.close()


@pytest.fixture
def vm(xenserver: XenServer) -> str:
    return str(xenserver.call("VM.create", vm_record("web")))


def test_the_result_is_that_of_the_call(xenserver: XenServer, vm: str) -> None:
    copy = xenserver.run("VM.clone", vm, "a & <copy>", timeout=DEADLINE)
    assert xenserver.call("VM.get_name_label", copy) == "a & <copy>"
    assert xenserver.run("VM.start", copy, False, False, timeout=DEADLINE) == ""
    xenserver.call("VM.hard_shutdown", copy)


def test_a_task_that_takes_long_is_asked_for_once(xenserver: XenServer, simulator: SimulatorProcess, vm: str) -> None:
    rule = simulator.control.stick_tasks("VM.start")
    simulator.control.clear_calls()
    progress: list[float] = []
    results: list[Any] = []

    def run() -> None:
        results.append(xenserver.run("VM.start", vm, False, False, timeout=DEADLINE, progress=progress.append))

    runner = threading.Thread(target=run)
    runner.start()
    (task,) = eventually(lambda: xenserver.call("task.get_all_records"))
    for fraction in (0.25, 0.5):
        xenserver.call("task.set_progress", task, fraction)
        eventually(lambda: progress and progress[-1] == fraction)  # noqa: B023
    simulator.control.remove_rule(rule)
    runner.join(DEADLINE)
    assert results == [""]
    assert progress[-3:] == [0.25, 0.5, 1.0]
    asked = [call.name for call in simulator.control.read_calls() if call.name == "task.get_record"]
    assert len(asked) == 1
    xenserver.call("VM.hard_shutdown", vm)


def test_a_failure_of_the_task_is_that_of_the_call(xenserver: XenServer, simulator: SimulatorProcess, vm: str) -> None:
    simulator.control.add_rule("Async.VM.start", "fail", error=["VDI_IN_USE", vm, "copy"], first=1)
    with pytest.raises(XenServerFailure) as caught:
        xenserver.run("VM.start", vm, False, False, timeout=DEADLINE)
    assert (caught.value.details, caught.value.outcome) == (("VDI_IN_USE", vm, "copy"), Outcome.BUSY)
    simulator.control.add_rule("Async.VM.start", "fail", error=["HANDLE_INVALID", "VM", vm], first=1)
    with pytest.raises(ObjectGone):
        xenserver.run("VM.start", vm, False, False, timeout=DEADLINE)


def test_what_is_wrong_with_the_call_itself_is_told_at_once(xenserver: XenServer) -> None:
    with pytest.raises(XenServerFailure) as caught:
        xenserver.run("VM.fly", "x", timeout=DEADLINE)
    assert (caught.value.code, caught.value.outcome) == ("xenserver_message_method_unknown", Outcome.UNSUPPORTED)


def test_a_task_that_does_not_end_when_it_is_cancelled_is_unknown(
    xenserver: XenServer, simulator: SimulatorProcess, vm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "CANCEL_TIMEOUT", 0.2)
    simulator.control.stick_tasks("VM.start")
    with pytest.raises(XenServerAnswerLost) as caught:
        xenserver.run("VM.start", vm, False, False, timeout=0.1)
    assert (caught.value.outcome, caught.value.call) == (Outcome.UNKNOWN, "VM.start")
    simulator.control.clear_rules()


def test_a_task_that_vanished_is_unknown(xenserver: XenServer, simulator: SimulatorProcess, vm: str) -> None:
    simulator.control.stick_tasks("VM.start")
    threading.Timer(0.3, lambda: simulator.control.restart_toolstack(0.2)).start()
    with pytest.raises(XenServerAnswerLost) as caught:
        xenserver.run("VM.start", vm, False, False, timeout=DEADLINE)
    assert caught.value.call == "VM.start"
    simulator.control.clear_rules()


def test_without_events_the_task_is_asked_for(xenserver: XenServer, simulator: SimulatorProcess, vm: str) -> None:
    simulator.control.add_rule("event.from", "fail", error=["INTERNAL_ERROR", "no events"])
    simulator.control.expire_sessions()
    eventually(lambda: not xenserver.events.is_live)
    simulator.control.add_rule("Async.VM.start", "delay", seconds=0.5, first=1)
    simulator.control.clear_calls()
    assert xenserver.run("VM.start", vm, False, False, timeout=DEADLINE) == ""
    assert 2 <= sum(call.name == "task.get_record" for call in simulator.control.read_calls()) <= 6
    xenserver.call("VM.hard_shutdown", vm)


def test_an_error_of_the_callers_own_cancels_the_task(
    xenserver: XenServer, simulator: SimulatorProcess, vm: str
) -> None:
    simulator.control.add_rule("Async.VM.start", "delay", seconds=0.3, first=1)
    simulator.control.clear_calls()

    def fail(done: float) -> None:
        raise KeyError(done)

    with pytest.raises(KeyError):
        xenserver.run("VM.start", vm, False, False, timeout=DEADLINE, progress=fail)
    names = [call.name for call in simulator.control.read_calls()]
    assert names.count("task.cancel") == names.count("task.destroy") == 1
    eventually(lambda: not xenserver.call("task.get_all"))
    if xenserver.call("VM.get_power_state", vm) == "Running":
        xenserver.call("VM.hard_shutdown", vm)


def test_a_task_for_http_handlers_is_waited_for_and_destroyed(xenserver: XenServer) -> None:
    with xenserver.task("Import of a disk") as task:
        assert xenserver.call("task.get_name_label", task.ref) == "Import of a disk"
        threading.Timer(0.1, lambda: xenserver.call("task.set_status", task.ref, "success")).start()
        task.wait(DEADLINE)
    with pytest.raises(ObjectGone):
        xenserver.call("task.get_record", task.ref)


# Answers that are lost or none


def record(**fields: Any) -> Any:
    """A behaviour: the record of a task."""
    return lambda *_: {"uuid": "u", "status": "success", "progress": 1.0, "result": "<value/>", **fields}


def run(server: BadServer, *records: Any) -> Any:
    """What VM.start gives whose task has these records, one after the other."""
    server.behave("Async.VM.start", TASK)
    server.behave("task.get_record", *records)
    return client(server).run("VM.start", "ref", timeout=DEADLINE)


def cancelling(server: BadServer, after: str) -> Any:
    """A behaviour: pending, until somebody has cancelled the task; then `after`."""
    return lambda *_: record(status=after if server.seen("task.cancel") else "pending", progress=0.1)()


@pytest.mark.parametrize("why", ["deadline", "caller"])
def test_a_task_is_cancelled_at_its_deadline_or_when_the_caller_asks(server: BadServer, why: str) -> None:
    cancelled = threading.Event()
    if why == "caller":
        threading.Timer(0.2, cancelled.set).start()
    server.behave("Async.VM.start", TASK)
    server.behave("task.get_record", *[cancelling(server, "cancelled")] * 20)
    with pytest.raises(XenServerFailure) as caught:
        client(server).run("VM.start", timeout=0.3 if why == "deadline" else DEADLINE, cancelled=cancelled)
    assert (caught.value.details[0], caught.value.outcome) == ("TASK_CANCELLED", Outcome.FAILED)
    assert server.seen("task.cancel") == server.seen("task.destroy") == 1


def test_a_task_is_forgotten_although_the_coordinator_changes_meanwhile(server: BadServer) -> None:
    server.behave("task.destroy", Drop(), Failure(("HOST_STILL_BOOTING",)))
    assert run(server, record()) == ""
    assert server.seen("task.destroy") == 3
    server.behave("task.destroy", Failure(("HANDLE_INVALID", "task", TASK)))
    assert run(server, record()) == ""
    assert server.seen("task.destroy") == 4


def test_a_task_that_succeeds_although_it_was_cancelled_has_succeeded(server: BadServer) -> None:
    server.behave("Async.VM.start", TASK)
    server.behave("task.get_record", *[cancelling(server, "success")] * 20)
    assert client(server).run("VM.start", timeout=0.1) == ""


def test_a_task_that_somebody_else_cancelled_is_unknown(server: BadServer) -> None:
    with pytest.raises(XenServerAnswerLost):
        run(server, record(status="cancelled"))
    assert server.seen("task.cancel") == 0


def test_a_lost_answer_to_the_call_is_unknown_and_it_is_sent_once(server: BadServer) -> None:
    server.behave("Async.VM.start", Drop())
    with pytest.raises(XenServerAnswerLost) as caught:
        client(server).run("VM.start", "ref", timeout=DEADLINE)
    assert caught.value.call == "VM.start"
    assert server.seen("Async.VM.start") == 1


@pytest.mark.parametrize(
    ("result", "value"),
    [
        ("<value>OpaqueRef:1</value>", "OpaqueRef:1"),
        ("<value></value>", ""),
        ("<value><array><data><value>a &amp; b</value></data></array></value>", ["a & b"]),
        ("plain text of a handler", "plain text of a handler"),
        ("", ""),
    ],
)
def test_results_are_read_as_xenserver_writes_them(server: BadServer, result: str, value: Any) -> None:
    assert run(server, record(result=result)) == value
    assert server.seen("task.destroy") == 1


@pytest.mark.parametrize(
    "behaviours",
    [
        [record(result="<value><int>x</int></value>")],
        [record(result="<value>")],
        [record(result="<value></value></param>")],
        [record(status="failure", error_info=[])],
        [record(status="failure", error_info="text")],
        [record(status="exploded")],
        [record(status=7)],
        [Failure(("HANDLE_INVALID", "task", TASK))],
        [Failure(("RBAC_PERMISSION_DENIED", "task.get_record"))],
        [record(status="pending", progress=0.5), Failure(("HANDLE_INVALID", "task", TASK))],
    ],
)
def test_an_end_that_cannot_be_told_is_unknown(server: BadServer, behaviours: list[Any]) -> None:
    with pytest.raises(XenServerAnswerLost) as caught:
        run(server, *behaviours)
    assert caught.value.call == "VM.start"
    assert server.seen("task.destroy") == 1


def test_a_coordinator_that_comes_back_in_time_costs_nothing(server: BadServer) -> None:
    assert run(server, Drop(), Failure(("HOST_STILL_BOOTING",)), record(status="pending"), record()) == ""


def test_a_session_is_lent_and_ended(server: BadServer) -> None:
    xenserver = client(server)
    with xenserver.session() as session:
        assert session.ref == "OpaqueRef:session-1"
    assert server.calls[-1] == ("session.logout", "OpaqueRef:session-1")
    server.behave("session.login_with_password", Drop())
    with pytest.raises(XenServerUnreachable), xenserver.session():
        raise AssertionError("there is no session")


def test_a_task_made_while_everything_was_being_listed_is_not_taken_for_gone(server: BadServer) -> None:
    listing, ended = threading.Event(), threading.Event()
    counts = {"events": [], "valid_ref_counts": {}, "token": "1,1"}
    server.behave(
        "event.from", lambda *_: (listing.wait(DEADLINE), counts)[1], lambda *_: (ended.wait(DEADLINE), {})[1]
    )

    def look(*_: Any) -> Any:
        # The list, which was made before the task, comes while its record is being read.
        listing.set()
        assert xenserver.events.await_change(lambda view: True, DEADLINE)
        return record(status="pending")()

    server.behave("Async.VM.start", TASK)
    server.behave("task.get_record", look, record())
    xenserver = client(server)
    assert xenserver.run("VM.start", timeout=DEADLINE) == ""
    ended.set()
    xenserver.close()
