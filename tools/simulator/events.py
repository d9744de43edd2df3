"""Events: clients are told what changed in the pool, and wait for it without asking again and again.

Source: ocaml/xapi/xapi_event.ml. Whoever waits sleeps until a change wakes it that it asked for; what it is then told
comes from the database's change log (changes.py), so however slowly a client reads, nothing piles up for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from . import errors
from .changes import Change
from .connections import Departures
from .database import Database, Operation, Row
from .messages import Messages
from .model import Model
from .rpc import Int32, marshal
from .subscriptions import Subscription, Token

MAX_WAIT = 24 * 3600.0
"""Seconds that event.from waits at most, and for a timeout that is negative."""

BATCHING = 0.05
"""Seconds that event.from takes before it looks, and again after it was woken, so that what happens at once comes in
one batch. It looks at once when it is about tasks only."""

MAX_QUEUE = 10_000_000
"""Bytes of events, in JSON, that are kept for event.next; the oldest are lost beyond."""

SILENT_CLASSES = frozenset({"session", "VTPM"})
"""Classes whose changes cause no events (gen_events in ocaml/idl/datamodel*.ml)."""


class _Waiter:
    """A call that waits for a change of something in `subscription`."""

    def __init__(self, session: str, subscription: Subscription) -> None:
        self.session = session
        self.subscription = subscription
        self.is_session_over = False
        self.is_client_gone = False
        self._changed = threading.Event()

    def wake(self) -> None:
        """There is something to look at."""
        self._changed.set()

    def leave(self) -> None:
        """Nobody waits for the answer any more."""
        self.is_client_gone = True
        self._changed.set()

    def begin_look(self) -> None:
        """What has changed until now is looked at. Call it with the database held.

        ApiError SESSION_INVALID when the session has ended.
        """
        self._changed.clear()
        if self.is_session_over:
            raise errors.session_invalid(self.session)

    def wait(self, timeout: float | None) -> None:
        """Sleep until something has changed."""
        self._changed.wait(timeout)


class _Happened(NamedTuple):
    """An event: an object, and its row unless it is gone. `number` is the generation; messages have none."""

    cls: str
    ref: str
    operation: Operation
    row: Row | None
    number: int


def _generation(change: Change) -> int:
    return change.generation


class _Queued(NamedTuple):
    """An event for event.next: its number, its size in JSON, and itself."""

    number: int
    size: int
    cls: str
    event: dict[str, Any]


class _Reader:
    """A session that has registered for event.next, and the number of the next event that it has not seen."""

    def __init__(self, next_number: int) -> None:
        self.next_number = next_number
        self.subscription = Subscription(())


class Events:
    """Tells clients what changes in a database. Methods may be called by any thread; start() once, then stop() once."""

    def __init__(self, model: Model, database: Database, messages: Messages) -> None:
        self._model = model
        self._database = database
        self._messages = messages
        self._departures = Departures()
        self._names = {cls.lower(): cls for cls, content in model.classes.items() if content.is_stored}
        self._stopping = False
        # All of these are used with the database held only.
        self._waiters: set[_Waiter] = set()
        self._readers: dict[str, _Reader] = {}
        self._queue: deque[_Queued] = deque()
        self._queue_size = 0
        self._next_number = 0
        self._last_lost = -1
        database.observe(self._changed)

    def start(self) -> None:
        """Begin to notice clients that go away."""
        self._departures.start()

    def stop(self) -> None:
        """Let nobody wait any longer."""
        with self._database.exclusively():
            self._stopping = True
            for waiter in self._waiters:
                waiter.leave()
        self._departures.stop()

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        with self._database.exclusively():
            return len(self._waiters)

    # What the database says, with itself held

    def _changed(self, cls: str, ref: str, operation: Operation, row: Row) -> None:
        if cls == "session" and operation == "del":
            self._end_session(ref)
        if cls in SILENT_CLASSES:
            return
        name = cls.lower()
        if any(reader.subscription.matches(name, ref) for reader in self._readers.values()):
            self._enqueue(cls, ref, operation, row)
        for waiter in self._waiters:
            if waiter.subscription.matches(name, ref):
                waiter.wake()

    def _end_session(self, session: str) -> None:
        self._readers.pop(session, None)
        for waiter in self._waiters:
            if waiter.session == session:
                waiter.is_session_over = True
                waiter.wake()

    @contextlib.contextmanager
    def _waiting(self, session: str, subscription: Subscription) -> Iterator[_Waiter]:
        waiter = _Waiter(session, subscription)
        with self._database.exclusively():
            if not self._database.exists("session", session):
                raise errors.session_invalid(session)
            if self._stopping:
                waiter.leave()
            self._waiters.add(waiter)
        try:
            with self._departures.calling(waiter.leave):
                yield waiter
        finally:
            with self._database.exclusively():
                self._waiters.discard(waiter)

    # event.from

    def since(self, session: str, untrusted_classes: list[str], untrusted_token: str, timeout: float) -> dict[str, Any]:
        """What happened to objects of the classes after the token: the answer of event.from, as a tree (rpc.py).

        Waits until there is something, for `timeout` seconds. ApiError EVENT_FROM_TOKEN_PARSE_FAILURE, or
        SESSION_INVALID when the session ends meanwhile.
        """
        token, subscription = Token.parse(untrusted_token), Subscription.parse(untrusted_classes)
        # Not a number is not in the range either.
        deadline = time.monotonic() + (timeout if 0 <= timeout <= MAX_WAIT else MAX_WAIT)
        with self._waiting(session, subscription) as waiter:
            if not subscription.is_about_tasks:
                time.sleep(BATCHING)
            while True:
                with self._database.exclusively():
                    waiter.begin_look()
                    found, answer = self._look(subscription, token)
                remaining = deadline - time.monotonic()
                if found or remaining <= 0 or waiter.is_client_gone:
                    return {"events": [self._tree(*happened) for happened in found], **answer}
                waiter.wait(remaining)
                if time.monotonic() < deadline and not waiter.is_client_gone:
                    time.sleep(BATCHING)

    def _look(self, subscription: Subscription, token: Token) -> tuple[list[_Happened], dict[str, Any]]:
        """The events since a token, and the rest of the answer. Call it with the database held."""
        database = self._database
        found: list[_Happened] = []
        newest_message = 0
        if subscription.concerns("message"):
            newest_message = token.messages
            for message in self._messages.since(token.messages):
                newest_message = max(newest_message, message.generation)
                operation: Operation = "del" if message.row is None else "add"
                found.append(_Happened("message", message.ref, operation, message.row, 0))
        added: list[Change] = []
        modified: list[Change] = []
        deleted: list[Change] = []
        for name, cls in self._names.items():
            if cls in SILENT_CLASSES or not subscription.concerns(name):
                continue
            changes = database.changes(cls, token.database)
            for all_changes, its_changes in zip((added, modified, deleted), changes):
                all_changes += [change for change in its_changes if subscription.matches(name, change.ref)]
        for cls, ref, generation in sorted(added, key=_generation, reverse=True):
            found.append(_Happened(cls, ref, "add", database.snapshot(cls, ref), generation))
        for cls, ref, generation in sorted(modified, key=_generation, reverse=True):
            found.append(_Happened(cls, ref, "mod", database.snapshot(cls, ref), generation))
        for cls, ref, generation in sorted(deleted, key=_generation, reverse=True):
            found.append(_Happened(cls, ref, "del", None, generation))
        return found, {
            "valid_ref_counts": {name: Int32(database.count(cls)) for name, cls in self._names.items()},
            "token": str(Token(database.generation, newest_message)),
        }

    def _tree(self, cls: str, ref: str, operation: Operation, row: Row | None, number: int) -> dict[str, Any]:
        event = {
            "id": str(number),
            "timestamp": "0.0",
            "class": cls.lower(),
            "operation": operation,
            "ref": ref,
        }
        return event if row is None else {**event, "snapshot": marshal(self._model, self._model.record_type(cls), row)}

    # event.register, event.unregister, event.next: the old way, one queue for all

    def register(self, session: str, untrusted_classes: list[str]) -> None:
        """Let event.next tell a session about these classes too, from now on."""
        with self._database.exclusively():
            reader = self._readers.setdefault(session, _Reader(self._next_number))
            added = Subscription.parse(untrusted_classes).interests
            reader.subscription = Subscription((*added, *reader.subscription.interests))

    def unregister(self, session: str, untrusted_classes: list[str]) -> None:
        """Let event.next tell a session about these classes no more. Each is named as it was registered."""
        with self._database.exclusively():
            reader = self._readers.setdefault(session, _Reader(self._next_number))
            removed = Subscription.parse(untrusted_classes).interests
            kept = [interest for interest in reader.subscription.interests if interest not in removed]
            reader.subscription = Subscription(kept)

    def next(self, session: str) -> list[dict[str, Any]]:
        """What happened since the last call, each change by itself. Waits until there is something, however long.

        ApiError SESSION_NOT_REGISTERED, EVENTS_LOST when too much has happened meanwhile, or SESSION_INVALID when the
        session ends.
        """
        with self._database.exclusively():
            if session not in self._readers:
                track = hashlib.md5(session.encode(), usedforsecurity=False).hexdigest()
                raise errors.ApiError("SESSION_NOT_REGISTERED", f"trackid={track}")
            reader = self._readers[session]
        with self._waiting(session, Subscription.parse(["*"])) as waiter:
            while True:
                with self._database.exclusively():
                    waiter.begin_look()
                    first, reader.next_number = reader.next_number, self._next_number
                    if self._last_lost >= first:
                        raise errors.ApiError("EVENTS_LOST")
                    found = [
                        queued.event
                        for queued in self._queue
                        if queued.number >= first and reader.subscription.matches(queued.cls, queued.event["ref"])
                    ]
                if found or waiter.is_client_gone:
                    return found
                waiter.wait(None)

    @property
    def current_id(self) -> int:
        """One more than the number of the latest event that was kept for event.next."""
        with self._database.exclusively():
            return self._next_number

    def _enqueue(self, cls: str, ref: str, operation: Operation, row: Row) -> None:
        event = self._tree(cls, ref, operation, row, self._next_number)
        # OCaml's string_of_float of a whole number.
        event["timestamp"] = f"{math.floor(time.time())}."
        queued = _Queued(self._next_number, len(json.dumps(event)), cls.lower(), event)
        self._next_number += 1
        self._queue.append(queued)
        self._queue_size += queued.size
        while self._queue_size > MAX_QUEUE:
            lost = self._queue.popleft()
            self._queue_size -= lost.size
            self._last_lost = lost.number
