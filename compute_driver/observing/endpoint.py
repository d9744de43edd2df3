"""A small HTTP server for those who watch the service: /metrics, /healthz and /readyz, for GET and HEAD.

It shows no secrets, asks for none, and is for a loopback address. It holds few connections at once: when they are all
taken by clients that do not get on, the oldest of those goes, so that nobody can keep others out by being slow.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from agent_protocol.outcomes import Refused

from . import metrics
from .http_request import BadRequest, read_request, response
from .logs import redacted
from .readiness import Readiness

LOG = logging.getLogger(__name__)

MAX_CONNECTIONS = 8
"""Connections that are served at once, each by a thread."""

SECONDS = 5.0
"""How long a client may take to send its request, and again to take the answer."""

_LINGER = 1.0
"""Seconds for which what a client still sends is read away after the answer: to close the connection on it would have
the answer thrown away at the client's (RFC 9112, 9.6)."""

_MAX_LINGER = 65536
"""Bytes of that."""

_BACKLOG = 32

_Answer = tuple[HTTPStatus, str, bytes]


class Endpoint:
    """The server. address: to listen at, IPv4 or IPv6; port: 0 for any that is free.

    exposition: gives the metrics. seconds: see SECONDS.
    """

    def __init__(
        self,
        address: str,
        port: int,
        exposition: Callable[[], bytes],
        readiness: Readiness,
        *,
        seconds: float = SECONDS,
    ) -> None:
        self._wanted = address, port
        self._exposition = exposition
        self._readiness = readiness
        self._seconds = seconds
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._waiting: dict[socket.socket, None] = {}
        """Connections that wait for their client, oldest first."""
        self._open: set[socket.socket] = set()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, once it was started."""
        assert self._listener is not None
        host, port, *_ = self._listener.getsockname()
        return host, port

    def start(self) -> None:
        """Listen and serve from now on. Refused (`endpoint_address`) when the address cannot be had."""
        family = socket.AF_INET6 if ":" in self._wanted[0] else socket.AF_INET
        try:
            self._listener = socket.create_server(self._wanted, family=family, backlog=_BACKLOG)
        except OSError as error:
            where = "[{}]:{}" if family is socket.AF_INET6 else "{}:{}"
            raise Refused(
                "endpoint_address", f"cannot listen at {where.format(*self._wanted)}: {error.strerror}"
            ) from None
        self._acceptor = threading.Thread(target=self._accept, name="endpoint", daemon=True)
        self._acceptor.start()
        LOG.info("health and metrics are at %s port %d", *self.address)

    def stop(self) -> None:
        """Listen no more, and end the connections that there are. Nothing happens when it does not run."""
        self._stopping.set()
        if self._listener is None or self._acceptor is None:
            return
        # To close it alone would not wake who waits for connections.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        with self._lock:
            for connection in self._open:
                _hang_up(connection)
        self._acceptor.join(self._seconds)
        self._listener.close()
        self._listener = self._acceptor = None

    def _accept(self) -> None:
        listener = self._listener
        while listener is not None and not self._stopping.is_set():
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if self._stopping.is_set():
                    return
                # Such as that there are no file descriptors left. Not at once again, or it would do nothing else.
                LOG.warning("no connection can be taken: %s", error.strerror)
                time.sleep(1.0)
                continue
            self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        while not self._places.acquire(blocking=False):
            self._make_room()
            if self._places.acquire(timeout=0.1):
                break
            if self._stopping.is_set():
                connection.close()
                return
        with self._lock:
            self._open.add(connection)
            self._waiting[connection] = None
        try:
            threading.Thread(target=self._serve, args=[connection], name="endpoint client", daemon=True).start()
        except RuntimeError as error:
            LOG.warning("a client cannot be served: %s", error)
            self._end(connection)

    def _make_room(self) -> None:
        with self._lock:
            oldest = next(iter(self._waiting), None)
            if oldest is not None:
                del self._waiting[oldest]
                _hang_up(oldest)

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answer = self._answer(connection)
            if answer is not None:
                self._await_client(connection, True)
                connection.settimeout(self._seconds)
                connection.sendall(answer)
                _linger(connection)
        except OSError as error:
            LOG.debug("a client was lost: %s", error.strerror or type(error).__name__)
        except Exception as error:
            LOG.error("a client was not served: %s", type(error).__name__, exc_info=error)
        finally:
            self._end(connection)

    def _answer(self, connection: socket.socket) -> bytes | None:
        try:
            request = read_request(connection, time.monotonic() + self._seconds)
        except BadRequest as error:
            return response(error.status, "text/plain", b"")
        self._await_client(connection, False)
        if request is None:
            return None
        if request.method not in ("GET", "HEAD"):
            return response(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"")
        try:
            status, content_type, body = self._resource(request.path)
        except Exception as error:
            LOG.error("%s cannot be told: %s", request.path, type(error).__name__, exc_info=error)
            status, content_type, body = HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", b""
        return response(status, content_type, body, with_body=request.method == "GET")

    def _resource(self, path: str) -> _Answer:
        if path == "/healthz":
            return HTTPStatus.OK, "text/plain", b"ok\n"
        if path == "/readyz":
            return self._ready()
        if path == "/metrics":
            return HTTPStatus.OK, metrics.CONTENT_TYPE, self._exposition()
        return HTTPStatus.NOT_FOUND, "text/plain", b""

    def _ready(self) -> _Answer:
        report = self._readiness.report()
        ready = all(result.ok for result in report.values())
        checks = {name: {"ok": result.ok, "why": redacted(result.why)} for name, result in report.items()}
        body = json.dumps({"ready": ready, "checks": checks}).encode() + b"\n"
        return HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE, "application/json", body

    def _await_client(self, connection: socket.socket, waits: bool) -> None:
        """Notes whether the client is waited for, so that its connection may be ended for another one's sake."""
        with self._lock:
            if waits:
                self._waiting[connection] = None
            else:
                self._waiting.pop(connection, None)

    def _end(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)
            self._waiting.pop(connection, None)
            # Within the lock: a descriptor that is closed may be another connection's a moment later.
            connection.close()
        self._places.release()


def from_configuration(conf: Any, exposition: Callable[[], bytes], readiness: Readiness) -> Endpoint | None:
    """The endpoint that `[endpoint]` of the configuration describes, None when it wants none."""
    settings = conf.endpoint
    return None if settings.port < 0 else Endpoint(settings.address, settings.port, exposition, readiness)


def _hang_up(connection: socket.socket) -> None:
    # Whoever waits for this connection is woken by it.
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _linger(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)
    deadline, size = time.monotonic() + _LINGER, 0
    while size < _MAX_LINGER and (left := deadline - time.monotonic()) > 0:
        connection.settimeout(left)
        try:
            piece = connection.recv(4096)
        except socket.timeout:
            return
        if not piece:
            return
        size += len(piece)
