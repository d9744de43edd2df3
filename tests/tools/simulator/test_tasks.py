"""Asynchronous calls and tasks, through the official SDK; what passes with time, on the class itself."""

from __future__ import annotations

import datetime
import json
import sys
import threading
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import XenAPI

from tools.simulator import errors, model, tasks
from tools.simulator.database import Database
from tools.simulator.process import SimulatorProcess
from tools.simulator.tasks import COMPLETED_TIMEOUT, MAX_TASKS, MAX_THREADS, PENDING_TIMEOUT, Tasks

from .support import NULL, Vm, failure, make_vm, plugin, until, vm_record
from .test_events import Background, since

LINGERING = """
import os, signal, sys, threading
root = sys.argv[1]
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
open(root + "/run/ready", "w").close()
ended.wait()
open(root + "/run/asked", "w").close()
while not os.path.exists(root + "/run/go"):
    threading.Event().wait(0.01)
"""
"""An agent whose guest shuts down only when it is told that it may."""


@pytest.fixture(scope="module")
def simulator(own_plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    script = tmp_path_factory.mktemp("agent") / "lingering.py"
    script.write_text(LINGERING, "utf-8")
    command = json.dumps([sys.executable, "-I", "-S", str(script), "{root}"])
    with SimulatorProcess(["--plugins", str(own_plugin), "--agent-command", command]) as process:
        yield process


@pytest.fixture
def second(simulator: SimulatorProcess) -> Iterator[XenAPI.Session]:
    """Another client."""
    session = XenAPI.Session(simulator.url)
    session.login_with_password(simulator.username, simulator.password, "1.0", "tasks")
    yield session
    session("close")()


def ended(session: XenAPI.Session, task: str) -> dict[str, Any]:
    """A task's record, once it has ended: followed by events, never asked for again and again."""
    token, record = "", {"status": "pending"}
    while record["status"] in ("pending", "cancelling"):
        batch = since(session, [f"task/{task}"], token, 10.0)
        assert batch["events"], "the task does not end"
        token, record = batch["token"], batch["events"][-1]["snapshot"]
    assert record == session.xenapi.task.get_record(task)
    return record


def shutting_down(session: XenAPI.Session, simulator: SimulatorProcess, vm: Vm) -> tuple[str, Path]:
    """A task that shuts a guest down, and the file that lets it end."""
    vm.start(False, False)
    run = simulator.guest_root(vm.uuid) / "run"
    until((run / "ready").exists)
    task = session.xenapi.Async.VM.shutdown(vm.ref)
    until((run / "asked").exists)
    return task, run / "go"


def test_a_task_that_succeeds(session: XenAPI.Session, vm: Vm) -> None:
    task = session.xenapi.Async.VM.start(vm.ref, False, False)
    assert task.startswith("OpaqueRef:")
    record = ended(session, task)
    assert (record["status"], record["progress"]) == ("success", 1.0)
    assert (record["result"], record["error_info"]) == ("<value></value>", [])
    assert (record["name_label"], record["type"]) == ("Async.VM.start", "<none/>")
    assert record["resident_on"] == session.xenapi.host.get_all()[0]
    assert str(record["finished"]) >= str(record["created"]) > "2020"
    assert record["allowed_operations"] == []
    assert record["backtrace"] == "()"
    assert record["subtask_of"] == NULL
    assert task in session.xenapi.session.get_tasks(session.handle)
    assert vm.get_power_state() == "Running"
    assert vm.get_current_operations() == {}
    session.xenapi.task.destroy(task)
    assert failure(session.xenapi.task.get_record, task) == ["HANDLE_INVALID", "task", task]
    assert task not in session.xenapi.session.get_tasks(session.handle)
    vm.hard_shutdown()


def test_results_are_xml(session: XenAPI.Session) -> None:
    record = ended(session, session.xenapi.Async.VM.create(vm_record()))
    assert record["status"] == "success"
    ref = record["result"][len("<value>") : -len("</value>")]
    assert record["result"] == f"<value>{ref}</value>"
    task = session.xenapi.Async.VM.get_possible_hosts(ref)
    host = session.xenapi.host.get_all()[0]
    assert ended(session, task)["result"] == f"<value><array><data><value>{host}</value></data></array></value>"
    session.xenapi.VM.destroy(ref)


def test_a_task_that_fails(session: XenAPI.Session, vm: Vm) -> None:
    record = ended(session, session.xenapi.Async.VM.pause(vm.ref))
    assert (record["status"], record["progress"], record["result"]) == ("failure", 1.0, "")
    assert record["error_info"] == ["VM_BAD_POWER_STATE", vm.ref, "running", "halted"]
    assert record["backtrace"].startswith("(((process simulator)(filename ")
    record = ended(session, session.xenapi.Async.VM.pause("x"))
    assert record["error_info"] == ["HANDLE_INVALID", "VM", "x"]


def test_errors_that_come_at_once(session: XenAPI.Session, simulator: SimulatorProcess, vm: Vm) -> None:
    api = session.xenapi.Async
    before = session.xenapi.task.get_all()
    assert failure(api.VM.start, vm.ref) == ["MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.start", "3", "1"]
    assert failure(api.VM.start, vm.ref, "no bool", False)[0] == "INTERNAL_ERROR"
    assert failure(api.VM.nothing, vm.ref) == ["MESSAGE_METHOD_UNKNOWN", "VM.nothing"]
    missing = "No async mode for this operation (rpc: VM.get_record)"
    assert failure(api.VM.get_record, vm.ref) == ["Fault", missing]
    with xmlrpc.client.ServerProxy(simulator.url) as proxy:
        answers = [
            getattr(proxy, name)("x", vm.ref, False, False) for name in ("Async.VM.start", "Async.VM_start", "VM_start")
        ]
    assert [answer["ErrorDescription"] for answer in answers] == 3 * [["SESSION_INVALID", "x"]]
    assert failure(api.VM_start, vm.ref, False, False) == ["MESSAGE_METHOD_UNKNOWN", "VM_start"]
    assert session.xenapi.task.get_all() == before


def test_calls_about_tasks_have_no_tasks_of_their_own(session: XenAPI.Session) -> None:
    task = session.xenapi.task.create("mine", "")
    other = session.xenapi.Async.task.cancel(task)
    assert other.startswith("DummyRef:|")
    assert failure(session.xenapi.task.get_record, other) == ["HANDLE_INVALID", "task", other]
    until(lambda: session.xenapi.task.get_current_operations(task) == {other: "cancel"})
    session.xenapi.task.set_status(task, "cancelled")
    session.xenapi.task.destroy(task)


def test_a_call_has_a_task_while_it_runs(
    session: XenAPI.Session, second: XenAPI.Session, simulator: SimulatorProcess, vm: Vm
) -> None:
    task, go = shutting_down(session, simulator, vm)
    assert vm.get_current_operations() == {task: "shutdown"}
    assert session.xenapi.task.get_allowed_operations(task) == ["cancel"]
    pausing = Background(second.xenapi.VM.pause, vm.ref)
    (other,) = until(lambda: session.xenapi.task.get_by_name_label("VM.pause"))
    record = session.xenapi.task.get_record(other)
    assert (record["status"], record["progress"]) == ("pending", 0.0)
    assert str(record["finished"]) == "19700101T00:00:00Z"
    assert other in session.xenapi.session.get_tasks(second.handle)
    go.touch()
    with pytest.raises(XenAPI.Failure) as caught:
        pausing.end()
    assert caught.value.details == ["VM_BAD_POWER_STATE", vm.ref, "running", "halted"]
    assert failure(session.xenapi.task.get_record, other) == ["HANDLE_INVALID", "task", other]
    assert ended(session, task)["status"] == "success"


def test_cancelling(session: XenAPI.Session, second: XenAPI.Session, simulator: SimulatorProcess, vm: Vm) -> None:
    first, go = shutting_down(session, simulator, vm)
    task = session.xenapi.Async.VM.pause(vm.ref)
    until(lambda: session.xenapi.task.get_allowed_operations(task) == ["cancel"])
    session.xenapi.task.cancel(task)
    record = ended(session, task)
    # As xapi does, nothing but the status says so; a call that waits for its answer is told.
    assert (record["status"], record["error_info"], record["result"]) == ("cancelled", [], "")
    assert list(record["current_operations"].values()) == ["cancel"]
    assert record["allowed_operations"] == []

    pausing = Background(second.xenapi.VM.pause, vm.ref)
    (other,) = until(lambda: session.xenapi.task.get_by_name_label("VM.pause"))
    until(lambda: session.xenapi.task.get_allowed_operations(other) == ["cancel"])
    session.xenapi.task.cancel(other)
    with pytest.raises(XenAPI.Failure) as caught:
        pausing.end()
    assert caught.value.details == ["TASK_CANCELLED", other]

    # What the guest has begun ends in its own way.
    session.xenapi.task.cancel(first)
    go.touch()
    assert ended(session, first)["status"] == "success"
    session.xenapi.task.cancel(first)
    assert session.xenapi.task.get_status(first) == "success"
    assert failure(session.xenapi.task.cancel, NULL) == ["HANDLE_INVALID", "task", NULL]


def test_destroying_what_still_runs(session: XenAPI.Session, simulator: SimulatorProcess, vm: Vm) -> None:
    task, go = shutting_down(session, simulator, vm)
    session.xenapi.task.destroy(task)
    assert session.xenapi.task.get_current_operations(task) == {"task": "destroy"}
    go.touch()
    until(lambda: task not in session.xenapi.task.get_all())
    assert vm.get_power_state() == "Halted"


def test_a_task_outlives_its_session(
    session: XenAPI.Session, second: XenAPI.Session, simulator: SimulatorProcess, vm: Vm
) -> None:
    task, go = shutting_down(session, simulator, vm)
    pausing = second.xenapi.Async.VM.clean_reboot(vm.ref)
    second.logout()
    go.touch()
    assert ended(session, task)["status"] == "success"
    assert ended(session, pausing)["status"] == "failure"


def test_tasks_of_clients(session: XenAPI.Session) -> None:
    api = session.xenapi.task
    task = api.create("mine", "for an upload")
    token = since(session, ["task"])["token"]
    record = api.get_record(task)
    assert (record["name_label"], record["name_description"], record["status"]) == ("mine", "for an upload", "pending")
    api.set_progress(task, 0.5)
    (event,) = since(session, [f"task/{task}"], token)["events"]
    assert event["snapshot"]["progress"] == 0.5
    api.set_result(task, "<value>x</value>")
    api.set_error_info(task, ["A", "b"])
    api.set_other_config(task, {"a": "1"})
    api.add_to_other_config(task, "b", "2")
    api.remove_from_other_config(task, "a")
    api.set_status(task, "failure")
    record = api.get_record(task)
    assert (record["result"], record["error_info"], record["status"]) == ("<value>x</value>", ["A", "b"], "failure")
    assert record["other_config"] == {"b": "2"}
    assert str(record["finished"]) == "19700101T00:00:00Z"
    assert failure(api.set_status, task, "finished")[0] == "INVALID_VALUE"
    api.destroy(task)
    assert task not in api.get_by_name_label("mine")


def test_many_at_once(session: XenAPI.Session, simulator: SimulatorProcess) -> None:
    plugin(simulator.plugins, "slow", "import time; time.sleep(0.2); print(answer('done'))")
    host = session.xenapi.host.get_all()[0]
    started = [session.xenapi.Async.host.call_plugin(host, "slow", "main", {}) for _ in range(20)]
    for task in started:
        assert ended(session, task)["result"] == "<value>done</value>"


def test_old_ones_vanish_by_themselves(own_plugin: Path) -> None:
    arguments = ["--plugins", str(own_plugin), "--no-agent", "--completed-task-timeout", "0.2"]
    with SimulatorProcess(arguments) as simulator:
        session = XenAPI.Session(simulator.url)
        session.login_with_password(simulator.username, simulator.password)
        vm = make_vm(session)
        pending = session.xenapi.task.create("mine", "")
        task = session.xenapi.Async.VM.start(vm.ref, False, False)
        token = since(session, ["task"])["token"]
        operations: list[str] = []
        while "del" not in operations:
            batch = since(session, [f"task/{task}"], token, 10.0)
            token = batch["token"]
            operations += [event["operation"] for event in batch["events"]]
        assert session.xenapi.task.get_all() == [pending]
        session("close")()


# With a clock of its own


@pytest.fixture
def database() -> Database:
    return Database(model.load())


@pytest.fixture
def manager(database: Database) -> Tasks:
    return Tasks(database, lambda: NULL)


def later(seconds: float) -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)


