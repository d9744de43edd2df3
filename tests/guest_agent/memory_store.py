"""A store in memory, for agents in interpreters that know no sockets. Both sides use it: the guest's and the host's."""

from __future__ import annotations

import threading
import time

from agent_protocol.wire import Operation
from agent_protocol.xenstore import StoreClosed, StoreError, WatchEvent


class MemoryStore:
    """One guest's part of a store, as guest_agent.store.Store has it. Removing what is not there is no error."""

    def __init__(self) -> None:
        self._nodes: dict[str, bytes] = {}
        self._watches: list[tuple[str, str]] = []
        self._events: list[WatchEvent] = []
        self._changed = threading.Condition()
        self._closed = False

    def read(self, path: str) -> bytes:
        with self._changed:
            self._check()
            if path not in self._nodes:
                raise StoreError(Operation.READ, path, "ENOENT")
            return self._nodes[path]

    def write(self, path: str, value: bytes) -> None:
        with self._changed:
            self._check()
            self._nodes[path] = value
            self._fire(path)

    def remove(self, path: str) -> None:
        with self._changed:
            self._check()
            for node in [node for node in self._nodes if (node + "/").startswith(path + "/")]:
                del self._nodes[node]
            self._fire(path)

    def directory(self, path: str) -> list[str]:
        with self._changed:
            self._check()
            names = {node[len(path) + 1 :].partition("/")[0] for node in self._nodes if node.startswith(path + "/")}
            if not names and path not in self._nodes:
                raise StoreError(Operation.DIRECTORY, path, "ENOENT")
            return sorted(names)

    def watch(self, path: str, token: str) -> None:
        with self._changed:
            self._check()
            self._watches.append((path, token))
            self._events.append(WatchEvent(path, token))
            self._changed.notify_all()

    def unwatch(self, path: str, token: str) -> None:
        with self._changed:
            self._check()
            self._watches.remove((path, token))

    def next_event(self, timeout: float | None) -> WatchEvent | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._events:
                self._check()
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    return None
                self._changed.wait(remaining)
            return self._events.pop(0)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait_for(self, path: str, seconds: float = 20.0) -> bytes:
        """The host's side: the node's value, once it is there."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while path not in self._nodes:
                remaining = deadline - time.monotonic()
                assert remaining > 0, f"waited in vain for {path}"
                self._changed.wait(remaining)
            return self._nodes[path]

    def _check(self) -> None:
        if self._closed:
            raise StoreClosed("closed by this process")

    def _fire(self, changed: str) -> None:
        for path, token in self._watches:
            if changed.startswith(path + "/") or (path + "/").startswith(changed + "/"):
                self._events.append(WatchEvent(path, token))
        self._changed.notify_all()
