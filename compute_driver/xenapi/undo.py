"""Taking back what was done on the way to something that failed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType

from agent_protocol.outcomes import Outcome, Unsuccessful

from ..driver import Progress
from ..errors import HalfDone
from ..fencing import LeaseLost

LOG = logging.getLogger(__name__)

_LATER = (Outcome.UNREACHABLE, Outcome.BUSY, Outcome.UNKNOWN)
"""How an undoing ends that may work later."""


def undo_in_step(progress: Progress, undo: Callable[[], object], what: str) -> None:
    """Undo something in a step of its own, be it that the step cannot be recorded. what: a name for it, in the log.

    HalfDone when that does not work now; LeaseLost. Nothing is raised otherwise: the error that led here is the one to
    report.
    """
    begun = False
    try:
        try:
            with progress.step("undo"):
                begun = True
                undo()
        except LeaseLost:
            raise
        except Unsuccessful:
            if begun:
                raise
            undo()
    except LeaseLost:
        raise
    except Unsuccessful as error:
        LOG.error("%s could not be undone: %s", what, error)
        if error.outcome in _LATER:
            raise HalfDone from None


class Undo:
    """Surrounds several steps. When an error leaves the block, what was added is called, newest first. HalfDone when
    that does not work now; LeaseLost, be it the error itself, leaves the rest to another service.

    Add before the step itself: an answer can be lost, and the step may have been taken all the same. So what is added
    must look for what there is to undo, and do nothing when there is nothing.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], object]]] = []

    def add(self, what: str, step: Callable[[], object]) -> None:
        """Have this called in case of an error. what: a name for what it removes, in the log."""
        self._steps.append((what, step))

    def __enter__(self) -> Undo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if value is None or isinstance(value, LeaseLost):
            return
        is_left = False
        for what, step in reversed(self._steps):
            try:
                step()
            except LeaseLost:
                raise
            except Unsuccessful as error:
                LOG.error("%s could not be removed after a failure: %s", what, error.code)
                is_left = is_left or error.outcome in _LATER
        if is_left and isinstance(value, Unsuccessful):
            raise HalfDone from value
        # Otherwise the error that led here is the one to report.
