"""A XenStore client that speaks the wire protocol itself, over a unix socket or the kernel's xenbus device.

One connection serves several threads: whoever waits first reads for everybody, so there is no thread of our own
and an idle client never wakes up. Every wait takes a timeout. Standard library only, Python 3.6.

    with connect("/var/run/xenstored/socket") as store:
        store.watch("/local/domain/7/data/guest", "replies")
        event = store.next_event(timeout=30.0)
"""

import collections
import errno
import os
import select
import socket
import stat
import struct
import threading
import time
from types import TracebackType
from typing import Callable, Dict, List, NamedTuple, Optional, Type

from . import wire
from .wire import Operation, Packet

DEFAULT_TIMEOUT = 5.0
"""Seconds to wait for the daemon's answer. It answers within a millisecond; only a dead or stuck one does not."""

MAX_EVENTS = 1024
"""Waiting events beyond which one whose token waits already is dropped, whatever its path: nobody can fill our memory
by changing ever new nodes below one that we watch, and whoever gets the token looks again anyhow."""

_CHUNK = 65536

_ASKED_BY_THE_KERNEL = (Operation.WATCH, Operation.UNWATCH)
"""What Linux's xenbus asks for itself, on behalf of who writes to /dev/xen/xenbus."""

_REFUSALS = (errno.E2BIG, errno.EACCES, errno.EEXIST, errno.EINVAL, errno.ENOSPC)
"""Then a daemon's error is that of the write, and the connection goes on (seen with Linux 6.1: E2BIG by xenstored and
EINVAL by oxenstored for one watch too many). On a broken connection none of these comes."""

_MAX_NUMBER = 0xFFFFFFFF
"""Ids of requests and transactions have 32 bits (wire.HEADER)."""


class XenStoreError(Exception):
    """The root of what this module raises, besides wire.WireError for illegal arguments."""


class StoreError(XenStoreError):
    """Raised when the daemon refuses an operation. `code` is its errno name, such as `ENOENT` or `EACCES`."""

    def __init__(self, operation: Operation, path: str, code: str) -> None:
        super().__init__("%s %s: %s" % (operation.name, path, code))
        self.operation = operation
        self.path = path
        self.code = code


class StoreTimeout(XenStoreError):
    """Raised when the daemon did not answer in time. The operation may still take effect."""


class StoreClosed(XenStoreError):
    """Raised when there is no connection (any more): watches are gone and a new client must be made."""


class WatchEvent(NamedTuple):
    """A watched node, or one below it, changed. `path` has the form in which the watch was registered."""

    path: str
    token: str


