"""What this process is working on, for whoever has to know: reconciliation leaves it alone, a stop waits for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class InFlight:
    """The orders that this process works on, and their rows."""

    def __init__(self) -> None:
        self._orders = 0
        self._rows: set[int] = set()
        self._changed = threading.Condition()

    def __contains__(self, row: object) -> bool:
        return row in self._rows

    def __len__(self) -> int:
        return self._orders

    @contextmanager
    def order(self) -> Iterator[None]:
        """Counts an order while the block runs, from before it is decided whether it is taken."""
        with self._changed:
            self._orders += 1
        try:
            yield
        finally:
            with self._changed:
                self._orders -= 1
                self._changed.notify_all()

    @contextmanager
    def during(self, row: int) -> Iterator[None]:
        """Knows its row while the block runs."""
        self._rows.add(row)
        try:
            yield
        finally:
            self._rows.discard(row)

    def drained(self, timeout: float) -> bool:
        """Wait until there are none. False when that takes more seconds than `timeout`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._orders, timeout)
