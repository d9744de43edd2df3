"""A XenServer that speaks XML-RPC over HTTP/1.1 and misbehaves as a test asks."""

from __future__ import annotations

import collections
import socket
import threading
import xmlrpc.client
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Union

from compute_driver.xenapi.connection.session import Connection, XenServer

DEADLINE = 10.0
"""Seconds after which a test that waits has failed."""

PASSWORD = "hunter2 & <Secret>"
"""What the server accepts. The characters are those that XML and logs treat specially."""


@dataclass(frozen=True)
class Failure:
    """Answer with this XenAPI error description."""

    details: tuple[str, ...]


@dataclass(frozen=True)
class Raw:
    """Answer with these bytes as the HTTP body, under this status line."""

    body: bytes
    status: str = "200 OK"


@dataclass(frozen=True)
class Drop:
    """Close the connection without an answer, after the whole call was read."""


@dataclass(frozen=True)
class ThenClose:
    """Answer, and close the connection although it was to be kept."""

    value: Any


@dataclass(frozen=True)
class Drip:
    """Answer a byte every now and then, for as long as the client stays."""


@dataclass(frozen=True)
class Late:
    """Answer when this event is set, or at the end of the test."""

    event: threading.Event
    value: Any = ""


Behaviour = Union[Failure, Raw, Drop, ThenClose, Drip, Late, Callable[..., Any], str]
"""What becomes of one call. A function is called with the call's arguments for the value; text is the value."""


class BadServer:
    """Listens while it is entered. `calls`: method and arguments of all that arrived, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.closed = threading.Event()
        """Set when the server closed a connection by itself."""
        self._behaviours: dict[str, collections.deque[Behaviour]] = collections.defaultdict(collections.deque)
        self._guard = threading.Lock()
        self._logins = 0
        self._ending = threading.Event()
        self._connections: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._listen, daemon=True)]

    def behave(self, method: str, *behaviours: Behaviour) -> None:
        """The next calls of this method go like this, each one once; all others succeed."""
        self._behaviours[method].extend(behaviours)

    def seen(self, method: str) -> int:
        """How often a method was called."""
        return [call[0] for call in self.calls].count(method)

    def __enter__(self) -> BadServer:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(DEADLINE)

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as incoming:
                while self._answer_one(connection, incoming):
                    pass
        except OSError:
            pass

    def _answer_one(self, connection: socket.socket, incoming: Any) -> bool:
        length = 0
        while True:
            line = incoming.readline()
            if not line:
                return False
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
            if line == b"\r\n":
                break
        body = incoming.read(length)
        if len(body) < length:
            return False
        arguments, method = xmlrpc.client.loads(body)
        behaviour = self._next(str(method), arguments)
        if isinstance(behaviour, Drop):
            connection.shutdown(socket.SHUT_RDWR)
            self.closed.set()
            return False
        if isinstance(behaviour, Drip):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 100000\r\n\r\n")
            while not self._ending.wait(0.02):
                connection.sendall(b" ")
            return False
        if isinstance(behaviour, Late):
            while not behaviour.event.wait(0.01) and not self._ending.is_set():
                pass
            behaviour = behaviour.value
        if isinstance(behaviour, Raw):
            connection.sendall(_response(behaviour.body, behaviour.status))
        elif isinstance(behaviour, Failure):
            connection.sendall(_response(_xml({"Status": "Failure", "ErrorDescription": list(behaviour.details)})))
        elif isinstance(behaviour, ThenClose):
            connection.sendall(_response(_xml({"Status": "Success", "Value": behaviour.value})))
            connection.shutdown(socket.SHUT_RDWR)
            self.closed.set()
            return False
        else:
            value = behaviour(*arguments) if callable(behaviour) else behaviour
            connection.sendall(_response(_xml({"Status": "Success", "Value": value})))
        return True

    def _next(self, method: str, arguments: tuple[Any, ...]) -> Behaviour:
        with self._guard:
            self.calls.append((method, *arguments))
            if self._behaviours[method]:
                return self._behaviours[method].popleft()
            if method == "session.login_with_password":
                if arguments[1] != PASSWORD:
                    return Failure(("SESSION_AUTHENTICATION_FAILED", str(arguments[0]), "Authentication failure"))
                self._logins += 1
                return f"OpaqueRef:session-{self._logins}"
            return f"answer to {method}"


def _xml(value: dict[str, Any]) -> bytes:
    return xmlrpc.client.dumps((value,), methodresponse=True).encode("utf-8")


def _response(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n%s" % (
        status.encode("ascii"),
        len(body),
        body,
    )


def client(server: BadServer, **changes: Any) -> XenServer:
    """XenServer as our code calls it, with these changes to the connection."""
    return XenServer(Connection(**{"url": server.url, "username": "root", "password": PASSWORD, **changes}))
