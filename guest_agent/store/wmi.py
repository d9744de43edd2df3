"""XenStore through the WMI classes of XENIFACE, for guests whose driver has no usable device."""

from __future__ import annotations

import collections
import contextlib
import os
import re
import threading
import time
from typing import Callable, TypeVar

from agent_protocol.wire import Operation, check_watch
from agent_protocol.xenstore import StoreClosed, StoreError, StoreTimeout, WatchEvent

from .wmi_connection import MAX_WATCHES, PREFIXES, WmiConnection, WmiError, WmiService, errno_name, gone
from .wmi_thread import Ended, Late, WmiThread
from .xeniface_calls import check_printable, path_call, write_call

T = TypeVar("T")

TIMEOUT = 10.0
"""Seconds that an operation may take. It takes milliseconds, unless WMI has to start its provider."""

OPENING_TIMEOUT = 60.0
"""Seconds until a connection is there. At boot WMI itself may still be starting."""

PROBE = "domid"
"""A node that every guest has and may read, and that does not change."""

PROBE_PAUSE = 1.0
"""Seconds to wait for a probing watch to fire."""

PROBES = 20
"""How often that is tried."""

LISTENING = 60.0
"""Seconds after which whoever waits for events looks whether the connection is still wanted. Closing wakes it up too,
as long as the driver plays along."""

_SESSION_NAME = re.compile(r"xenward-([0-9]{1,10})\Z")