def test_time_until_completed_tasks_vanish(database: Database, manager: Tasks) -> None:
    done, destroyed, pending = (manager.create("", name) for name in ("done", "destroyed", "pending"))
    manager.succeed(done)
    manager.destroy(destroyed)
    manager.fail(destroyed, errors.failure("x"))
    assert database.refs("task") == [done, pending]
    manager.collect(later(COMPLETED_TIMEOUT - 100))
    assert database.refs("task") == [done, pending]
    manager.collect(later(COMPLETED_TIMEOUT + 100))
    assert database.refs("task") == [pending]


def test_pending_tasks_must_make_progress(database: Database, manager: Tasks) -> None:
    task = manager.create("", "pending")
    late = later(PENDING_TIMEOUT + 100)
    manager.collect(late)
    database.set("task", task, progress=0.1)
    manager.collect(late)
    assert database.exists("task", task)
    manager.collect(late)
    assert not database.exists("task", task)


def test_there_are_not_too_many(database: Database, manager: Tasks) -> None:
    pending = manager.create("", "pending")
    completed = [manager.create("", "completed") for _ in range(MAX_TASKS + 4)]
    for number, task in enumerate(completed):
        manager.succeed(task)
        database.set("task", task, finished=f"20300101T{number // 60:02}:{number % 60:02}:00Z")
    manager.collect(later(0))
    assert database.refs("task") == [pending, *completed[5:]]


