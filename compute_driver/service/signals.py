"""Signals that ask the process to end. A handler may interrupt anything, so it takes no lock and waits for nothing."""

from __future__ import annotations

import os
import select
import signal

_MANY = 4096


class StopSignal:
    """Something like a threading.Event, set by SIGTERM and SIGINT from now on. For the main thread, once in a process.

    A handler that set a threading.Event would wait for ever when it interrupts the Event's own wait().
    """

    def __init__(self) -> None:
        self._is_set = False
        self._read, write = os.pipe()
        os.set_blocking(write, False)
        # Python itself writes to it, whatever the threads are doing, green ones too.
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, _number: int, _frame: object) -> None:
        self._is_set = True

    def is_set(self) -> bool:
        """Whether one of them came."""
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until one of them comes, or so many seconds at most; whether one came."""
        if not self._is_set and select.select([self._read], [], [], timeout)[0] and not self._is_set:
            # Another signal, of which the next wait is to know nothing.
            os.read(self._read, _MANY)
        return self._is_set
