"""The agent's log on Windows: a file that is rotated, and the event log for what an administrator should see.

A service has no standard error. Neither log keeps the agent waiting or ends it: what cannot be written is lost.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from typing import Protocol

MAX_FILE = 1024 * 1024
"""Bytes of one file of the log."""

FILES = 4
"""The file that is written to, and the older ones: agent.log, agent.log.1, …"""

MAX_EVENT = 4096
"""Characters of one event. Windows takes 31,839; nobody reads that many."""

_FORMAT = "%(asctime)s %(levelname)s %(message)s"


class EventLog(Protocol):
    """The Windows event log, as one source writes it."""

    def report(self, level: int, text: str) -> None:
        """Add an event. level: logging.WARNING, or logging.ERROR."""


class RotatedFile(logging.Handler):
    """Appends to a file, and begins a new one when it is full.

    While somebody else holds the file open Windows does not let it be renamed; it grows until that is possible.

    path: of the file; its directory exists. size: of each file, in bytes. files: how many there are at most.
    """

    def __init__(self, path: str, size: int = MAX_FILE, files: int = FILES) -> None:
        super().__init__()
        self._path, self._size, self._files = path, size, files

    def emit(self, record: logging.LogRecord) -> None:
        """Whatever goes wrong, there is nobody to be told."""
        with contextlib.suppress(Exception):
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
            if self._written() + len(line) > self._size:
                self._rotate()
            # Opened anew for each line: an administrator may take the file away while the agent runs.
            with open(self._path, "ab", buffering=0) as file:  # noqa: PTH123
                file.write(line)

    def _written(self) -> int:
        try:
            return os.stat(self._path).st_size  # noqa: PTH116
        except FileNotFoundError:
            return 0

    def _rotate(self) -> None:
        aside = f"{self._path}.new"
        # First the one that may be held: otherwise each line would push the older ones on, until all are gone.
        with contextlib.suppress(OSError):
            os.replace(self._path, aside)  # noqa: PTH105
            names = [f"{self._path}.{number}" for number in range(self._files - 1, 0, -1)]
            for newer, older in zip([*names[1:], aside], names):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(newer, older)  # noqa: PTH105


class Events(logging.Handler):
    """Writes warnings and worse into the event log."""

    def __init__(self, events: EventLog) -> None:
        super().__init__(logging.WARNING)
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        """As above."""
        with contextlib.suppress(Exception):
            level = logging.ERROR if record.levelno >= logging.ERROR else logging.WARNING
            # Windows ends a string at its first NUL.
            self._events.report(level, self.format(record).replace("\0", "\\0")[:MAX_EVENT])


def set_up(events: EventLog) -> None:
    """Log warnings to the event log from now on, and so what ends a thread. to_file() adds the file."""
    handler = Events(events)
    handler.setFormatter(logging.Formatter("%(message)s"))
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    logging.raiseExceptions = False
    threading.excepthook = _thread_ended
    # A service has neither; what a library prints goes nowhere, instead of raising an exception there.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115


def to_file(path: str) -> None:
    """Log everything to the file as well; its directory exists, and others cannot write there."""
    handler = RotatedFile(path)
    handler.setFormatter(logging.Formatter(_FORMAT))
    logging.getLogger().addHandler(handler)


def _thread_ended(ended: threading.ExceptHookArgs) -> None:
    name = ended.thread.name if ended.thread else "?"
    # Its text might hold what a request held.
    logging.getLogger(__name__).error("the thread %s ended with %s", name, ended.exc_type.__name__)
