"""Who called what, when, and how it ended: without any value but references, so without a secret."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from .errors import FaultError
from .rules import Arrival, check_pattern

MAX_ENTRIES = 20_000
"""How many calls are kept."""

MAX_TIMEOUT = 600.0
"""Seconds that somebody waits for calls at most."""

DROPPED = "DROPPED"
"""The outcome of what was not executed because a rule closed its connection."""


@dataclass(frozen=True)
class LoggedCall:
    """A call or a data request.

    number: counted from 1 in the order of arrival. name: such as `VM.start` or `import_raw_vdi`.
    is_async: whether it was asked for with `Async.`; then outcome and duration are those of the task's work.
    references: to objects, from its arguments; none to sessions. originator: of its session, or the one that logs in.
    outcome: SUCCESS, the code of its error, an HTTP status that refused it, DROPPED, or empty while it is under way and
        for a task that was cancelled before it began.
    started: in seconds since 1970. duration: in seconds, None while it is under way. rules: the numbers of those that
        hit it.
    """

    number: int
    name: str
    is_async: bool
    references: tuple[str, ...]
    originator: str
    outcome: str
    started: float
    duration: float | None
    rules: tuple[int, ...]


class Entry:
    """A call that may still be under way."""

    def __init__(self, number: int, arrival: Arrival, rules: tuple[int, ...]) -> None:
        # Not the arrival itself: its arguments may be secrets.
        self._call = LoggedCall(
            number=number,
            name=arrival.name,
            is_async=arrival.is_async,
            references=arrival.references,
            originator=arrival.originator,
            outcome="",
            started=time.time(),
            duration=None,
            rules=rules,
        )
        self._begin = time.monotonic()

    @property
    def call(self) -> LoggedCall:
        """What is known of it now."""
        return self._call

    def end(self, outcome: str) -> None:
        """It is over, and this is how it ended."""
        self._call = replace(self._call, outcome=outcome, duration=time.monotonic() - self._begin)


class CallLog:
    """The latest calls, once it is switched on. Every method may be called by any thread."""

    def __init__(self, limit: int = MAX_ENTRIES) -> None:
        self._changed = threading.Condition()
        self._entries: deque[Entry] = deque()
        self._limit = limit
        self._next = 1
        self._lost = 0
        self._is_stopped = False
        self.is_on = False

    def switch(self, on: bool) -> None:
        """Write down what arrives from now on, or nothing more. What was written stays, and nobody waits any longer."""
        with self._changed:
            self.is_on = on
            self._changed.notify_all()

    def begin(self, arrival: Arrival, rules: tuple[int, ...] = ()) -> Entry | None:
        """Write down an arrival, if the log is on."""
        if not self.is_on:
            return None
        with self._changed:
            entry = Entry(self._next, arrival, rules)
            self._next += 1
            self._entries.append(entry)
            if len(self._entries) > self._limit:
                self._lost = self._entries.popleft().call.number
            self._changed.notify_all()
            return entry

    def end(self, entry: Entry | None, outcome: str) -> None:
        """Write down how it ended."""
        if entry is not None:
            with self._changed:
                entry.end(outcome)
                self._changed.notify_all()

    def read(self, since: int = 1) -> list[LoggedCall]:
        """The calls from a number on. FaultError when some of these are no longer kept."""
        with self._changed:
            return [entry.call for entry in self._from(since)]

    def clear(self) -> None:
        """Forget all. Their numbers are not used again."""
        with self._changed:
            self._entries.clear()
            self._lost = 0

    def wait(self, pattern: str, count: int, timeout: float, since: int = 1, ended: bool = False) -> list[LoggedCall]:
        """Wait until `count` calls from a number on match; gives all that do.

        ended: whether they must be over. FaultError when the time is over before, or the log is off or switched off.
        """
        check_pattern(pattern)
        if not 0 <= timeout <= MAX_TIMEOUT:
            raise FaultError(f"timeout: at most {MAX_TIMEOUT:g} seconds")
        if not self.is_on:
            raise FaultError("the call log is off")
        found: list[LoggedCall] = []

        def is_enough() -> bool:
            found[:] = [
                entry.call
                for entry in self._from(since)
                if fnmatchcase(entry.call.name, pattern) and (entry.call.duration is not None or not ended)
            ]
            return len(found) >= count or self._is_stopped or not self.is_on

        with self._changed:
            self._changed.wait_for(is_enough, timeout)
            if len(found) < count:
                raise FaultError(f"{len(found)} calls of {pattern} instead of {count}")
            return found

    def stop(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def _from(self, since: int) -> Iterator[Entry]:
        if since <= self._lost:
            raise FaultError(f"calls up to number {self._lost} are no longer kept; clear the log, or read later ones")
        return (entry for entry in self._entries if entry.call.number >= since)
