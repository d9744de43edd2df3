"""Notices that a client has gone away while its call still waits, so that the waiting can end.

One thread watches all such connections, asleep until the kernel reports one of them.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Callable

_SERVING: ContextVar[socket.socket | None] = ContextVar("_SERVING", default=None)
_GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


@contextlib.contextmanager
def serving(connection: socket.socket) -> Iterator[None]:
    """What this thread does while it is entered, it does for the client at the other end of `connection`."""
    token = _SERVING.set(connection)
    try:
        yield
    finally:
        _SERVING.reset(token)


class Departures:
    """Calls back when clients close their connections. start() once, then stop() once."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._stopper, self._stopped = socket.socketpair()
        self._guard = threading.Lock()
        self._actions: dict[int, Callable[[], None]] = {}
        self._epoll.register(self._stopped, select.EPOLLIN)
        self._thread = threading.Thread(target=self._watch, name="departures", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopper.close()
        self._thread.join()
        with self._guard:
            self._epoll.close()
        self._stopped.close()

    @contextlib.contextmanager
    def calling(self, action: Callable[[], None]) -> Iterator[None]:
        """While it is entered, call `action` when the client goes away that this thread serves, if it serves one."""
        connection = _SERVING.get()
        descriptor = -1 if connection is None else connection.fileno()
        if descriptor < 0:
            yield
            return
        with self._guard:
            self._actions[descriptor] = action
            if not self._epoll.closed:
                # No wish to read: what a client sends meanwhile belongs to its next call.
                self._epoll.register(descriptor, select.EPOLLRDHUP | select.EPOLLONESHOT)
        try:
            yield
        finally:
            with self._guard:
                del self._actions[descriptor]
                if not self._epoll.closed:
                    with contextlib.suppress(OSError):
                        self._epoll.unregister(descriptor)

    def _watch(self) -> None:
        while True:
            for descriptor, _ in self._epoll.poll():
                if descriptor == self._stopped.fileno():
                    return
                with self._guard:
                    action = self._actions.get(descriptor)
                    # Since the kernel spoke, the number may have passed to another connection, which is well.
                    if action is not None and _is_gone(descriptor):
                        action()


def _is_gone(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)
    return bool(poll.poll(0))
