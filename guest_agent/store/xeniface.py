"""XenStore through the IOCTLs of XENIFACE, the driver of the Windows guest tools."""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from agent_protocol.wire import Operation
from agent_protocol.xenstore import StoreClosed, StoreError, WatchEvent

from . import xeniface_calls as calls
from .xeniface_calls import Device, DeviceError

MAX_WATCHES = 63
"""Watches at a time: MAXIMUM_WAIT_OBJECTS (64) of WaitForMultipleObjects, less the event that wakes us up."""

_ATTEMPTS = 8
"""How often an answer may grow while its length is asked for."""


@dataclass
class _Watch:
    """A watch that is set, or being set: then the driver has not named it yet."""

    path: str
    token: str
    event: int
    context: int | None = None


class XenifaceStore:
    """A connection to XenStore through an open device, which it owns from now on. It is a store.base.Store.

    Calls have no timeout: the driver waits for XenStore in the kernel, where nobody can call it back. A connection that
    is closed while such a call hangs is released by that call, should it ever return.

    An event of the driver says that a watch fired, not where below; so WatchEvent.path is the path that is watched.
    After a suspend or a migration the driver sets its watches again, and each fires.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        try:
            self._wake = device.new_event()
        except DeviceError as error:
            device.close()
            raise StoreClosed(f"the XENIFACE device is of no use: {error}") from None
        self._condition = threading.Condition()
        # All below is guarded by the condition.
        self._closed_because: str | None = None
        self._closing = False
        self._users = 0
        self._reader_present = False
        self._watches: dict[WatchEvent, _Watch] = {}
        self._retired: list[int] = []
        # A watch says "look again", so an event that waits already need not be kept twice.
        self._events: collections.OrderedDict[WatchEvent, None] = collections.OrderedDict()

    # Nodes

    def read(self, path: str) -> bytes:
        """The value of a node, as far as its first NUL. StoreError ENOENT when it is missing, EACCES when forbidden."""
        data = calls.path_call(Operation.READ, path)
        with self._translated(Operation.READ, path):
            return calls.parse_value(path, self._ask(calls.READ, data))

    def write(self, path: str, value: bytes) -> None:
        """Set a node's value, which is printable ASCII or empty, creating it and its parents.

        StoreError EINVAL for another value, E2BIG when path and value fit no packet; else with the quota's code.
        """
        data = calls.write_call(path, value)
        with self._translated(Operation.WRITE, path), self._used():
            self._device.ioctl(calls.WRITE, data, 0)

    def remove(self, path: str) -> None:
        """Remove a node and everything below it. StoreError ENOENT when even its parent is missing."""
        data = calls.path_call(Operation.RM, path)
        with self._translated(Operation.RM, path), self._used():
            self._device.ioctl(calls.REMOVE, data, 0)

    def directory(self, path: str) -> list[str]:
        """The names of a node's children. StoreError ENOENT when the node is missing.

        More than fit one packet of 4096 bytes the driver cannot list: StoreError EIO.
        """
        data = calls.path_call(Operation.DIRECTORY, path)
        with self._translated(Operation.DIRECTORY, path):
            try:
                return calls.parse_names(path, self._ask(calls.DIRECTORY, data))
            except DeviceError as error:
                # So the driver tells a node that is there and has no children.
                if error.winerror != calls.ERROR_PATH_NOT_FOUND:
                    raise
                return []

    def _ask(self, code: int, data: bytes) -> bytes:
        """An answer of any length. The driver tells the length when nothing is offered, and 87 for too little."""
        size = calls.FIRST_OUTPUT
        for _ in range(_ATTEMPTS):
            with self._used():
                try:
                    return self._device.ioctl(code, data, size)
                except DeviceError as error:
                    # That also stands for a path or a node which the driver does not like.
                    if error.winerror != calls.ERROR_INVALID_PARAMETER:
                        raise
                try:
                    self._device.ioctl(code, data, 0)
                except DeviceError as error:
                    if error.winerror != calls.ERROR_MORE_DATA:
                        raise
                    size = max(size, error.needed)
        raise DeviceError(calls.ERROR_MORE_DATA)

    # Watches

    def watch(self, path: str, token: str) -> None:
        """Ask for an event at each change of `path` or below it; one comes at once.

        StoreError EEXIST when it is doubled, E2BIG when there are MAX_WATCHES already.
        """
        text = calls.watch_text(Operation.WATCH, path)
        key = WatchEvent(path, token)
        with self._translated(Operation.WATCH, path), self._used():
            with self._condition:
                if key in self._watches:
                    raise StoreError(Operation.WATCH, path, "EEXIST")
                if len(self._watches) >= MAX_WATCHES:
                    raise StoreError(Operation.WATCH, path, "E2BIG")
                # It is waited for before the driver can set it.
                watch = self._watches[key] = _Watch(path, token, self._device.new_event())
            try:
                self._device.set_event(self._wake)
                data = calls.add_watch_call(text, watch.event)
                answer = self._device.ioctl(calls.ADD_WATCH, data, calls.WATCH_CONTEXT_SIZE)
                watch.context = calls.parse_context(path, answer)
            except BaseException:
                with self._condition:
                    del self._watches[key]
                    self._retire(watch.event)
                raise

    def unwatch(self, path: str, token: str) -> None:
        """End a watch. Events that wait already may still be delivered. StoreError ENOENT when there is none."""
        calls.watch_text(Operation.UNWATCH, path)
        key = WatchEvent(path, token)
        with self._translated(Operation.UNWATCH, path), self._used():
            with self._condition:
                watch = self._watches.get(key)
                if watch is None or watch.context is None:
                    raise StoreError(Operation.UNWATCH, path, "ENOENT")
                del self._watches[key]
            try:
                self._device.ioctl(calls.REMOVE_WATCH, calls.remove_watch_call(watch.context), 0)
            finally:
                with self._condition:
                    self._retire(watch.event)

    def next_event(self, timeout: float | None) -> WatchEvent | None:
        """The oldest waiting event, or None after `timeout` seconds (None: wait for ever, without waking up)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._used(), self._condition:
            while not self._events:
                self._check_open()
                remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
                if self._reader_present:
                    # Whoever waits first waits for everybody.
                    self._condition.wait(remaining)
                else:
                    self._gather(remaining)
                if remaining == 0 and not self._events:
                    return None
            return self._events.popitem(last=False)[0]

    def _gather(self, timeout: float | None) -> None:
        """With the condition held, which is let go meanwhile: queue the events of the watches that fired."""
        watches = list(self._watches.values())
        events = [self._wake, *(watch.event for watch in watches)]
        self._reader_present = True
        self._condition.release()
        fired: list[int] = []
        error: DeviceError | None = None
        try:
            fired = self._set_ones(events, timeout)
        except DeviceError as failure:
            error = failure
        finally:
            self._condition.acquire()
            self._reader_present = False
            self._condition.notify_all()
        for index in fired:
            if index > 0:
                self._events[WatchEvent(watches[index - 1].path, watches[index - 1].token)] = None
        self._close_retired()
        if error is not None:
            self._fail(f"its events cannot be waited for: {error}")

    def _set_ones(self, events: list[int], timeout: float | None) -> list[int]:
        # A wait tells the first of those that are set; without a look at the others a busy watch would hide them.
        first = self._device.wait(events, timeout)
        found = []
        while first is not None:
            found.append(first)
            rest = events[first + 1 :]
            following = self._device.wait(rest, 0) if rest else None
            first = None if following is None else first + 1 + following
        return found

    # Connection

    def close(self) -> None:
        """Close the connection. Threads that wait on it end with StoreClosed. Closing twice does nothing."""
        with self._condition:
            if self._closing:
                return
            self._closing = True
            self._fail("closed by this process")
            last = self._is_last()
        if last:
            self._release()

    def _check_open(self) -> None:
        if self._closed_because is not None:
            raise StoreClosed(self._closed_because)

    @contextlib.contextmanager
    def _used(self) -> Iterator[None]:
        """While this lasts nobody closes device and handles: they stay until the last one who uses them leaves."""
        with self._condition:
            self._check_open()
            self._users += 1
        try:
            yield
        finally:
            with self._condition:
                self._users -= 1
                last = self._is_last()
            if last:
                self._release()

    def _is_last(self) -> bool:
        """With the condition held: whether it is now, and for the caller, to release everything."""
        # Nobody comes after that: there is no connection any more.
        return self._closing and self._users == 0

    @contextlib.contextmanager
    def _translated(self, operation: Operation, path: str) -> Iterator[None]:
        try:
            yield
        except DeviceError as error:
            if error.winerror in calls.GONE:
                reason = f"XENIFACE: {calls.GONE[error.winerror]} ({error})"
                with self._condition:
                    self._fail(reason)
                raise StoreClosed(reason) from None
            raise StoreError(operation, path, calls.errno_name(error)) from None

    def _fail(self, reason: str) -> None:
        """With the condition held: from now on there is no connection."""
        if self._closed_because is None:
            self._closed_because = reason
            # Who waits for the device then wakes up those who wait for their turn.
            with contextlib.suppress(DeviceError):
                self._device.set_event(self._wake)

    def _retire(self, event: int) -> None:
        """With the condition held: close an event as soon as nobody waits for it."""
        self._retired.append(event)
        if self._reader_present:
            with contextlib.suppress(DeviceError):
                self._device.set_event(self._wake)
        else:
            self._close_retired()

    def _close_retired(self) -> None:
        for event in self._retired:
            with contextlib.suppress(DeviceError):
                self._device.close_event(event)
        self._retired.clear()

    def _release(self) -> None:
        """Give everything back. Called once, when nobody is left who uses anything."""
        for watch in self._watches.values():
            if watch.context is not None:
                with contextlib.suppress(DeviceError):
                    self._device.ioctl(calls.REMOVE_WATCH, calls.remove_watch_call(watch.context), 0)
            self._retired.append(watch.event)
        self._watches.clear()
        self._retired.append(self._wake)
        self._close_retired()
        with contextlib.suppress(DeviceError):
            self._device.close()


def connect() -> XenifaceStore:
    """A connection through this guest's device. StoreClosed tells why there is none."""
    try:
        from .xeniface_device import open_device
    except ImportError as error:
        raise StoreClosed(f"XENIFACE cannot be used here: {error}") from None
    return XenifaceStore(open_device())
