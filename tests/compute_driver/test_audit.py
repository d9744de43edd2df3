from __future__ import annotations

import logging

import pytest

from agent_protocol.outcomes import Busy, Failed, Outcome, Refused, Unknown, Unreachable, Unsuccessful, Unsupported
from compute_driver.audit import Audit
from compute_driver.context import RequestContext
from compute_driver.db.repository import Repository
from compute_driver.errors import DatabaseUnavailable

CONTEXT = RequestContext("req-1", "ada")
SECRET = "hunter2-in-a-text"


def audit(repository: Repository) -> Audit:
    return Audit(repository, CONTEXT, host="here", action="stop", target="web")


def test_the_row_is_there_while_the_action_runs_and_ended_afterwards(repository: Repository) -> None:
    with audit(repository).action():
        (row,) = repository.unfinished_actions("here")
        assert (row.action, row.step, row.target, row.user, row.request_id) == ("stop", None, "web", "ada", "req-1")
        assert (row.outcome, row.finished_at, row.seconds) == (None, None, None)
    (row,) = repository.list_actions()
    assert (row.outcome, row.code, row.message) == (Outcome.SUCCEEDED, "", "")
    assert row.seconds is not None
    assert 0 <= row.seconds < 10
    assert row.finished_at is not None


@pytest.mark.parametrize("kind", [Refused, Unsupported, Busy, Failed, Unreachable, Unknown])
def test_each_honest_error_is_recorded_and_goes_on_as_it_is(repository: Repository, kind: type[Unsuccessful]) -> None:
    error = kind("some_code", "some words")
    with pytest.raises(kind) as caught, audit(repository).action():
        raise error
    assert caught.value is error
    (row,) = repository.list_actions()
    assert (row.outcome, row.code, row.message) == (kind.outcome, "some_code", "some words")


def test_steps_and_action_end_each_with_their_own_outcome(repository: Repository) -> None:
    it = audit(repository)
    with pytest.raises(Failed), it.action():
        with it.step("first"):
            pass
        it.instance_uuid = "uuid-1"
        with it.step("second"):
            raise Failed("broken", "it broke")
    rows = repository.list_actions(request_id="req-1")
    assert [(row.step, row.outcome, row.instance_uuid) for row in rows] == [
        (None, Outcome.FAILED, "uuid-1"),
        ("first", Outcome.SUCCEEDED, None),
        ("second", Outcome.FAILED, "uuid-1"),
    ]


def test_an_unforeseen_error_is_unknown_and_its_text_is_nowhere(
    repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(Unknown) as caught, audit(repository).action():
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
    with pytest.raises(KeyboardInterrupt), audit(repository).action():
        raise KeyboardInterrupt
    (row,) = repository.list_actions()
    assert (row.outcome, row.code) == (Outcome.UNKNOWN, "internal_error")


def test_nothing_is_done_when_it_cannot_be_recorded_first(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(**_: object) -> int:
        raise DatabaseUnavailable("sqlite")

    monkeypatch.setattr(repository, "start_action", unavailable)
    with pytest.raises(DatabaseUnavailable), audit(repository).action():
        pytest.fail("the block was entered")


@pytest.mark.parametrize("ended", [None, Failed("broken", "it broke"), Unreachable("away", "it is away")])
def test_an_outcome_that_cannot_be_recorded_is_unknown_and_told(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, ended: Unsuccessful | None
) -> None:
    def unavailable(*_: object, **__: object) -> None:
        raise DatabaseUnavailable("sqlite")

    monkeypatch.setattr(repository, "finish_action", unavailable)
    with pytest.raises(Unknown) as caught, audit(repository).action():
        if ended:
            raise ended
    assert caught.value.code == "not_recorded"
    assert str(ended.outcome if ended else "succeeded") in caught.value.message


def test_one_line_in_the_log_for_each_action(repository: Repository, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "compute_driver.audit")
    with pytest.raises(Busy), audit(repository).action():
        raise Busy("instance_busy", "not now")
    (record,) = caplog.records
    assert record.getMessage().startswith("req-1 stop web: busy (instance_busy) in ")
