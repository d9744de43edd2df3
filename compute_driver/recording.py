"""Outcomes reach the database even when it is away for a while: nothing that happened is forgotten for that."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from agent_protocol.outcomes import Unsuccessful

from .errors import DatabaseUnavailable

LOG = logging.getLogger(__name__)

PATIENCE = 60.0
"""Seconds that an operation waits for a database that is away, before it gives its caller an answer without it."""

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0

_Answer = TypeVar("_Answer")


class Recorder:
    """Writes again and again what the database does not take. Serves many threads.

    patience: seconds; see PATIENCE.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._stopping = threading.Event()
        self._away: Callable[[], None] = lambda: None
        self._waiting: deque[Callable[[], object]] = deque()

    def when_away(self, told: Callable[[], None]) -> None:
        """Have `told` called whenever the database did not answer."""
        self._away = told

    def insist(self, ask: Callable[[], _Answer]) -> _Answer:
        """What `ask` gives, however often it must be repeated. DatabaseUnavailable when patience is over.

        ask: a question, or a change that may be made twice.
        """
        deadline = time.monotonic() + self._patience
        pause = _FIRST_PAUSE
        while True:
            try:
                return ask()
            except DatabaseUnavailable as error:
                self._away()
                if time.monotonic() + pause > deadline or self._stopping.is_set():
                    raise
                if pause == _FIRST_PAUSE:
                    LOG.warning("%s It is asked again.", error)
            self._stopping.wait(random.uniform(0.5, 1.0) * pause)  # noqa: S311 - no secret hangs on it
            pause = min(2 * pause, _LONGEST_PAUSE)

    def record(self, write: Callable[[], _Answer]) -> _Answer:
        """The same for the end of something. When patience is over, it is kept for catch_up()."""
        try:
            return self.insist(write)
        except DatabaseUnavailable:
            self._waiting.append(write)
            raise

    @property
    def waiting(self) -> int:
        """How many ends of something the database does not know yet."""
        return len(self._waiting)

    def catch_up(self) -> None:
        """Write what was kept, the oldest first. DatabaseUnavailable when the database is still away.

        What it refuses for another reason is forgotten: whoever has the host by now ended it. One thread at a time may
        do this.
        """
        while self._waiting:
            try:
                self._waiting[0]()
            except DatabaseUnavailable:
                raise
            except Unsuccessful as error:
                LOG.warning("the end of an order is not recorded any more: %s", error)
            self._waiting.popleft()

    def stop(self) -> None:
        """Wait for nothing from now on."""
        self._stopping.set()