def test_how_a_task_that_was_cancelled_ends(database: Database, manager: Tasks) -> None:
    call, upload = manager.create("", "call"), manager.create("", "upload")
    manager.give_up(call)
    manager.fail(upload, errors.ApiError("TASK_CANCELLED", upload))
    assert [database.get("task", ref, "status") for ref in (call, upload)] == ["cancelled", "cancelled"]
    assert database.get("task", upload, "error_info") == ["TASK_CANCELLED", upload]
    assert database.get("task", call, "error_info") == []


def test_an_end_is_final(database: Database, manager: Tasks) -> None:
    task = manager.create("", "x")
    manager.succeed(task, "<value>1</value>")
    manager.fail(task, errors.failure("x"))
    assert database.get("task", task, "status") == "success"
    assert database.get("task", task, "error_info") == []


def test_threads_are_bounded_and_who_waits_can_be_cancelled(database: Database, manager: Tasks) -> None:
    go, guard = threading.Event(), threading.Lock()
    running = [0, 0]

    def work() -> str:
        with guard:
            running[0] += 1
            running[1] = max(running)
        go.wait(10)
        with guard:
            running[0] -= 1
        return "<value></value>"

    refs = [manager.create("", "x") for _ in range(MAX_THREADS + 5)]
    for ref in refs:
        manager.launch(ref, work)
    until(lambda: running[0] == MAX_THREADS)
    manager.cancel(refs[-1], "me")
    go.set()
    until(lambda: all(database.get("task", ref, "status") != "pending" for ref in refs))
    assert running[1] == MAX_THREADS
    assert [database.get("task", ref, "status") for ref in refs] == ["success"] * (MAX_THREADS + 4) + ["cancelled"]


def test_progress_and_cancellation_of_a_call(database: Database, manager: Tasks) -> None:
    ref = manager.create("", "x")
    woken: list[bool] = []
    with manager.performing(ref) as task:
        assert tasks.current() is task
        tasks.current().progress(0.25)
        assert database.get("task", ref, "progress") == 0.25
        with task.cancellable(lambda: woken.append(True)):
            assert database.get("task", ref, "allowed_operations") == ["cancel"]
            task.check()
            manager.cancel(ref, "me")
            assert woken == [True]
            with pytest.raises(errors.ApiError) as caught:
                task.check()
            assert caught.value.description == ["TASK_CANCELLED", ref]
        assert database.get("task", ref, "allowed_operations") == []
    assert tasks.current().ref.startswith("DummyRef:|")
