"""Rules: which calls are hit, and what happens to them."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from ..values import text
from .errors import FaultError

Action = Literal[
    "delay", "fail", "drop_before", "drop_after", "garble", "hang", "cut", "throttle", "fail_late"
]  # fmt: skip
"""What a rule does.

delay: the call is executed `seconds` later. fail: it is not executed and ends in `error`. drop_before: its connection
is closed and it is not executed. drop_after: it is executed and its connection closed without the answer. garble: it is
executed, and its answer is not what it should be. hang: it is executed when the rule is removed, and not before. cut:
a transfer's connection is closed after `size` bytes. throttle: a transfer moves `size` bytes a second. fail_late: all
of a transfer is taken or sent, and then its task fails with `error`.
"""

Target = Literal["call", "plugin"]
"""Remote calls and HTTP data requests, or functions of dom0's plugins."""

Kind = Literal["call", "data", "plugin"]
"""What arrives: a remote call, an HTTP data request, a call of a plugin's function."""

When = Literal["request", "task"]
"""What of an asynchronous call is hit: the request for its task, or the task's work."""

Garbling = Literal["page", "truncated"]
"""What comes instead of an answer: HTTP 500 with a page, or the first half of the answer."""

MAX_RULES = 1000
MAX_PATTERN = 100
MAX_SECONDS = 24 * 3600.0

_PATTERN = re.compile(r"[A-Za-z0-9_.*?-]+\Z", re.ASCII)
_HITS: dict[Kind, frozenset[str]] = {
    "call": frozenset({"delay", "fail", "drop_before", "drop_after", "garble", "hang"}),
    "data": frozenset({"delay", "fail", "drop_before", "hang", "cut", "throttle", "fail_late"}),
    "plugin": frozenset({"delay", "fail", "hang"}),
}
"""Which actions there are for what arrives. A rule passes over everything else, and does not count it."""

_OF_REQUESTS = frozenset({"drop_before", "drop_after", "garble"})
_TIMED = frozenset({"delay"})
_FAILING = frozenset({"fail", "fail_late"})
_SIZED = frozenset({"cut", "throttle"})


def check_pattern(pattern: str) -> str:
    """The pattern. FaultError when it is none: a name, in which `*` and `?` stand for any characters and any one."""
    if len(pattern) > MAX_PATTERN or not _PATTERN.match(pattern):
        raise FaultError("a pattern is a name with * and ?")
    return pattern


@dataclass(frozen=True)
class Arrival:
    """Something that a rule may hit.

    name: such as `VM.start`, `import_raw_vdi` or, of a plugin, `xenward.exchange`.
    originator: of the session that it came with, if there is one.
    arguments: by name, as they came. references: those among them, but none to a session, which would be a secret.
    """

    kind: Kind
    name: str
    is_async: bool = False
    originator: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)
    references: tuple[str, ...] = ()

    def argument(self, path: str) -> str | None:
        """An argument as text; `args.name_label` is a member of a record. None when there is no such thing."""
        value: Any = self.arguments
        for name in path.split("."):
            if not isinstance(value, Mapping) or name not in value:
                return None
            value = value[name]
        return None if isinstance(value, (Mapping, list)) else text(value)


