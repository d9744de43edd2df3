"""How far a transfer is, as its task tells."""

from __future__ import annotations

from ..tasks import CurrentTask

_STEP = 0.01
"""Smaller steps of `progress` are not worth a change of the database, of which others are told."""


class Progress:
    """The task of a transfer. `result` is what it was for, as an XML-RPC value."""

    def __init__(self, current: CurrentTask) -> None:
        self._current = current
        self.task = current.ref
        self.result = ""
        self._told = 0.0

    def reach(self, fraction: float) -> None:
        """So much of the whole is done: 0 to 1. ApiError TASK_CANCELLED when somebody does not want it any more."""
        self._current.check()
        if fraction - self._told >= _STEP:
            self._told = min(fraction, 1.0)
            self._current.progress(self._told)
