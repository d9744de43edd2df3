"""Operations on one object take turns, and whoever waits for his can be cancelled."""

from __future__ import annotations

import threading

from . import tasks


class Turn:
    """Held by one operation at a time; not by the same thread twice. Used as a lock is."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._is_taken = False

    def acquire(self, blocking: bool = True) -> bool:
        """Take it; whether that was possible. Waits, if it may, until it is free.

        ApiError TASK_CANCELLED when this thread's task is cancelled meanwhile.
        """
        if self._take():
            return True
        if not blocking:
            return False
        task = tasks.current()
        with task.cancellable(self._wake), self._condition:
            while not self._take():
                task.check()
                self._condition.wait()
        return True

    def release(self) -> None:
        """Let the next one have it."""
        with self._condition:
            self._is_taken = False
            self._condition.notify_all()

    def _take(self) -> bool:
        with self._condition:
            was_free = not self._is_taken
            self._is_taken = True
        return was_free

    def _wake(self) -> None:
        with self._condition:
            self._condition.notify_all()

    def __enter__(self) -> Turn:
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()
