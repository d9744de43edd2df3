"""Taking back what was done on the way to something that failed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType

from agent_protocol.outcomes import Unsuccessful

LOG = logging.getLogger(__name__)


class Undo:
    """Surrounds several steps. When an error leaves the block, what was added is called, newest first.

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
        if value is None:
            return
        for what, step in reversed(self._steps):
            try:
                step()
            except Unsuccessful as error:
                # The error that led here is the one to report.
                LOG.error("%s could not be removed after a failure: %s", what, error.code)
