"""The source's connection with the pool that it sends a VM to.

Nobody has told the source which certificate the other pool has, so it takes any, as between real pools.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from .. import errors, tasks
from ..formats.streams import FormatError, Source
from .frames import PATH, Channel

CONNECT_TIMEOUT = 10.0
"""Seconds for a connection, and TLS on it."""

ANSWER_TIMEOUT = 60.0
"""Seconds for each answer."""

_CONTACT_FAILED = "VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED"

_MAX_HEAD = 8192
"""Bytes of the head of an HTTP response."""


class Destination(NamedTuple):
    """What host.migrate_receive has given, as far as it is needed. urls: of the host, and of its pool's coordinator."""

    urls: tuple[str, str]
    session: str


class Unreachable(errors.ApiError):
    """Raise when the other pool does not answer, or does not let us in."""

    def __init__(self) -> None:
        super().__init__(_CONTACT_FAILED)


class Connection:
    """A connection to another pool, open() to close(). Its end tells that pool that nothing more comes."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream = connection.makefile("rb")
        self._source = Source(self._stream.read1)
        self._channel = Channel(self._source, connection.sendall)

    @classmethod
    @contextlib.contextmanager
    def opened(cls, url: str, session: str) -> Iterator[Connection]:
        """One to the pool behind a URL. Unreachable when it does not come about."""
        with _translated(), contextlib.ExitStack() as stack:
            it = cls(stack.enter_context(_connect(url)))
            stack.callback(it._stream.close)
            with it.cancellable():
                it._ask_in(url, session)
            close = stack.pop_all().close
        try:
            yield it
        finally:
            with contextlib.suppress(OSError):
                close()

    @contextlib.contextmanager
    def cancellable(self) -> Iterator[None]:
        """While it is entered, waiting ends when this thread's task is cancelled. ApiError TASK_CANCELLED."""
        with tasks.current().cancellable(self._break):
            tasks.current().check()
            yield

    def ask(self, message: Mapping[str, Any], body: bytes = b"") -> Any:
        """What the other pool answers. ApiError when that is an error, Unreachable when it does not answer."""
        with _translated():
            return self._channel.ask(message, body)

    def _ask_in(self, url: str, session: str) -> None:
        host = urlsplit(url).netloc
        head = f"PUT {PATH}?session_id={quote(session, safe='')} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        self._connection.sendall(head.encode("ascii"))
        head_back = b""
        while not head_back.endswith(b"\r\n\r\n"):
            head_back += self._source.exactly(1)
            if len(head_back) > _MAX_HEAD:
                raise FormatError("no HTTP response")
        if head_back.split(b" ", 2)[1:2] != [b"200"]:
            raise FormatError("the other pool does not let us in")

    def _break(self) -> None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._connection, socket.SHUT_RDWR)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    task = tasks.current()
    try:
        yield
    except (OSError, FormatError, ValueError) as error:
        task.check()
        raise Unreachable from error
    except errors.ApiError as error:
        if error.code == "SESSION_INVALID":
            # The caller would take that for a word about his own.
            raise errors.ApiError(_CONTACT_FAILED) from error
        raise


def _connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    connection = socket.create_connection((str(parts.hostname), port), CONNECT_TIMEOUT)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if parts.scheme == "https":
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            connection = context.wrap_socket(connection)
        connection.settimeout(ANSWER_TIMEOUT)
    except BaseException:
        connection.close()
        raise
    return connection