class WmiStore:
    """A connection to XenStore, which is a session of the driver's. It is a store.base.Store.

    service: gives connections and events; each is used by the one thread that asked for it.
    is_running: whether there is a process of this number; the sessions of those that died are ended.
    timeout, opening: seconds that an operation, and opening the connection, may take.

    StoreClosed when the driver's classes are missing, or do not tell of changes. An event says which watch fired, not
    where below; so WatchEvent.path is the path that is watched. Events are everybody's: one may come for a watch of
    another program's on the same path.
    """

    def __init__(
        self,
        service: WmiService,
        is_running: Callable[[int], bool],
        timeout: float = TIMEOUT,
        opening: float = OPENING_TIMEOUT,
    ) -> None:
        self._service = service
        self._is_running = is_running
        self._timeout = timeout
        # The thread's own.
        self._prefix = PREFIXES[0]
        self._session: int | None = None
        self._condition = threading.Condition()
        # All below is guarded by the condition.
        self._closed_because: str | None = None
        self._listening = False
        self._hears = False
        self._tokens: dict[str, dict[str, None]] = {}
        # A watch says "look again", so an event that waits already need not be kept twice.
        self._events: collections.OrderedDict[WatchEvent, None] = collections.OrderedDict()
        self._thread = WmiThread(service.connect)
        try:
            self._thread.do(self._begin, opening)
            self._thread.do(self._listen_and_probe, opening)
        except Late:
            self.close()
            raise StoreClosed(f"WMI did not answer in {opening:g} s") from None
        except WmiError as error:
            self.close()
            raise StoreClosed(gone(error) or f"WMI does not work: {error}") from None
        except BaseException:
            self.close()
            raise

    # Nodes

    def read(self, path: str) -> bytes:
        """The value of a node. StoreError ENOENT when it is missing, EACCES when it may not be read."""
        path_call(Operation.READ, path)

        def work(connection: WmiConnection) -> bytes:
            code = None
            for _ in range(2):
                try:
                    return self._value(connection, path)
                except WmiError as error:
                    code = self._code(connection, error) or self._why(connection, path)
                if code != "EIO":
                    break
                # It came into being meanwhile.
            raise StoreError(Operation.READ, path, code or "EIO")

        return self._do(Operation.READ, path, work)

    def write(self, path: str, value: bytes) -> None:
        """Set a node's value, which is printable ASCII or empty, creating it and its parents.

        StoreError EINVAL for another value, E2BIG when path and value fit no packet; a quota comes as EIO.
        """
        write_call(path, value)
        self._change(Operation.WRITE, "SetValue", path, value=value.decode("ascii"))

    def remove(self, path: str) -> None:
        """Remove a node and everything below it. StoreError ENOENT when even its parent is missing."""
        path_call(Operation.RM, path)
        self._change(Operation.RM, "RemoveValue", path)

    def directory(self, path: str) -> list[str]:
        """The names of a node's children. StoreError ENOENT when the node is missing."""
        path_call(Operation.DIRECTORY, path)

        def work(connection: WmiConnection) -> list[str]:
            try:
                return self._children(connection, path)
            except WmiError as error:
                code = self._code(connection, error)
            if code is None:
                try:
                    self._value(connection, path)
                except WmiError as error:
                    code = self._code(connection, error) or self._why(connection, path)
                else:
                    # A node that is there and has no children cannot be listed.
                    return []
            raise StoreError(Operation.DIRECTORY, path, code)

        return self._do(Operation.DIRECTORY, path, work)

    # Watches

    def watch(self, path: str, token: str) -> None:
        """Ask for an event at each change of `path` or below it; one comes at once.

        StoreError EEXIST when it is doubled, E2BIG when MAX_WATCHES paths are watched already.
        """
        check_printable(Operation.WATCH, path)
        check_watch(path)

        def work(connection: WmiConnection) -> None:
            with self._condition:
                tokens = self._tokens.get(path, {})
                if token in tokens:
                    raise StoreError(Operation.WATCH, path, "EEXIST")
                if tokens:
                    # The driver's watch is there, and will not tell itself again.
                    tokens[token] = None
                    self._queue(path, token)
                    return
                if len(self._tokens) >= MAX_WATCHES:
                    raise StoreError(Operation.WATCH, path, "E2BIG")
                self._tokens[path] = {token: None}
            try:
                self._call(connection, "SetWatch", Pathname=path)
            except WmiError as error:
                with self._condition:
                    del self._tokens[path]
                raise StoreError(Operation.WATCH, path, self._code(connection, error) or "EIO") from None

        self._do(Operation.WATCH, path, work)

    def unwatch(self, path: str, token: str) -> None:
        """End a watch. Events that wait already may still be delivered. StoreError ENOENT when there is none."""
        check_printable(Operation.UNWATCH, path)
        check_watch(path)

        def work(connection: WmiConnection) -> None:
            with self._condition:
                tokens = self._tokens.get(path, {})
                if token not in tokens:
                    raise StoreError(Operation.UNWATCH, path, "ENOENT")
                del tokens[token]
                if tokens:
                    return
                del self._tokens[path]
            try:
                self._call(connection, "RemoveWatch", Pathname=path)
            except WmiError as error:
                raise StoreError(Operation.UNWATCH, path, self._code(connection, error) or "EIO") from None

        self._do(Operation.UNWATCH, path, work)

    def next_event(self, timeout: float | None) -> WatchEvent | None:
        """The oldest waiting event, or None after `timeout` seconds (None: wait for ever, without waking up)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._condition:
            while True:
                self._check_open()
                if self._events:
                    return self._events.popitem(last=False)[0]
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    return None
                self._condition.wait(remaining)

    # Connection

    def close(self) -> None:
        """End the session. Threads that wait on it end with StoreClosed. Closing twice does nothing."""
        self._fail("closed by this process")
        self._thread.end(self._end, self._timeout)

    def _check_open(self) -> None:
        if self._closed_because is not None:
            raise StoreClosed(self._closed_because)

    def _fail(self, reason: str) -> None:
        with self._condition:
            if self._closed_because is None:
                self._closed_because = reason
                self._condition.notify_all()

    def _do(self, operation: Operation, path: str, work: Callable[[WmiConnection], T]) -> T:
        with self._condition:
            self._check_open()
        try:
            return self._thread.do(work, self._timeout)
        except Late:
            raise StoreTimeout(f"{operation.name} {path}: no answer in {self._timeout:g} s") from None
        except Ended:
            raise StoreClosed("closed by this process") from None

    def _change(self, operation: Operation, method: str, path: str, **arguments: str) -> None:
        def work(connection: WmiConnection) -> None:
            try:
                self._call(connection, method, Pathname=path, **arguments)
            except WmiError as error:
                code = self._code(connection, error)
                if code is None:
                    code = self._why(connection, path) if operation == Operation.RM else "EIO"
                raise StoreError(operation, path, code) from None

        self._do(operation, path, work)

    # All below is for the thread that has the connection, except where another one is named.

    def _begin(self, connection: WmiConnection) -> None:
        reasons = []
        for prefix in PREFIXES:
            try:
                self._end_leftovers(connection, prefix)
                self._session = connection.add_session(prefix, f"xenward-{os.getpid()}")
            except WmiError as error:
                reasons.append(f"{prefix}: {error}")
                continue
            self._prefix = prefix
            return
        raise StoreClosed(f"WMI shows no XenStore ({', '.join(reasons)})")

    def _end_leftovers(self, connection: WmiConnection, prefix: str) -> None:
        # A session outlives its process, and its watches count against the guest's quota.
        for number, name in connection.sessions(prefix):
            ours = _SESSION_NAME.match(name)
            if ours is not None and not self._is_running(int(ours[1])):
                with contextlib.suppress(WmiError):
                    connection.call(prefix, number, "EndSession", {})

    def _listen_and_probe(self, connection: WmiConnection) -> None:
        """Begin to listen, and return when events are known to come: WMI does not tell when a query takes effect."""
        self._listening = True
        threading.Thread(target=self._listen, name="xenward-wmi-events", daemon=True).start()
        for _ in range(PROBES):
            self._call(connection, "SetWatch", Pathname=PROBE)
            with self._condition:
                self._condition.wait_for(lambda: self._hears or self._closed_because is not None, PROBE_PAUSE)
                self._check_open()
            self._call(connection, "RemoveWatch", Pathname=PROBE)
            if self._hears:
                return
        raise StoreClosed("WMI tells nothing of watches that fire")

    def _listen(self) -> None:
        """For a thread of its own: queue the events, as long as the connection is wanted."""
        try:
            events = self._service.subscribe(self._prefix)
            try:
                while self._closed_because is None:
                    path = events.next(LISTENING)
                    if path is not None:
                        self._hear(path)
            finally:
                events.close()
        except WmiError as error:
            self._fail(f"WMI tells of no more watches: {error}")
        finally:
            with self._condition:
                self._listening = False
                self._condition.notify_all()

    def _hear(self, path: str) -> None:
        with self._condition:
            self._hears = True
            for token in self._tokens.get(path, ()):
                self._queue(path, token)
            self._condition.notify_all()

    def _queue(self, path: str, token: str) -> None:
        self._events[WatchEvent(path, token)] = None
        self._condition.notify_all()

    def _end(self, connection: WmiConnection) -> None:
        if self._session is None:
            return
        try:
            with self._condition:
                listening = self._listening
            if listening:
                # Its event wakes up the one who listens, who sees then that nobody wants to hear any more.
                self._call(connection, "SetWatch", Pathname=PROBE)
                with self._condition:
                    self._condition.wait_for(lambda: not self._listening, PROBE_PAUSE)
        finally:
            self._call(connection, "EndSession")

    def _call(self, connection: WmiConnection, method: str, **arguments: str) -> dict[str, object]:
        assert self._session is not None
        return dict(connection.call(self._prefix, self._session, method, arguments))

    def _value(self, connection: WmiConnection, path: str) -> bytes:
        value = self._call(connection, "GetValue", Pathname=path).get("value")
        return value.encode("utf-8", "replace") if isinstance(value, str) else b""

    def _children(self, connection: WmiConnection, path: str) -> list[str]:
        nodes = self._call(connection, "GetChildren", Pathname=path).get("children")
        return [str(node).rpartition("/")[2] for node in nodes] if isinstance(nodes, list) else []

    def _code(self, connection: WmiConnection, error: WmiError) -> str | None:
        """The errno's name, None when the error does not tell one. StoreClosed when the session is gone."""
        reason = gone(error)
        if reason is None:
            code = errno_name(error)
            if code is not None:
                return code
            try:
                self._value(connection, PROBE)
            except WmiError:
                reason = f"WMI: the session is gone ({error})"
            else:
                return None
        self._fail(reason)
        raise StoreClosed(reason)

    def _why(self, connection: WmiConnection, path: str) -> str:
        """Why nothing can be done with a node: ENOENT, or EIO for one that is there."""
        parent, _, name = path.rpartition("/")
        if not parent:
            return "ENOENT"
        try:
            names = self._children(connection, parent)
        except WmiError as error:
            # It is missing itself, or it is empty.
            return self._code(connection, error) or "ENOENT"
        return "EIO" if name in names else "ENOENT"


def connect() -> WmiStore:
    """A connection through this guest's WMI. StoreClosed tells why there is none."""
    try:
        from .wmi_session import ComService, process_is_running
    except ImportError as error:
        raise StoreClosed(f"WMI cannot be used here: {error}") from None
    return WmiStore(ComService(), process_is_running)
