from __future__ import annotations

import logging
from typing import Any

import pytest

from agent_protocol.outcomes import Busy, Failed, Outcome, Refused, Unknown, Unreachable, Unsuccessful, Unsupported
from compute_driver.audit import Audit
from compute_driver.context import RequestContext
from compute_driver.db.repository import Repository
from compute_driver.errors import DatabaseUnavailable, OrderKnown
from compute_driver.fencing import LeaseLost
from compute_driver.recording import Recorder

CONTEXT = RequestContext("req-1", "ada", "order-1")
SECRET = "hunter2-in-a-text"


def audit(repository: Repository, **wanted: Any) -> Audit:
    return Audit(repository, CONTEXT, host="here", action="stop", target="web", **wanted)


def steps(repository: Repository) -> list[Any]:
    return [(row.step, row.outcome, row.code) for row in repository.list_actions() if row.step]


def test_the_row_of_an_action_is_there_from_its_beginning(repository: Repository) -> None:
    number = audit(repository).begin()
    (row,) = repository.unfinished_actions("here")
    assert (row.id, row.action, row.step, row.target, row.user) == (number, "stop", None, "web", "ada")
    assert (row.request_id, row.order_id, row.epoch) == ("req-1", "order-1", 0)
    assert (row.outcome, row.finished_at, row.seconds) == (None, None, None)


def test_it_is_that_of_the_lease(repository: Repository) -> None:
    lease = repository.acquire_lease("here", "holder", seconds=60.0)
    it = audit(repository)
    it.begin(lease)
    with it.step("first"):
        pass
    assert {row.epoch for row in repository.list_actions()} == {lease.epoch}
    repository.acquire_lease("here", "holder", seconds=60.0)
    with pytest.raises(LeaseLost):
        Audit(repository, RequestContext("req-2", "ada"), host="here", action="stop", target="web").begin(lease)
    with pytest.raises(LeaseLost), it.step("second"):
        pytest.fail("the block was entered")


def test_an_order_is_begun_once(repository: Repository) -> None:
    number = audit(repository).begin()
    with pytest.raises(OrderKnown) as caught:
        audit(repository).begin()
    assert caught.value.action.id == number


def test_the_row_of_a_step_is_there_while_it_runs(repository: Repository) -> None:
    it = audit(repository)
    it.instance_uuid = "uuid-1"
    with it.step("boot"):
        (row,) = repository.unfinished_actions("here")
        assert (row.step, row.order_id, row.request_id, row.instance_uuid) == ("boot", None, "req-1", "uuid-1")
    (row,) = repository.list_actions()
    assert (row.outcome, row.code, row.message) == (Outcome.SUCCEEDED, "", "")
    assert row.seconds is not None
    assert row.seconds >= 0
    assert row.finished_at is not None


@pytest.mark.parametrize("kind", [Refused, Unsupported, Busy, Failed, Unreachable, Unknown])
def test_each_honest_error_is_recorded_and_goes_on_as_it_is(repository: Repository, kind: type[Unsuccessful]) -> None:
    error = kind("some_code", "some words")
    with pytest.raises(kind) as caught, audit(repository).step("boot"):
        raise error
    assert caught.value is error
    (row,) = repository.list_actions()
    assert (row.outcome, row.code, row.message) == (kind.outcome, "some_code", "some words")


def test_each_step_has_an_outcome_of_its_own(repository: Repository) -> None:
    it = audit(repository)
    with pytest.raises(Failed), it.step("outer"):
        with it.step("first"):
            pass
        with it.step("second"):
            raise Failed("broken", "it broke")
    broken = (Outcome.FAILED, "broken")
    assert steps(repository) == [("outer", *broken), ("first", Outcome.SUCCEEDED, ""), ("second", *broken)]


def test_an_unforeseen_error_is_unknown_and_its_text_is_nowhere(
    repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(Unknown) as caught, audit(repository).step("boot"):
        raise ValueError(SECRET)
    assert caught.value.code == "internal_error"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    (row,) = repository.list_actions()
    assert (row.outcome, row.code, row.message) == (Outcome.UNKNOWN, "internal_error", "internal error: ValueError")
    assert SECRET not in caplog.text
    # Where it happened is told all the same.
    assert "test_audit.py" in caplog.text


def test_an_interrupt_is_recorded_as_unknown_and_goes_on(repository: Repository) -> None:
    with pytest.raises(KeyboardInterrupt), audit(repository).step("boot"):
        raise KeyboardInterrupt
    assert steps(repository) == [("boot", Outcome.UNKNOWN, "internal_error")]


def unavailable(*_: object, **__: object) -> Any:
    raise DatabaseUnavailable("sqlite")


def test_nothing_is_done_when_it_cannot_be_recorded_first(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "start_action", unavailable)
    with pytest.raises(DatabaseUnavailable):
        audit(repository).begin()
    with pytest.raises(DatabaseUnavailable), audit(repository).step("boot"):
        pytest.fail("the block was entered")


@pytest.mark.parametrize("ended", [None, Failed("broken", "it broke"), Unreachable("away", "it is away")])
def test_an_outcome_that_cannot_be_recorded_is_unknown_and_told(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, ended: Unsuccessful | None
) -> None:
    monkeypatch.setattr(repository, "finish_action", unavailable)
    with pytest.raises(Unknown) as caught, audit(repository).step("boot"):
        if ended:
            raise ended
    assert caught.value.code == "not_recorded"
    assert str(ended.outcome if ended else "succeeded") in caught.value.message


@pytest.mark.parametrize("name", ["start_action", "finish_action"])
def test_what_was_recorded_and_not_confirmed_is_there_once(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write, calls = getattr(repository, name), list[str]()

    def ask(*arguments: Any, **named: Any) -> Any:
        answer = write(*arguments, **named)
        calls.append(name)
        if len(calls) == 1:
            raise DatabaseUnavailable("hung up")
        return answer

    monkeypatch.setattr(repository, name, ask)
    it = audit(repository, insist=Recorder().insist)
    for _ in range(2):
        with it.step("inject_file"):
            pass
    assert steps(repository) == [("inject_file", Outcome.SUCCEEDED, "")] * 2


def test_an_end_that_somebody_else_recorded_is_the_loss_of_the_host(repository: Repository) -> None:
    with pytest.raises(LeaseLost), audit(repository).step("boot"):
        (row,) = repository.list_actions()
        repository.finish_action(row.id, outcome=Outcome.UNKNOWN, code="service_ended", seconds=1.0)
    assert steps(repository) == [("boot", Outcome.UNKNOWN, "service_ended")]


def test_one_line_in_the_log_for_each_end(repository: Repository, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "compute_driver.audit")
    it = audit(repository)
    with pytest.raises(Busy), it.step("boot"):
        raise Busy("instance_busy", "not now")
    it.log(None, Outcome.BUSY, "instance_busy", 1.5)
    told = [record.getMessage() for record in caplog.records]
    assert told[0].startswith("req-1 stop/boot web: busy (instance_busy) in ")
    assert told[1:] == ["req-1 stop web: busy (instance_busy) in 1.500 s"]


def test_who_observes_is_told_of_each_step(repository: Repository) -> None:
    told: list[Any] = []
    it = audit(repository, observe=lambda audit, *ended: told.append((audit.name, *ended[:2])))
    with it.step("first"):
        assert told == []
    with pytest.raises(Failed), it.step("second"):
        raise Failed("broken", "it broke")
    assert told == [("stop", "first", Outcome.SUCCEEDED), ("stop", "second", Outcome.FAILED)]
