"""XenServer's stream of events, followed by one thread for the whole process: what there is, told as it changes.

The thread waits in event.from, on a session of its own, and keeps a cache (cache.py). What is read here comes from it
as long as the stream lives, and from calls while it does not: nothing is read from a cache that is known to be stale.
After anything that might have lost an event the thread begins anew and lists everything.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from agent_protocol.outcomes import Outcome, Unsuccessful

from ...errors import ObjectGone, XenServerUnreachable
from . import cache
from .batches import CLASSES, Batch, Event, MalformedBatch, Row, freeze_record, parse_token
from .cache import Change, Found, View
from .sdk_session import NotSent, Session

if TYPE_CHECKING:
    from .session import XenServer

LOG = logging.getLogger(__name__)

WAIT = 30.0
"""Seconds that XenServer waits for something to tell before it answers that nothing happened."""

MARGIN = 15.0
"""Seconds that its answer may take beyond that. A host that fell silent is noticed after both."""

LIST_TIMEOUT = 120.0
"""Seconds for the first answer, which tells of every object."""

POLL = 2.0
"""Seconds between two calls that ask for an object which somebody waits for while the stream is down."""

_FIRST_POLL = 0.1
_LOOK = 0.25
"""Seconds after which a waiting thread asks its own caller whether to go on."""

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 5.0


class _Subscriber(NamedTuple):
    """Who is told. changed: of each change; listed: that all was listed anew, and what there is."""

    changed: Callable[[Change], None]
    listed: Callable[[View], None]


class Events:
    """What XenServer tells. Methods may be called by any thread; start() once, then stop() once."""

    def __init__(self, server: XenServer) -> None:
        self._server = server
        # Held for the exchange of what it guards only; never while XenServer is asked.
        self._changed = threading.Condition()
        self._view = cache.EMPTY
        self._live_until = 0.0
        self._seen = 0.0
        self._session: Session | None = None
        self._kept: set[str] = set()
        self._gone: set[str] = set()
        self._unsure: set[str] = set()
        self._subscribers: list[_Subscriber] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="xenserver-events", daemon=True)

    def start(self) -> None:
        """Begin to follow. It does not wait for anything."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and its session."""
        self._stopping.set()
        with self._changed:
            session = self._session
        if session is not None:
            session.hang_up()
        self._thread.join(WAIT)

    # How good it is

    @property
    def is_live(self) -> bool:
        """Whether what is read comes from the stream."""
        with self._changed:
            return self._is_live()

    @property
    def age(self) -> float:
        """Seconds that what is read may be behind: since XenServer last told something, at most WAIT and MARGIN.

        While the stream lives, changes arrive a tenth of a second after they happen; but that it lives is certain only
        when the next answer is there. 0.0 while everything is read by calls.
        """
        with self._changed:
            return time.monotonic() - self._seen if self._is_live() else 0.0

    def _is_live(self) -> bool:
        session = self._session
        return (
            session is not None
            and time.monotonic() < self._live_until
            and session.url == self._server.members.coordinator
        )

    def usable(self, max_age: float | None = None) -> View | None:
        """What is read now; None while everything is read by calls. max_age: as of records()."""
        with self._changed:
            is_fresh = max_age is None or time.monotonic() - self._seen <= max_age
            return self._view if self._is_live() and is_fresh else None

    @property
    def latest(self) -> View:
        """What was told last, be it long ago."""
        with self._changed:
            return self._view

    def barrier(self, timeout: float = 10.0) -> None:
        """Return when all that happened before now will be read. XenServerUnreachable when that takes too long."""
        view = self.usable()
        if view is None:
            # What is read is asked for at that moment.
            return
        deadline = time.monotonic() + timeout
        pool = next(iter(view.records("pool")), "OpaqueRef:NULL")
        untrusted_token = self._server.call("event.inject", "pool", pool, timeout=timeout)
        try:
            generation = parse_token(untrusted_token)
        except MalformedBatch:
            raise self._unreadable() from None
        with self._changed:
            self._changed.wait_for(
                lambda: not self._is_live() or self._view.generation > generation,
                max(0.0, deadline - time.monotonic()),
            )
            if self._is_live() and self._view.generation <= generation:
                raise XenServerUnreachable(self._server.connection.address, "its events are late")

    # Reading

    def records(self, cls: str, max_age: float | None = None) -> Mapping[str, Row]:
        """All objects of one of CLASSES (of tasks only those that are kept), by reference.

        max_age: seconds; ask XenServer when what is known may be older. Errors as of XenServer.call().
        """
        view = self.usable(max_age)
        if view is not None:
            return view.records(cls)
        untrusted_records = self._server.call(f"{cls}.get_all_records")
        if not isinstance(untrusted_records, dict):
            raise self._unreadable()
        return {str(ref): self._frozen(record) for ref, record in untrusted_records.items()}

    def record(self, cls: str, ref: str, max_age: float | None = None) -> Row:
        """One object. ObjectGone when there is none."""
        view = self.usable(max_age)
        row = view.record(cls, ref) if view is not None else None
        # It may have been made a moment ago.
        return self._ask(cls, ref) if row is None else row

    def by_uuid(self, cls: str, uuid: str, max_age: float | None = None) -> Found:
        """One object by its uuid. ObjectGone when there is none."""
        view = self.usable(max_age)
        found = view.by_uuid(cls, uuid) if view is not None else None
        if found is not None:
            return found
        ref = str(self._server.call(f"{cls}.get_by_uuid", uuid))
        return Found(ref, self._ask(cls, ref))

    def vm_of(self, instance_uuid: str, max_age: float | None = None) -> Found | None:
        """The VM that is an instance, by VM.other_config or else by its name; never a snapshot or a template."""
        view = self.usable(max_age)
        found = view.vm_of(instance_uuid) if view is not None else None
        if found is not None:
            return found
        claimants = {}
        for ref in self._server.call("VM.get_by_name_label", f"{cache.NAME_PREFIX}{instance_uuid}"):
            with suppress(ObjectGone):
                claimants[str(ref)] = self._ask("VM", ref)
        if view is None and not claimants:
            claimants = dict(self.records("VM", max_age))
        return cache.best(
            instance_uuid, ((ref, row) for ref, row in claimants.items() if instance_uuid in cache.instances_of(row))
        )

    def _ask(self, cls: str, ref: str, timeout: float | None = None) -> Row:
        return self._frozen(self._server.call(f"{cls}.get_record", ref, timeout=timeout))

    def _frozen(self, untrusted_record: Any) -> Row:
        try:
            return freeze_record(untrusted_record)
        except MalformedBatch:
            raise self._unreadable() from None

    def _unreadable(self) -> XenServerUnreachable:
        return XenServerUnreachable(self._server.connection.address, "its answer cannot be read")

    # Waiting

    def await_change(self, predicate: Callable[[View], bool], timeout: float) -> bool:
        """Wait until the predicate holds for what the stream tells; whether it did within `timeout` seconds.

        It is asked again after each change, and must be quick and ask nobody. While the stream is down it is not asked.
        """
        with self._changed:
            return self._changed.wait_for(lambda: self._is_live() and predicate(self._view), timeout)

    def wait_for(
        self,
        cls: str,
        ref: str,
        predicate: Callable[[Row], bool],
        timeout: float,
        interrupted: Callable[[], bool] | None = None,
    ) -> Row | None:
        """Wait until the predicate holds for an object: its record then, None after `timeout` seconds.

        While the stream is down the object is asked for now and then. interrupted: asked several times a second
        whether to return None at once. ObjectGone when there is no such object (any more); other errors, as of
        XenServer.call(), only when XenServer could not be asked at the end of that time either, or refuses to answer.
        """
        deadline = time.monotonic() + timeout
        due, interval = 0.0, _FIRST_POLL
        error: Unsuccessful | None = None
        while True:
            view = self.usable()
            row = view.record(cls, ref) if view is not None else None
            if row is None and view is not None and ref in self._gone:
                raise ObjectGone(["HANDLE_INVALID", cls, ref])
            # What is kept is told: it is asked for once, for the time before.
            is_told = view is not None and ref in self._kept - self._unsure and due > 0 and error is None
            if row is None and not is_told and time.monotonic() >= due:
                self._unsure.discard(ref)
                try:
                    row, error = self._ask(cls, ref, max(1.0, min(MARGIN, deadline - time.monotonic()))), None
                except Unsuccessful as problem:
                    if problem.outcome not in (Outcome.UNREACHABLE, Outcome.BUSY):
                        raise
                    error = problem
                due, interval = time.monotonic() + interval, min(POLL, 2 * interval)
            if row is not None and predicate(row):
                return row
            remaining = deadline - time.monotonic()
            if interrupted is not None and interrupted():
                return None
            if remaining <= 0:
                if error is not None:
                    raise error
                return None
            self.await_other(view, min(remaining, _LOOK if view is None or interrupted is not None else POLL))

    def await_other(self, view: View | None, timeout: float) -> None:
        """Wait until what is read comes from another view than that one of usable(), at most `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: (self._view if self._is_live() else None) is not view, timeout)

    def keep(self, ref: str) -> None:
        """Remember this task from its next change on. Tasks of other clients are not remembered."""
        with self._changed:
            self._kept.add(ref)

    def let_go(self, ref: str) -> None:
        """Remember it no longer."""
        with self._changed:
            self._kept.discard(ref)
            self._gone.discard(ref)
            self._view, _ = cache.changed(self._view, [Event("task", ref, None)], self._view.generation)

    def subscribe(
        self, changed: Callable[[Change], None], listed: Callable[[View], None] = lambda _: None
    ) -> Callable[[], None]:
        """Have every change told, in the stream's thread, after it can be read; gives what ends that.

        listed: told at the beginning and after each interruption, when the differences have been told: what was read
        by calls meanwhile may be no difference. Both must be quick; what they raise is logged.
        """
        subscriber = _Subscriber(changed, listed)
        with self._changed:
            self._subscribers.append(subscriber)

        def unsubscribe() -> None:
            with self._changed, suppress(ValueError):
                self._subscribers.remove(subscriber)

        return unsubscribe

    # The thread

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            began = self._seen
            why = "it ended"
            try:
                self._follow()
            except MalformedBatch as error:
                why = f"XenServer told {error.args[0]}"
            except NotSent as error:
                why = str(error.error)
            except Unsuccessful as error:
                why = str(error)
            except Exception as error:
                # Whatever a host sends: the thread goes on. Only the kind is told, as the text may hold anything.
                why = type(error).__name__
            was_live = self._seen != began
            with self._changed:
                self._live_until = 0.0
                self._session = None
                self._changed.notify_all()
            if self._stopping.is_set():
                return
            if was_live:
                LOG.warning("XenServer's events stopped: %s", why)
                pause = _FIRST_PAUSE
            else:
                LOG.debug("XenServer's events cannot be followed: %s", why)
            self._stopping.wait(pause)
            pause = min(_LONGEST_PAUSE, 2 * pause)

    def _follow(self) -> None:
        """Follow the stream on one session until something is wrong with it."""
        session = self._server.open_session()
        try:
            with self._changed:
                self._session = session
            token = ""
            while not self._stopping.is_set() and session.url == self._server.members.coordinator:
                deadline = time.monotonic() + (WAIT + MARGIN if token else LIST_TIMEOUT)
                batch = Batch.parse(session.call("event.from", (list(CLASSES), token, WAIT), deadline))
                self._take(batch, is_listing=not token)
                token = batch.token
        finally:
            session.logout()

    def _take(self, batch: Batch, *, is_listing: bool) -> None:
        with self._changed:
            events = [event for event in batch.events if self._is_wanted(event)]
            apply = cache.replaced if is_listing else cache.changed
            view, changes = apply(self._view, events, batch.generation)
            listed = {event.ref for event in events if event.cls == "task" and event.row is not None}
            self._gone -= listed
            if is_listing:
                # Gone, or made after the list was: whoever waits for one has to ask.
                self._unsure = self._kept - listed
            self._gone |= {event.ref for event in events if event.row is None and event.ref in self._kept}
            self._view = view
            # Deletions that were forgotten before we asked show in the numbers only.
            miscounted = [
                cls for cls in CLASSES if batch.counts.get(cls, 0) != len(view.records(cls)) and cls != "task"
            ]
            if not miscounted:
                self._seen = time.monotonic()
                self._live_until = self._seen + WAIT + MARGIN
            self._changed.notify_all()
            subscribers = list(self._subscribers)
        for subscriber in subscribers:
            for change in changes:
                _tell(subscriber.changed, change)
            if is_listing and not miscounted:
                _tell(subscriber.listed, view)
        if miscounted:
            raise MalformedBatch(f"more or fewer objects than there are: {', '.join(miscounted)}")

    def _is_wanted(self, event: Event) -> bool:
        return event.cls != "task" or event.row is None or event.ref in self._kept


def _tell(callback: Callable[[Any], None], news: Change | View) -> None:
    try:
        callback(news)
    except Exception as error:
        LOG.error("a subscriber to XenServer's events failed with %s", type(error).__name__)
