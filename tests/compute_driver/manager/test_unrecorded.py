"""A database that goes away, and comes back: what happened is recorded in the end, once, and nothing else is told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from agent_protocol.outcomes import Failed, Outcome, Refused, Unknown, Unreachable
from compute_driver.db.repository import Repository
from compute_driver.errors import DatabaseUnavailable
from compute_driver.recording import Recorder

from ..bench import CONTEXT, DEADLINE, UUID, Bench
from ..cases import CASES, Case, every_case
from .services import WRITES, Service

STOP = next(case for case in CASES if case.name == "stop")
CREATE = CASES[0]


class Outage:
    """A database that is away while `is_on`. asked: the writes that it did not take."""

    def __init__(self, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_on = False
        self.asked = threading.Event()
        for name in WRITES | {"get_agent", "list_actions", "find_instance", "get_instance", "unfinished_actions"}:
            monkeypatch.setattr(repository, name, self._through(getattr(repository, name)))

    def _through(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*arguments: Any, **named: Any) -> Any:
            if self.is_on:
                self.asked.set()
                raise DatabaseUnavailable("gone")
            return method(*arguments, **named)

        return ask


def impatient(repository: Repository) -> Bench:
    """A bench whose manager does not wait for a database."""
    return Bench.of(repository, recorder=Recorder(0.0))


def answer_is_lost(repository: Repository, monkeypatch: pytest.MonkeyPatch, name: str, times: int = 1) -> list[str]:
    """The next calls of a method have their effect, but nobody is told. Gives what was called."""
    method, calls = getattr(repository, name), list[str]()

    def ask(*arguments: Any, **named: Any) -> Any:
        answer = method(*arguments, **named)
        calls.append(name)
        if len(calls) <= times:
            raise DatabaseUnavailable("hung up")
        return answer

    monkeypatch.setattr(repository, name, ask)
    return calls


# Before the driver


@every_case
@pytest.mark.parametrize("method", ["start_action", "take_turn"])
def test_without_a_database_nothing_is_asked_of_the_driver(
    bench: Bench, case: Case, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.begin(bench)
    if method == "take_turn":
        method = "begin_task" if case.before else "create_instance"

    def unavailable(*_: object, **__: object) -> Any:
        raise DatabaseUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(bench.repository, method, unavailable)
        with pytest.raises(DatabaseUnavailable):
            case.carry_out(bench)
    assert bench.asked == []
    if method != "start_action":
        assert (bench.action().outcome, bench.action().code) == (Outcome.UNREACHABLE, "database_unavailable")


def test_a_turn_that_was_taken_and_not_confirmed_is_given_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.have()
    answer_is_lost(bench.repository, monkeypatch, "begin_task")
    with pytest.raises(DatabaseUnavailable):
        STOP.carry_out(bench)
    assert bench.asked == []
    assert (bench.instance.task_state, bench.instance.vm_state) == (None, "active")


def test_an_instance_that_was_made_and_not_confirmed_is_in_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_is_lost(bench.repository, monkeypatch, "create_instance")
    with pytest.raises(DatabaseUnavailable):
        CREATE.carry_out(bench)
    assert bench.asked == []
    assert (bench.instance.task_state, bench.instance.vm_state) == (None, "error")


# While the driver works


@every_case
def test_one_that_comes_back_gets_the_true_outcome(
    repository: Repository, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench.of(repository)
    case.begin(bench)
    outage = Outage(repository, monkeypatch)
    verb = getattr(bench.driver, case.verb)

    def goes_away(*arguments: Any, **named: Any) -> Any:
        outage.is_on = True
        threading.Thread(target=_comes_back, args=(outage,)).start()
        return verb(*arguments, **named)

    monkeypatch.setattr(bench.driver, case.verb, goes_away)
    case.carry_out(bench)
    assert outage.asked.is_set()
    assert (bench.action().outcome, bench.action().code) == (Outcome.SUCCEEDED, "")
    assert repository.unfinished_actions("here") == []
    instance = repository.get_instance(UUID, include_deleted=True)
    assert instance.task_state is None
    assert {name: getattr(instance, name) for name in case.after} == dict(case.after)
    assert bench.manager.recorder.waiting == 0


def _comes_back(outage: Outage) -> None:
    assert outage.asked.wait(DEADLINE)
    outage.is_on = False


@pytest.mark.parametrize("error", [None, Failed("broken", "it broke"), Unreachable("away", "it is away")])
@pytest.mark.parametrize("name", ["stop", "start", "pause", "delete", "set_admin_password"])
def test_after_patience_it_is_told_and_recorded_by_the_next_reconciliation(
    repository: Repository, name: str, error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "delete" and isinstance(error, Unreachable):
        # That has no end to be recorded.
        error = Refused("away", "it is away")
    case = next(case for case in CASES if case.name == name)
    bench = impatient(repository)
    case.begin(bench)
    outage = Outage(repository, monkeypatch)
    conclude, ends = repository.conclude, list[str]()

    def goes_away(*arguments: Any, **named: Any) -> Any:
        outage.is_on = outage.is_on or not ends
        ends.append("asked")
        return conclude(*arguments, **named)

    monkeypatch.setattr(repository, "conclude", goes_away)
    if error:
        bench.driver.steering.fail(case.verb, error)
    with pytest.raises(Unknown) as caught:
        case.carry_out(bench)
    assert caught.value.code == "not_recorded"
    assert str(Outcome.SUCCEEDED if error is None else error.outcome) in caught.value.message  # type: ignore[attr-defined]
    assert bench.manager.recorder.waiting == 1
    with pytest.raises(DatabaseUnavailable):
        bench.manager.reconcile()
    outage.is_on = False
    assert bench.action().outcome is None
    assert bench.manager.reconcile() == {}
    row = bench.action()
    assert (row.outcome, row.code) == ((Outcome.SUCCEEDED, "") if error is None else (error.outcome, error.code))  # type: ignore[attr-defined]
    instance = repository.get_instance(UUID, include_deleted=True)
    assert instance.task_state is None
    if error is None:
        assert {name: getattr(instance, name) for name in case.after} == dict(case.after)
    assert bench.manager.recorder.waiting == 0


def test_a_warning_that_cannot_be_looked_up_is_no_failure(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = impatient(repository)
    bench.have()

    def unavailable(*_: object) -> Any:
        raise DatabaseUnavailable("gone")

    monkeypatch.setattr(repository, "get_agent", unavailable)
    monkeypatch.setattr(bench.driver, "set_admin_password", lambda *_: None)
    next(case for case in CASES if case.name == "set_admin_password").carry_out(bench)
    assert bench.action().outcome is Outcome.SUCCEEDED


@every_case
def test_an_end_whose_recording_was_not_confirmed_is_recorded_once(
    bench: Bench, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.begin(bench)
    calls = answer_is_lost(bench.repository, monkeypatch, "conclude", times=2)
    case.carry_out(bench)
    assert len(calls) == 3
    rows = [row for row in bench.repository.list_actions() if row.step is None]
    assert [(row.action, row.outcome) for row in rows] == [(case.operation.action, Outcome.SUCCEEDED)]
    instance = bench.repository.get_instance(UUID, include_deleted=True)
    assert {name: getattr(instance, name) for name in case.after} == dict(case.after)


def test_neither_are_faults_doubled(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_is_lost(bench.repository, monkeypatch, "conclude", times=2)
    bench.driver.steering.fail("boot", Failed("broken", "it broke"))
    with pytest.raises(Failed):
        CREATE.carry_out(bench)
    assert [fault.code for fault in bench.repository.list_faults(UUID)] == ["broken"]


@pytest.mark.parametrize("name", ["start_action", "finish_action"])
def test_nor_steps(repository: Repository, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench.of(repository)
    instances = repository.create_instance

    def create_instance(**named: Any) -> Any:
        made = instances(**named)
        # From the first step on.
        answer_is_lost(repository, monkeypatch, name, times=3)
        return made

    monkeypatch.setattr(repository, "create_instance", create_instance)
    CREATE.carry_out(bench)
    steps = [row.step for row in repository.list_actions() if row.step]
    assert len(steps) == len(set(steps))
    assert {row.outcome for row in repository.list_actions()} == {Outcome.SUCCEEDED}


def test_a_step_that_cannot_be_recorded_is_not_taken_and_the_create_is_unknown(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = impatient(repository)
    start = repository.start_action

    def start_action(**described: Any) -> int:
        if described["step"] == "boot":
            raise DatabaseUnavailable("gone")
        return start(**described)

    monkeypatch.setattr(repository, "start_action", start_action)
    with pytest.raises(Unknown) as caught:
        CREATE.carry_out(bench)
    assert caught.value.code == "not_recorded"
    assert bench.driver.guests == []
    assert (bench.instance.vm_state, bench.instance.task_state) == ("error", None)
    assert "boot" not in [row.step for row in repository.list_actions()]


def test_an_end_that_another_service_recorded_meanwhile_keeps_nothing_waiting(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service.first(repository)
    service.have()
    conclude = repository.conclude

    def unavailable(*_: object, **__: object) -> Any:
        raise DatabaseUnavailable("gone")

    monkeypatch.setattr(repository, "conclude", unavailable)
    with pytest.raises(Unknown):
        STOP.carry_out(service)
    monkeypatch.setattr(repository, "conclude", conclude)
    assert service.next().manager.reconcile() == {"found_done": 1}
    assert service.manager.recorder.waiting == 1
    assert service.manager.reconcile() == {}
    assert service.manager.recorder.waiting == 0
    assert (service.action().code, service.instance.vm_state) == ("found_done", "stopped")


def test_what_was_told_of_a_create_is_what_was_recorded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    outage = Outage(bench.repository, monkeypatch)
    conclude = bench.repository.conclude

    def last(*arguments: Any, **named: Any) -> Any:
        ended = conclude(*arguments, **named)
        outage.is_on = True
        return ended

    monkeypatch.setattr(bench.repository, "conclude", last)
    made = CREATE.carry_out(bench)
    outage.is_on = False
    assert made == bench.repository.get_instance(UUID)
    assert (made.vm_state, made.task_state) == ("active", None)
    assert bench.manager.list_actions("web", CONTEXT.request_id)[0].outcome is Outcome.SUCCEEDED
