"""Whether the service can do its work now: a few named checks, each with a time limit, and not asked too often."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from agent_protocol.outcomes import Unsuccessful

LOG = logging.getLogger(__name__)

LIMIT = 2.0
"""Seconds that a check has."""

FRESH = 1.0
"""Seconds for which its result is given again."""

Check = Callable[[], str]
"""Says why something does not hold, and nothing when it does. It may raise: of Unsuccessful the words are given then,
and of other errors their kind only."""


class Result(NamedTuple):
    """Whether something holds, and why not."""

    ok: bool
    why: str

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"ok": self.ok, "why": self.why}


class Readiness:
    """Runs the checks, each in a thread of its own, when somebody asks.

    However many ask at once, and however long a check hangs, it runs once at a time, and not again within `fresh`
    seconds after its end. limit: seconds after which a check that hangs counts as failed.
    """

    def __init__(self, checks: Mapping[str, Check], *, limit: float = LIMIT, fresh: float = FRESH) -> None:
        self._checks = {name: _Asked(name, check, fresh) for name, check in checks.items()}
        self._limit = limit

    def report(self) -> dict[str, Result]:
        """The result of each check by its name, after `limit` seconds at the latest."""
        deadline = time.monotonic() + self._limit
        for asked in self._checks.values():
            asked.ask()
        return {name: asked.result(deadline, self._limit) for name, asked in self._checks.items()}


class _Asked:
    """One check and its last result."""

    def __init__(self, name: str, check: Check, fresh: float) -> None:
        self._name = name
        self._check = check
        self._fresh = fresh
        self._changed = threading.Condition()
        self._running = False
        self._last: Result | None = None
        self._ended = 0.0

    def ask(self) -> None:
        """Have it run, unless it does or its result is fresh."""
        with self._changed:
            if self._running or (self._last is not None and time.monotonic() - self._ended < self._fresh):
                return
            self._running = True
        try:
            threading.Thread(target=self._run, name=f"check {self._name}", daemon=True).start()
        except RuntimeError:
            self._end(Result(False, "there is no thread to check it"))

    def result(self, deadline: float, limit: float) -> Result:
        """What it found, waiting for it until `deadline` of the monotonic clock."""
        with self._changed:
            while self._running:
                left = deadline - time.monotonic()
                if left <= 0:
                    return Result(False, f"no answer within {limit:g} s")
                self._changed.wait(left)
            return self._last or Result(False, "not checked")

    def _run(self) -> None:
        try:
            why = self._check()
        except Unsuccessful as error:
            why = f"{error.message} ({error.code})"
        except Exception as error:
            LOG.error("the check %s is wrong: %s", self._name, type(error).__name__, exc_info=error)
            why = f"internal error: {type(error).__name__}"
        self._end(Result(not why, why))

    def _end(self, result: Result) -> None:
        with self._changed:
            if self._last is None or result.ok != self._last.ok:
                LOG.info("%s: %s", self._name, "holds" if result.ok else result.why)
            self._last, self._ended, self._running = result, time.monotonic(), False
            self._changed.notify_all()
