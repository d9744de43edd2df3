"""A XENIFACE device in memory: a tree of nodes, the driver's rules and errors, and the events of Windows."""

from __future__ import annotations

import ctypes
import itertools
import struct
import threading
import time
from collections.abc import Sequence
from typing import Callable

from guest_agent.store.xeniface_calls import DeviceError

MAXIMUM_WAIT_OBJECTS = 64
MAX_PATH = 3072
READ, WRITE, DIRECTORY, REMOVE, ADD_WATCH, REMOVE_WATCH = (0x222000 + 4 * n for n in (0, 1, 2, 3, 5, 6))


class Tree:
    """A guest's part of XenStore. Both sides change it; whoever watches is called at each change."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._nodes: dict[str, bytes] = {"domid": b"7"}
        self._watchers: dict[object, tuple[str, Callable[[], None]]] = {}
        self.forbidden: set[str] = set()
        """Nodes that the guest may neither read nor write."""

    def get(self, path: str) -> bytes | None:
        with self._lock:
            return self._nodes.get(path)

    def children(self, path: str) -> list[str]:
        with self._lock:
            start = path + "/"
            return [
                node[len(start) :] for node in self._nodes if node.startswith(start) and "/" not in node[len(start) :]
            ]

    def put(self, path: str, value: bytes) -> None:
        with self._lock:
            parent = path.rpartition("/")[0]
            if parent and parent not in self._nodes:
                self.put(parent, b"")
            self._nodes[path] = value
            self._fire({path})

    def remove(self, path: str) -> bool:
        with self._lock:
            gone = {node for node in self._nodes if node == path or node.startswith(path + "/")}
            for node in gone:
                del self._nodes[node]
            self._fire(gone)
            return bool(gone) or path.rpartition("/")[0] in self._nodes

    def watch(self, name: object, path: str, call: Callable[[], None]) -> None:
        with self._lock:
            self._watchers[name] = (path, call)
            call()

    def unwatch(self, name: object) -> bool:
        with self._lock:
            return self._watchers.pop(name, None) is not None

    @property
    def watches(self) -> int:
        return len(self._watchers)

    def renew_watches(self) -> None:
        """What a driver does after a suspend: all watches are set once more."""
        with self._lock:
            for _, call in list(self._watchers.values()):
                call()

    def _fire(self, changed: set[str]) -> None:
        for path, call in list(self._watchers.values()):
            if any(node == path or node.startswith(path + "/") for node in changed):
                call()


class FakeDevice:
    """One handle on the driver. It refuses what the driver refuses, and the use of anything that is closed.

    tree: the store behind it. sent: the codes of all calls so far. fail: the error that the next calls of a code end
    with. held: codes whose calls hang until `released` is set; `hanging` is set when one does.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.sent: list[int] = []
        self.fail: dict[int, int] = {}
        self.held: set[int] = set()
        self.hanging, self.released = threading.Event(), threading.Event()
        self.waiting = threading.Event()
        self.closed = 0
        self.early_timeouts = 0
        self._numbers = itertools.count(0x7FF0_0000_0004, 4)
        self._condition = threading.Condition()
        self._events: dict[int, list[bool]] = {}
        self._waited: list[int] = []
        self._contexts: set[int] = set()

    # Events

    @property
    def open_events(self) -> int:
        return len(self._events)

    @property
    def watches(self) -> int:
        return len(self._contexts)

    def new_event(self) -> int:
        with self._condition:
            event = next(self._numbers)
            self._events[event] = [False]
            return event

    def set_event(self, event: int) -> None:
        self._set(self._event(event))

    def close_event(self, event: int) -> None:
        with self._condition:
            assert event not in self._waited, "an event is closed while a thread waits for it"
            self._event(event)
            del self._events[event]

    def wait(self, events: Sequence[int], timeout: float | None) -> int | None:
        assert self.closed == 0, "a wait after close"
        if not 0 < len(events) <= MAXIMUM_WAIT_OBJECTS or len(set(events)) < len(events):
            raise DeviceError(87)
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._condition:
            flags = [self._event(event) for event in events]
            self._waited = [*events]
            try:
                while True:
                    for index, flag in enumerate(flags):
                        if flag[0]:
                            flag[0] = False
                            return index
                    if self.early_timeouts:
                        self.early_timeouts -= 1
                        return None
                    remaining = None if deadline is None else deadline - time.monotonic()
                    if remaining is not None and remaining <= 0:
                        return None
                    self.waiting.set()
                    self._condition.wait(remaining)
            finally:
                self._waited = []

    def _event(self, event: int) -> list[bool]:
        if event not in self._events:
            raise DeviceError(6)
        return self._events[event]

    def _set(self, flag: list[bool]) -> None:
        with self._condition:
            flag[0] = True
            self._condition.notify_all()

    # The driver

    def close(self) -> None:
        self.closed += 1
        for context in self._contexts:
            self.tree.unwatch((self, context))

    def ioctl(self, code: int, data: bytes, out_size: int) -> bytes:
        assert self.closed == 0, "a call after close"
        self.sent.append(code)
        if code in self.held:
            self.hanging.set()
            assert self.released.wait(60)
        if code in self.fail:
            raise DeviceError(self.fail[code])
        calls: dict[int, Callable[[bytes, int], bytes]] = {
            READ: self._read,
            WRITE: self._write,
            DIRECTORY: self._directory,
            REMOVE: self._remove,
            ADD_WATCH: self._add_watch,
            REMOVE_WATCH: self._remove_watch,
        }
        if code not in calls:
            raise DeviceError(1)
        return calls[code](data, out_size)

    def _read(self, data: bytes, out_size: int) -> bytes:
        path, _ = self._string(data)
        value = self._present(path)
        return self._answer(value.partition(b"\0")[0] + b"\0", out_size)

    def _write(self, data: bytes, out_size: int) -> bytes:
        self._no_output(data, out_size)
        path, rest = self._string(data)
        value, _ = self._string(rest)
        if path in self.tree.forbidden:
            raise DeviceError(5)
        assert len(path) + 1 + len(value) <= 4096, "the daemon would cut off the guest"
        self.tree.put(path, value.encode())
        return b""

    def _directory(self, data: bytes, out_size: int) -> bytes:
        path, _ = self._string(data)
        self._present(path)
        names = self.tree.children(path)
        if not names:
            raise DeviceError(3)
        return self._answer("".join(name + "\0" for name in names).encode() + b"\0", out_size)

    def _remove(self, data: bytes, out_size: int) -> bytes:
        self._no_output(data, out_size)
        path, _ = self._string(data)
        if path in self.tree.forbidden:
            raise DeviceError(5)
        if not self.tree.remove(path):
            raise DeviceError(2)
        return b""

    def _add_watch(self, data: bytes, out_size: int) -> bytes:
        if len(data) != 24 or out_size != 8:
            raise DeviceError(1784)
        address, length, padding, event = struct.unpack("<QIIQ", data)
        assert padding == 0
        if not 0 < length <= MAX_PATH:
            raise DeviceError(87)
        text = ctypes.string_at(address, length)
        assert text.index(b"\0") == length - 1, "the length of a path counts its NUL"
        flag = self._event(event)
        context = next(self._numbers)
        self._contexts.add(context)
        self.tree.watch((self, context), text[:-1].decode("ascii"), lambda: self._set(flag))
        return struct.pack("<Q", context)

    def _remove_watch(self, data: bytes, out_size: int) -> bytes:
        if len(data) != 8 or out_size:
            raise DeviceError(1784)
        (context,) = struct.unpack("<Q", data)
        if context not in self._contexts:
            raise DeviceError(1168)
        self._contexts.discard(context)
        self.tree.unwatch((self, context))
        return b""

    def _present(self, path: str) -> bytes:
        value = self.tree.get(path)
        if value is None:
            raise DeviceError(2)
        if path in self.tree.forbidden:
            raise DeviceError(5)
        return value

    def _answer(self, output: bytes, out_size: int) -> bytes:
        if out_size == 0:
            raise DeviceError(234, len(output))
        if out_size < len(output):
            raise DeviceError(87)
        return output

    def _no_output(self, data: bytes, out_size: int) -> None:
        if not data or out_size:
            raise DeviceError(1784)

    def _string(self, data: bytes) -> tuple[str, bytes]:
        if not data:
            raise DeviceError(1784)
        text, end, rest = data.partition(b"\0")
        if not end or not all(0x20 <= byte < 0x7F for byte in text):
            raise DeviceError(87)
        return text.decode("ascii"), rest