@dataclass(frozen=True)
class Rule:
    """Which arrivals are hit, and how. FaultError when it would make no sense.

    pattern: the name, exact or with `*` and `?`. One that begins with `Async.` is for asynchronous calls only.
    action: what happens. target: what the pattern names.
    seconds: of a delay. error: code and parameters of a failure. garbling: of garble. size: bytes of cut and throttle.
    nth: only this match is hit, counted from 1. first: only so many are.
    originator: only what came with a session of this originator. arguments: only when these have these values, as text.
    when: of an asynchronous call; by default a delay, a failure and a hang are its task's.
    """

    pattern: str
    action: Action
    target: Target = "call"
    seconds: float = 0.0
    error: tuple[str, ...] = ()
    garbling: Garbling = "page"
    size: int = 0
    nth: int | None = None
    first: int | None = None
    originator: str | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    when: When | None = None

    def __post_init__(self) -> None:
        check_pattern(self.pattern)
        self._check_choices()
        if self.action in _TIMED and not 0 < self.seconds <= MAX_SECONDS:
            raise FaultError(f"seconds: more than 0, at most {MAX_SECONDS:g}")
        if (self.action in _FAILING) != bool(self.error):
            raise FaultError("error: a code and its parameters, for fail and fail_late only")
        if self.size < 0 or (self.action == "throttle" and self.size < 1):
            raise FaultError("size: a number of bytes")
        if self.nth is not None and self.first is not None:
            raise FaultError("either nth or first")
        if min(self.nth or 1, self.first or 1) < 1 or 0 in (self.nth, self.first):
            raise FaultError("nth and first are counted from 1")
        if self.action not in _TIMED and self.seconds != 0:
            raise FaultError("seconds are for delay only")
        if self.action not in _SIZED and self.size != 0:
            raise FaultError("size is for cut and throttle only")

    def _check_choices(self) -> None:
        for name, value, choices in (
            ("action", self.action, get_args(Action)),
            ("target", self.target, get_args(Target)),
            ("garbling", self.garbling, get_args(Garbling)),
            ("when", self.when or "task", get_args(When)),
        ):
            if value not in choices:
                raise FaultError(f"{name}: one of {', '.join(choices)}")
        if self.target == "plugin" and self.action not in _HITS["plugin"]:
            raise FaultError("of a plugin's functions: delay, fail, hang")
        if self.when == "task" and self.action in _OF_REQUESTS:
            raise FaultError("a task has no connection")
        if not math.isfinite(self.seconds):
            raise FaultError("seconds: a finite number")

    @property
    def is_for_task(self) -> bool:
        """Whether it hits the work of an asynchronous call's task."""
        return (self.when or ("request" if self.action in _OF_REQUESTS else "task")) == "task"

    @property
    def kinds(self) -> list[Kind]:
        """What can be hit by it."""
        kinds: list[Kind] = ["plugin"] if self.target == "plugin" else ["call", "data"]
        return [kind for kind in kinds if self.action in _HITS[kind]]

    def names(self, name: str) -> bool:
        """Whether the pattern matches a name."""
        if self.pattern.startswith("Async."):
            return fnmatchcase(f"Async.{name}", self.pattern)
        return fnmatchcase(name, self.pattern)

    def matches(self, arrival: Arrival) -> bool:
        """Whether the arrival is one of those that are counted."""
        return (
            arrival.kind in self.kinds
            and self.names(arrival.name)
            and (arrival.is_async or not self.pattern.startswith("Async."))
            and (self.originator is None or self.originator == arrival.originator)
            and all(arrival.argument(path) == value for path, value in self.arguments.items())
        )

    def is_due(self, count: int) -> bool:
        """Whether the match of that number is hit."""
        return count == self.nth if self.nth is not None else self.first is None or count <= self.first


@dataclass(frozen=True)
class ActiveRule:
    """A rule, its number, and how many arrivals matched it until now, whether they were hit or not."""

    id: int
    matches: int
    rule: Rule


class Hit:
    """A rule that hits something. Whoever waits because of it waits no longer when the rule is removed."""

    def __init__(self, number: int, rule: Rule) -> None:
        self.id = number
        self.rule = rule
        self.count = 0
        self._removed = threading.Event()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait so long, or until the rule is removed; whether it has been."""
        return self._removed.wait(seconds)

    @property
    def is_removed(self) -> bool:
        """Whether the rule holds no longer."""
        return self._removed.is_set()

    def release(self) -> None:
        """Let those who wait go on."""
        self._removed.set()


class Rules:
    """All rules. Every method may be called by any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._rules: dict[int, Hit] = {}
        self._next = 1
        self.is_stopped = False

    def add(self, rule: Rule) -> int:
        """Let a rule hold from now on; gives its number. FaultError when there are too many."""
        with self._guard:
            if len(self._rules) >= MAX_RULES:
                raise FaultError(f"there are {MAX_RULES} rules already")
            number, self._next = self._next, self._next + 1
            self._rules[number] = Hit(number, rule)
            return number

    def remove(self, number: int) -> None:
        """Let it hold no longer; what hangs because of it goes on. FaultError when there is none of that number."""
        with self._guard:
            hit = self._rules.pop(number, None)
        if hit is None:
            raise FaultError(f"there is no rule {number}")
        hit.release()

    def clear(self) -> None:
        """Remove all."""
        with self._guard:
            hits = list(self._rules.values())
            self._rules.clear()
        for hit in hits:
            hit.release()

    def active(self) -> list[ActiveRule]:
        """All, oldest first."""
        with self._guard:
            return [ActiveRule(hit.id, hit.count, hit.rule) for hit in self._rules.values()]

    def stop(self) -> None:
        """The simulator ends: remove all, and let nothing be executed that still waits."""
        self.is_stopped = True
        self.clear()

    @property
    def is_empty(self) -> bool:
        """Whether there is none."""
        return not self._rules

    def match(self, arrival: Arrival) -> list[Hit]:
        """Count an arrival; gives what hits it, oldest rule first."""
        with self._guard:
            found = []
            for hit in self._rules.values():
                if hit.rule.matches(arrival):
                    hit.count += 1
                    if hit.rule.is_due(hit.count):
                        found.append(hit)
            return found
