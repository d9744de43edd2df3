"""What was done is taken back, or the order is half done."""

from __future__ import annotations

from contextlib import nullcontext
from typing import NoReturn

import pytest

from agent_protocol.outcomes import Busy, Failed, Unknown, Unreachable, Unsuccessful
from compute_driver.errors import HalfDone
from compute_driver.fencing import LeaseLost
from compute_driver.xenapi.undo import Undo, undo_in_step


class _Progress:
    def step(self, name: str) -> nullcontext[None]:
        return nullcontext()


class _Unrecordable:
    def step(self, name: str) -> NoReturn:
        raise Unreachable("database_unavailable", "it is away")


def _raising(error: Unsuccessful) -> NoReturn:
    raise error


@pytest.mark.parametrize("kind", [Unreachable, Busy, Unknown])
def test_what_cannot_be_taken_back_now_is_half_done(kind: type[Unsuccessful]) -> None:
    undone = []
    with pytest.raises(HalfDone), Undo() as undo:
        undo.add("the first", lambda: undone.append("the first"))
        undo.add("the second", lambda: _raising(kind("away", "it is away")))
        raise Failed("broken", "it broke")
    assert undone == ["the first"]
    with pytest.raises(HalfDone):
        undo_in_step(_Progress(), lambda: _raising(kind("away", "it is away")), "it")


def test_what_can_never_be_taken_back_is_told_as_it_is() -> None:
    with pytest.raises(Failed, match="it broke"), Undo() as undo:
        undo.add("it", lambda: _raising(Failed("stuck", "it is stuck")))
        raise Failed("broken", "it broke")
    undo_in_step(_Progress(), lambda: _raising(Failed("stuck", "it is stuck")), "it")


def test_without_the_lease_the_rest_is_for_another_service() -> None:
    undone = []
    with pytest.raises(LeaseLost), Undo() as undo:
        undo.add("the first", lambda: undone.append("the first"))
        undo.add("the second", lambda: _raising(LeaseLost("here")))
        raise Failed("broken", "it broke")
    assert undone == []
    with pytest.raises(LeaseLost):
        undo_in_step(_Progress(), lambda: _raising(LeaseLost("here")), "it")


def test_a_step_that_cannot_be_recorded_is_taken_all_the_same() -> None:
    undone = []
    undo_in_step(_Unrecordable(), lambda: undone.append("it"), "it")
    assert undone == ["it"]
