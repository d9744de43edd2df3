"""WMI in memory: the driver's classes over a tree, with sessions, watches, and errors that tell as little as its own.

Objects belong to the thread that made them, as in COM: another one that uses them is found out.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Mapping
from typing import Callable

from guest_agent.store.wmi_connection import WmiError

from .fake_device import Tree

FAILED, NOT_FOUND, ACCESS_DENIED, INVALID_CLASS = 0x80041001, 0x80041002, 0x80041003, 0x80041010


class _Session:
    def __init__(self, name: str) -> None:
        self.name = name
        self.watches: list[tuple[str, object]] = []


class FakeWmi:
    """One guest's WMI.

    prefix: how the names of the classes begin. deaf: how many watches fire before the first subscription takes
    effect. fail: the error that the next calls of a method end with. held: methods whose calls hang until `released`
    is set; `hanging` is set when one does. unspecific: the error that stands for all those the driver cannot tell.
    """

    def __init__(self, tree: Tree, prefix: str = "Citrix") -> None:
        self.tree = tree
        self.prefix = prefix
        self.deaf = 0
        self.unspecific = FAILED
        self.fail: dict[str, int] = {}
        self.held: set[str] = set()
        self.hanging, self.released = threading.Event(), threading.Event()
        self.connections = 0
        self.misused: list[str] = []
        self.threads: set[str] = set()
        self.called: list[str] = []
        self._lock = threading.RLock()
        self._numbers = itertools.count(3)
        self._sessions: dict[int, _Session] = {}
        self._subscribers: list[FakeEvents] = []

    @property
    def session_names(self) -> list[str]:
        return [session.name for session in self._sessions.values()]

    @property
    def subscriptions(self) -> int:
        return len(self._subscribers)

    def leave(self, name: str, *watched: str) -> None:
        """Leave a session behind, with watches, as a process does that is killed."""
        number = self._add(name)
        for path in watched:
            self.set_watch(number, path)

    def lose_sessions(self) -> None:
        """The driver was started anew."""
        for number in [*self._sessions]:
            self.end(number)

    def break_events(self, hresult: int) -> None:
        for subscriber in self._subscribers:
            subscriber.queue.put(hresult)

    # WmiService

    def connect(self) -> FakeConnection:
        self._trip("connect")
        self.connections += 1
        return FakeConnection(self)

    def subscribe(self, prefix: str) -> FakeEvents:
        self._trip("subscribe")
        if prefix != self.prefix:
            raise WmiError(INVALID_CLASS)
        events = FakeEvents(self)
        with self._lock:
            self._subscribers.append(events)
        return events

    # The driver

    def _trip(self, method: str) -> None:
        self.called.append(method)
        self.threads.add(threading.current_thread().name)
        if method in self.held:
            self.hanging.set()
            assert self.released.wait(60)
        if method in self.fail:
            raise WmiError(self.fail[method])

    def _add(self, name: str) -> int:
        with self._lock:
            number = next(self._numbers)
            self._sessions[number] = _Session(name)
            return number

    def set_watch(self, number: int, path: str) -> None:
        with self._lock:
            watch = object()
            self._sessions[number].watches.append((path, watch))
        self.tree.watch(watch, path, lambda: self._fire(path))

    def remove_watch(self, number: int, path: str) -> None:
        with self._lock:
            watches = self._sessions[number].watches
            entry = next((entry for entry in watches if entry[0] == path), None)
            if entry is None:
                return
            watches.remove(entry)
        self.tree.unwatch(entry[1])

    def end(self, number: int) -> None:
        with self._lock:
            watches = self._sessions.pop(number).watches
        for _, watch in watches:
            self.tree.unwatch(watch)

    def _fire(self, path: str) -> None:
        # Events belong to no session: every subscriber gets those of all watches.
        with self._lock:
            if self._subscribers and self.deaf:
                self.deaf -= 1
                return
            for subscriber in self._subscribers:
                subscriber.queue.put(path)


class _Owned:
    """An object that one thread may use, until it is closed."""

    def __init__(self, wmi: FakeWmi) -> None:
        self._wmi = wmi
        self._owner = threading.get_ident()
        self._closed = False

    def _use(self, what: str) -> None:
        if threading.get_ident() != self._owner or self._closed:
            self._wmi.misused.append(what)


class FakeConnection(_Owned):
    """A wmi_connection.WmiConnection."""

    def add_session(self, prefix: str, name: str) -> int:
        self._use("add_session")
        self._wmi._trip("AddSession")
        self._check(prefix)
        return self._wmi._add(name)

    def sessions(self, prefix: str) -> list[tuple[int, str]]:
        self._use("sessions")
        self._wmi._trip("sessions")
        self._check(prefix)
        return [(number, session.name) for number, session in self._wmi._sessions.items()]

    def call(self, prefix: str, session: int, method: str, arguments: Mapping[str, str]) -> Mapping[str, object]:
        self._use(method)
        self._wmi._trip(method)
        self._check(prefix)
        if session not in self._wmi._sessions:
            raise WmiError(NOT_FOUND)
        methods: dict[str, Callable[..., Mapping[str, object] | None]] = {
            "GetValue": self._get_value,
            "SetValue": self._set_value,
            "GetChildren": self._get_children,
            "RemoveValue": self._remove_value,
            "SetWatch": lambda Pathname: self._wmi.set_watch(session, Pathname),
            "RemoveWatch": lambda Pathname: self._wmi.remove_watch(session, Pathname),
            "EndSession": lambda: self._wmi.end(session),
        }
        return methods[method](**arguments) or {}

    def close(self) -> None:
        self._use("close")
        self._closed = True
        self._wmi.connections -= 1

    def _check(self, prefix: str) -> None:
        if prefix != self._wmi.prefix:
            raise WmiError(INVALID_CLASS)

    def _present(self, path: str) -> bytes:
        value = self._wmi.tree.get(path)
        if value is None:
            raise WmiError(self._wmi.unspecific)
        if path in self._wmi.tree.forbidden:
            raise WmiError(ACCESS_DENIED)
        return value

    def _get_value(self, Pathname: str) -> Mapping[str, object]:
        return {"value": self._present(Pathname).decode("utf-8", "replace")}

    def _set_value(self, Pathname: str, value: str) -> None:
        if Pathname in self._wmi.tree.forbidden:
            raise WmiError(ACCESS_DENIED)
        self._wmi.tree.put(Pathname, value.encode())

    def _get_children(self, Pathname: str) -> Mapping[str, object]:
        self._present(Pathname)
        names = self._wmi.tree.children(Pathname)
        if not names:
            raise WmiError(self._wmi.unspecific)
        return {"children": [f"{Pathname}/{name}" for name in names]}

    def _remove_value(self, Pathname: str) -> None:
        if not self._wmi.tree.remove(Pathname):
            raise WmiError(self._wmi.unspecific)


class FakeEvents(_Owned):
    """A wmi_connection.WmiEvents."""

    def __init__(self, wmi: FakeWmi) -> None:
        super().__init__(wmi)
        self.queue: queue.SimpleQueue[str | int] = queue.SimpleQueue()

    def next(self, timeout: float) -> str | None:
        self._use("next")
        try:
            event = self.queue.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(event, int):
            raise WmiError(event)
        return event

    def close(self) -> None:
        self._use("close events")
        self._closed = True
        self._wmi._subscribers.remove(self)
