"""A lease that is lost at whichever change of an operation: that operation does nothing more, and says so.

Be it that the service has its lease again a moment later: somebody else may have begun to put things in order.
"""

from __future__ import annotations

import traceback

import pytest

from compute_driver.fencing import LeaseLost, Unfenced

from .faults import Bench, Operation, bench_of
from .test_faults import OPERATIONS


class _Lapsing(Unfenced):
    """The lease is not ours at one moment. checks: how often it was asked for; at: which one fails, 0 for none."""

    def __init__(self, at: int = 0) -> None:
        self.at = at
        self.checks = 0

    def check(self) -> None:
        # A task of one's own may be ended at any time, and is not missed if it is not.
        if any(frame.name in ("_insist", "give_up") for frame in traceback.extract_stack()):
            return
        self.checks += 1
        if self.checks == self.at:
            raise LeaseLost("here")


def _checks(it: Bench, operation: Operation) -> int:
    """How often the fence is asked when all goes well."""
    instance = operation.prepare(it)
    it.server.fence = fence = _Lapsing()
    operation.run(it, instance)
    it.server.fence = None
    operation.check(it, instance, None)
    return fence.checks


def _lapse(it: Bench, operation: Operation, at: int) -> str:
    """What was wrong when the lease was lost then; nothing if all was well."""
    instance = operation.prepare(it)
    it.server.fence = fence = _Lapsing(at)
    wrong = ""
    try:
        operation.run(it, instance)
        if fence.checks >= at:
            wrong = f"check {at}: it was not told"
    except LeaseLost:
        if fence.checks > at:
            wrong = f"check {at}: {fence.checks - at} more"
    except Exception as error:
        wrong = f"check {at}: {error!r}"
    it.server.fence = None
    for each in (it, it.elsewhere):
        if each is not None:
            each.driver.destroy(instance)
            each.driver.remove_abandoned(older_than=0.0)
            each.images.stored.clear()
            each.assert_nothing_left()
    return wrong


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_nothing_is_done_after_it(operation: Operation) -> None:
    with bench_of(operation) as it:
        checks = _checks(it, operation)
        assert checks >= 1
        assert [wrong for at in range(1, checks + 1) if (wrong := _lapse(it, operation, at))] == []
