"""A fence as a test wants it: it remembers what it is told, and lets or does not let the driver act."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from compute_driver.fencing import LeaseLost

PATIENCE = 30.0
"""Seconds that anything is held at most, and waited for."""


class Held:
    """A thread that the fence has let pass, and that was stopped before it could act."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.released = threading.Event()


class RecordingFence:
    """holds: whether the lease is ours. error: what opened() raises. sessions: those that it was told of, in order."""

    def __init__(self) -> None:
        self.holds = True
        self.error: BaseException | None = None
        self.checks = 0
        self.sessions: list[str] = []
        self.ended: list[str] = []
        self._held: Held | None = None

    def check(self) -> None:
        self.checks += 1
        if not self.holds:
            raise LeaseLost("here")
        held, self._held = self._held, None
        if held is not None:
            held.arrived.set()
            assert held.released.wait(PATIENCE)

    def opened(self, session: str) -> None:
        if self.error is not None:
            raise self.error
        if not self.holds:
            raise LeaseLost("here")
        self.sessions.append(session)

    def closed(self, session: str) -> None:
        self.ended.append(session)

    @contextmanager
    def stopping(self) -> Iterator[Held]:
        """The next one that is let pass is stopped right then, until it is released or the block ends."""
        self._held = held = Held()
        try:
            yield held
        finally:
            self._held = None
            held.released.set()
