"""A database that goes away, and a service that did: what cannot be known is never told as known."""

from __future__ import annotations

from typing import Any

import pytest

from agent_protocol.outcomes import Failed, Outcome, Unknown
from compute_driver.db.repository import Repository
from compute_driver.errors import (
    DatabaseUnavailable,
)

from .bench import (
    OPERATIONS,
    SECRET,
    Bench,
    Operation,
    every_operation,
)


def unavailable(*_: object, **__: object) -> Any:
    raise DatabaseUnavailable("gone")


def database_goes(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    """From now on no method of the repository works."""
    for name in vars(Repository):
        if not name.startswith("_"):
            monkeypatch.setattr(bench.repository, name, unavailable)


@every_operation
@pytest.mark.parametrize("method", ["start_action", "take_turn"])
def test_without_a_database_nothing_is_asked_of_the_driver(
    bench: Bench, operation: Operation, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation.prepare(bench)
    if method == "take_turn":
        method = "begin_task" if operation.before else "create_instance"
    with monkeypatch.context() as patch:
        patch.setattr(bench.repository, method, unavailable)
        with pytest.raises(DatabaseUnavailable):
            operation.run(bench)
    assert bench.driver.calls == []
    if method != "start_action":
        assert (bench.action().outcome, bench.action().code) == (Outcome.UNREACHABLE, "database_unavailable")


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        *((operation, None) for operation in OPERATIONS),
        *((operation, Failed("broken", "it broke")) for operation in OPERATIONS[:3]),
        *((operation, ValueError(SECRET)) for operation in OPERATIONS[:3]),
    ],
    ids=lambda value: value.name() if isinstance(value, Operation) else type(value).__name__,
)
def test_a_database_that_goes_while_the_driver_works_makes_it_unknown(
    bench: Bench, operation: Operation, error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation.prepare(bench)
    with monkeypatch.context() as patch:
        bench.driver.on_call = lambda _: database_goes(patch, bench)
        if error:
            bench.driver.errors[operation.method] = error
        with pytest.raises(Unknown) as caught:
            operation.run(bench)
    assert caught.value.code == "not_recorded"
    assert bench.action().outcome is None
    # The next start of the service says what is known about it, and gives the turn back.
    bench.driver.on_call = lambda _: None
    bench.manager.close_unfinished()
    assert bench.action().outcome is Outcome.UNKNOWN
    assert bench.repository.find_instance("web").task_state is None


@pytest.mark.parametrize(
    ("operation", "method"),
    [
        *((operation, "end_task") for operation in OPERATIONS if operation.action != "delete"),
        (OPERATIONS[0], "save_agent"),
        (OPERATIONS[1], "delete_instance"),
    ],
    ids=lambda value: value.name() if isinstance(value, Operation) else value,
)
def test_what_happened_and_could_not_be_recorded_is_unknown(
    bench: Bench, operation: Operation, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation.prepare(bench)
    with monkeypatch.context() as patch:
        patch.setattr(bench.repository, method, unavailable)
        with pytest.raises(Unknown) as caught:
            operation.run(bench)
    assert caught.value.code == "not_recorded"
    assert (bench.action().outcome, bench.action().code) == (Outcome.UNKNOWN, "not_recorded")
    assert (operation.method in [call[0] for call in bench.driver.calls]) is True


@pytest.mark.parametrize(
    ("operation", "method"),
    [(OPERATIONS[0], "save_agent"), (OPERATIONS[1], "delete_instance")],
    ids=lambda value: value.name() if isinstance(value, Operation) else value,
)
def test_a_database_that_comes_back_gets_the_turn_back(
    bench: Bench, operation: Operation, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation.prepare(bench)
    with monkeypatch.context() as patch:
        patch.setattr(bench.repository, method, unavailable)
        with pytest.raises(Unknown):
            operation.run(bench)
    instance = bench.repository.find_instance("web")
    assert (instance.task_state, instance.vm_state) == (None, "error")


def test_a_step_that_cannot_be_recorded_is_not_taken_and_the_create_is_unknown(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = bench.repository.start_action

    def start_action(**described: Any) -> int:
        return int(unavailable() if described["step"] == "boot" else start(**described))

    monkeypatch.setattr(bench.repository, "start_action", start_action)
    with pytest.raises(Unknown) as caught:
        bench.create()
    assert caught.value.code == "not_recorded"
    assert [call[0] for call in bench.driver.calls] == ["spawn", "create_vm"]
    instance = bench.repository.find_instance("web")
    assert (instance.vm_state, instance.task_state) == ("error", None)


@every_operation
def test_an_error_is_told_even_if_the_turn_cannot_be_given_back(
    bench: Bench, operation: Operation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    operation.prepare(bench)
    bench.driver.errors[operation.method] = Failed("broken", "it broke")
    monkeypatch.setattr(bench.repository, "end_task", unavailable)
    with pytest.raises(Failed):
        operation.run(bench)
    assert (bench.action().outcome, bench.action().code) == (Outcome.FAILED, "broken")
    assert "keeps its task" in caplog.text


# After a crash


def unfinished(bench: Bench, *, host: str, action: str, uuid: str, task: str, vm_state: str) -> int:
    """What a service that died in the middle of an action leaves."""
    bench.repository.create_instance(uuid=uuid, display_name=uuid, host=host, memory_mb=64, vcpus=1, root_gb=1)
    if vm_state != "building":
        bench.repository.end_task(uuid, vm_state=vm_state)
        bench.repository.begin_task(uuid, task)
    return bench.repository.start_action(
        action=action, target=uuid, request_id="req-0", user="ada", host=host, instance_uuid=uuid
    )


def test_what_was_in_flight_is_unknown_after_a_restart(bench: Bench) -> None:
    creating = {"action": "create", "task": "spawning", "vm_state": "building"}
    stopping = {"action": "stop", "task": "powering-off", "vm_state": "active"}
    unfinished(bench, host="here", uuid="new", **creating)
    unfinished(bench, host="here", uuid="old", **stopping)
    unfinished(bench, host="there", uuid="new-there", **creating)
    unfinished(bench, host="there", uuid="old-there", **stopping)
    bench.instance("stopped", "idle", uuid="idle")
    done = unfinished(bench, host="here", uuid="done", **stopping)
    bench.repository.finish_action(done, outcome=Outcome.FAILED, code="broken", message="it broke", seconds=1.0)

    bench.manager.close_unfinished()

    states = {row.uuid: (row.vm_state, row.task_state) for row in bench.repository.list_instances()}
    assert states == {
        "new": ("error", None),
        "old": ("active", None),
        "new-there": ("building", "spawning"),
        "old-there": ("active", "powering-off"),
        "idle": ("stopped", None),
        # Its row had ended, but its turn had not been given back.
        "done": ("active", None),
    }
    ends = {row.instance_uuid: (row.outcome, row.code) for row in bench.repository.list_actions()}
    assert ends == {
        "new": (Outcome.UNKNOWN, "service_restarted"),
        "old": (Outcome.UNKNOWN, "service_restarted"),
        "new-there": (None, ""),
        "old-there": (None, ""),
        "done": (Outcome.FAILED, "broken"),
    }
    assert all(row.seconds is not None and row.seconds >= 0 for row in bench.repository.list_actions() if row.outcome)
    assert bench.driver.calls == []


def test_closing_twice_changes_nothing_more(bench: Bench) -> None:
    unfinished(bench, host="here", uuid="old", action="stop", task="powering-off", vm_state="active")
    bench.manager.close_unfinished()
    before = bench.repository.list_actions(), bench.repository.list_instances()
    bench.manager.close_unfinished()
    assert (bench.repository.list_actions(), bench.repository.list_instances()) == before