class Client:
    """A connection to the daemon. Paths are absolute, or relative to the caller's own domain.

    descriptor: an open, connected file descriptor, which the client owns from now on.
    timeout: seconds that each operation may take.
    """

    def __init__(self, descriptor: int, timeout: float = DEFAULT_TIMEOUT) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._timeout = timeout
        self._wake_reader, self._wake_writer = os.pipe()
        self._sending = threading.Lock()
        self._condition = threading.Condition()
        # All below is guarded by the condition.
        self._reader_present = False
        self._closed_because: Optional[str] = None
        self._received = b""
        self._next_request_id = 0
        self._replies: Dict[int, Optional[Packet]] = {}
        # A watch says "look again", so an event that waits already need not be kept twice: the queue stays as
        # short as there are different paths.
        self._events: "collections.OrderedDict[WatchEvent, None]" = collections.OrderedDict()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    # Nodes

    def read(self, path: str) -> bytes:
        """The value of a node. StoreError ENOENT when it is missing, EACCES when it may not be read."""
        return self._ask(Operation.READ, path, wire.strings(wire.check_path(path)))

    def write(self, path: str, value: bytes) -> None:
        """Set a node's value, creating it and its parents. StoreError with the quota's code when it is too large."""
        self._ask(Operation.WRITE, path, wire.strings(wire.check_path(path)) + value)

    def mkdir(self, path: str) -> None:
        """Create an empty node and its parents; nothing happens when it exists."""
        self._ask(Operation.MKDIR, path, wire.strings(wire.check_path(path)))

    def remove(self, path: str) -> None:
        """Remove a node and everything below it. StoreError ENOENT when even its parent is missing."""
        self._ask(Operation.RM, path, wire.strings(wire.check_path(path)))

    def directory(self, path: str) -> List[str]:
        """The names of a node's children, in the daemon's order, however many there are."""
        try:
            payload = self._ask(Operation.DIRECTORY, path, wire.strings(wire.check_path(path)))
        except StoreError as error:
            if error.code != "E2BIG":
                raise
            payload = self._directory_in_parts(path)
        return [name.decode("utf-8", "replace") for name in wire.split_strings(payload)]

    def _directory_in_parts(self, path: str) -> bytes:
        # Each part begins with the node's generation: when that changes, the list must be read again from the
        # start. An empty string ends the last part.
        generation, names = b"", b""
        deadline = time.monotonic() + self._timeout
        while time.monotonic() < deadline:
            payload = self._ask(Operation.DIRECTORY_PART, path, wire.strings(path, str(len(names))))
            current, _, part = payload.partition(b"\0")
            if names and current != generation:
                names = b""
                continue
            generation = current
            if part == b"\0" or part.endswith(b"\0\0"):
                return names + part[:-1]
            if not part:
                raise StoreError(Operation.DIRECTORY_PART, path, "EIO")
            names += part
        raise StoreTimeout("DIRECTORY_PART %s: no complete list in %g s" % (path, self._timeout))

    def get_permissions(self, path: str) -> List[str]:
        """A node's permissions: the owner and everybody's default first, such as `n0`, then `r7` and the like."""
        payload = self._ask(Operation.GET_PERMS, path, wire.strings(wire.check_path(path)))
        return [entry.decode("ascii", "replace") for entry in wire.split_strings(payload)]

    def set_permissions(self, path: str, permissions: List[str]) -> None:
        """Replace a node's permissions; the form is that of get_permissions."""
        self._ask(Operation.SET_PERMS, path, wire.strings(wire.check_path(path), *permissions))

    def transaction(self) -> "Transaction":
        """Start a transaction: what is read and changed through it happens at one moment, or not at all.

        A guest may hold ten at a time; xenward itself uses one only where order alone can't tell the truth.
        """
        number = self._ask(Operation.TRANSACTION_START, "", b"\0").rstrip(b"\0")
        # 0 would mean no transaction: what is written through it would happen at once.
        if not number.isdigit() or not 0 < int(number) <= _MAX_NUMBER:
            raise StoreError(Operation.TRANSACTION_START, "", "EIO")
        return Transaction(self, int(number))

    # Watches

    def watch(self, path: str, token: str) -> None:
        """Ask for an event at each change of `path` or below it; one comes at once. StoreError EEXIST when doubled."""
        self._ask(Operation.WATCH, path, wire.strings(wire.check_watch(path), token))

    def unwatch(self, path: str, token: str) -> None:
        """End a watch. Events that wait already may still be delivered."""
        self._ask(Operation.UNWATCH, path, wire.strings(wire.check_watch(path), token))

    def next_event(self, timeout: Optional[float]) -> Optional[WatchEvent]:
        """The oldest waiting event, or None after `timeout` seconds (None: wait for ever, without waking up)."""
        with self._condition:
            self._wait(lambda: bool(self._events), timeout)
            return self._events.popitem(last=False)[0] if self._events else None

    # Connection

    def close(self) -> None:
        """Close the connection. Threads that wait on it end with StoreClosed. Closing twice does nothing."""
        with self._sending, self._condition:
            if self._descriptor < 0:
                return
            self._fail("closed by this process")
            while self._reader_present:
                self._condition.wait()
            self._condition.notify_all()
            for descriptor in (self._descriptor, self._wake_reader, self._wake_writer):
                os.close(descriptor)
            self._descriptor = -1

    def _ask(self, operation: Operation, path: str, payload: bytes, transaction: int = 0) -> bytes:
        with self._condition:
            request_id = self._new_request_id()
            self._replies[request_id] = None
        try:
            self._send(operation, path, wire.encode(Packet(operation, request_id, transaction, payload)))
            with self._condition:
                self._wait(lambda: self._replies[request_id] is not None, self._timeout)
                reply = self._replies[request_id]
        finally:
            with self._condition:
                del self._replies[request_id]
        if reply is None:
            raise StoreTimeout("%s %s: no answer in %g s" % (operation.name, path, self._timeout))
        if reply.operation == Operation.ERROR:
            raise StoreError(operation, path, reply.payload.rstrip(b"\0").decode("ascii", "replace"))
        if reply.operation != operation:
            self._fail("%s was answered with packet type %d" % (operation.name, reply.operation))
            raise StoreClosed(self._closed_because)
        return reply.payload

    def _new_request_id(self) -> int:
        while True:
            self._next_request_id = (self._next_request_id + 1) & _MAX_NUMBER
            if self._next_request_id not in self._replies:
                return self._next_request_id

    def _send(self, operation: Operation, path: str, data: bytes) -> None:
        deadline = time.monotonic() + self._timeout
        with self._sending:
            while data:
                if self._closed_because:
                    raise StoreClosed(self._closed_because)
                try:
                    data = data[os.write(self._descriptor, data) :]
                except BlockingIOError:
                    if not _poll(self._descriptor, select.POLLOUT, deadline - time.monotonic()):
                        # Half a packet may be on its way: nothing sensible can follow it.
                        self._fail("the daemon does not read")
                except OSError as error:
                    if operation in _ASKED_BY_THE_KERNEL and error.errno in _REFUSALS:
                        raise StoreError(operation, path, errno.errorcode[error.errno]) from None
                    self._fail(_describe(error))

    def _wait(self, ready: Callable[[], bool], timeout: Optional[float]) -> None:
        """With the condition held: return when `ready` or after `timeout`; StoreClosed when it can't become ready."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not ready():
            if self._closed_because:
                raise StoreClosed(self._closed_because)
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                return
            if self._reader_present:
                self._condition.wait(remaining)
                continue
            self._reader_present = True
            self._condition.release()
            try:
                data = self._receive(remaining)
            finally:
                self._condition.acquire()
                self._reader_present = False
                self._condition.notify_all()
            self._dispatch(data)

    def _receive(self, timeout: Optional[float]) -> bytes:
        if not _poll(self._descriptor, select.POLLIN, timeout, self._wake_reader):
            return b""
        try:
            data = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return b""
        except OSError as error:
            self._fail(_describe(error))
            return b""
        if not data:
            self._fail("the daemon closed the connection")
        return data

    def _dispatch(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= wire.HEADER.size:
            try:
                header = wire.decode_header(self._received, wire.MAX_REPLY)
            except wire.WireError as error:
                self._fail(str(error))
                return
            end = wire.HEADER.size + header.length
            if len(self._received) < end:
                return
            payload, self._received = self._received[wire.HEADER.size : end], self._received[end:]
            if header.operation == Operation.WATCH_EVENT:
                parts = [part.decode("utf-8", "replace") for part in wire.split_strings(payload)]
                if len(parts) >= 2:
                    self._queue(WatchEvent(parts[0], parts[1]))
            elif header.request_id in self._replies:
                self._replies[header.request_id] = Packet(*header[:3], payload)
            # Anything else answers a request that timed out: nobody waits for it.

    def _queue(self, event: WatchEvent) -> None:
        if len(self._events) < MAX_EVENTS or all(waiting.token != event.token for waiting in self._events):
            self._events[event] = None

    def _fail(self, reason: str) -> None:
        with self._condition:
            if self._closed_because is None:
                self._closed_because = reason
                # Whoever reads for everybody may have no timeout, and nothing may come any more.
                os.write(self._wake_writer, b"\0")
                self._condition.notify_all()


class Transaction:
    """Operations on one connection that take effect together. End it with `commit` or `abort`."""

    def __init__(self, client: Client, identity: int) -> None:
        self._client = client
        self._identity = identity

    def read(self, path: str) -> bytes:
        """As Client.read."""
        return self._ask(Operation.READ, path)

    def exists(self, path: str) -> bool:
        """Whether the node is there."""
        try:
            self.read(path)
        except StoreError as error:
            if error.code != "ENOENT":
                raise
            return False
        return True

    def write(self, path: str, value: bytes) -> None:
        """As Client.write."""
        self._ask(Operation.WRITE, path, value)

    def remove(self, path: str) -> None:
        """As Client.remove."""
        self._ask(Operation.RM, path)

    def commit(self) -> bool:
        """Make the changes; False when somebody else changed what this transaction saw, so nothing was done."""
        try:
            self._client._ask(Operation.TRANSACTION_END, "", b"T\0", self._identity)
        except StoreError as error:
            if error.code != "EAGAIN":
                raise
            return False
        return True

    def abort(self) -> None:
        """Forget the changes."""
        self._client._ask(Operation.TRANSACTION_END, "", b"F\0", self._identity)

    def _ask(self, operation: Operation, path: str, value: bytes = b"") -> bytes:
        return self._client._ask(operation, path, wire.strings(wire.check_path(path)) + value, self._identity)


def _poll(descriptor: int, events: int, timeout: Optional[float], wake: Optional[int] = None) -> bool:
    """Whether `descriptor` became ready within `timeout` seconds, before anything was written to `wake`."""
    poll = select.poll()
    poll.register(descriptor, events)
    if wake is not None:
        poll.register(wake, select.POLLIN)
    # Rounded up, or the last fraction of a millisecond would be spent spinning.
    ready = poll.poll(None if timeout is None else max(0, int(timeout * 1000) + 1))
    return any(number == descriptor for number, _ in ready)


def _timeval(seconds: float) -> bytes:
    """A struct timeval; 0 would mean for ever."""
    microseconds = max(1, int(seconds * 1000000))
    return struct.pack("@ll", microseconds // 1000000, microseconds % 1000000)


def _describe(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "EIO") + ": " + (error.strerror or "input or output error")


def connect(path: str, timeout: float = DEFAULT_TIMEOUT) -> Client:
    """A client on a unix socket (dom0's daemon) or a character device (a guest's /dev/xen/xenbus).

    timeout: seconds that each operation may take. StoreClosed when nothing answers at `path`.
    """
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                # Both daemons let two clients wait. With settimeout() the third would be told EAGAIN at once; so the
                # kernel itself is asked to wait for its turn.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(timeout))
                connection.connect(path)
                return Client(connection.detach(), timeout)
        return Client(os.open(path, os.O_RDWR), timeout)
    except OSError as error:
        raise StoreClosed("cannot connect to %s: %s" % (path, _describe(error))) from None
