"""The HTTP front: persistent connections, one thread for each, plain or in TLS.

What happens on a connection is in http_request.py. Limits follow ocaml/xapi/xapi_globs.ml.
"""

from __future__ import annotations

import errno
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any, Callable, NamedTuple

from .connections import serving
from .http_request import RequestHandler, say_goodbye

_BIND_TIME = 2.0
"""Seconds to wait for a port. A process that was forked, for a plugin, say, holds a copy of each open socket until it
runs its program, so a port may be taken for a moment although it was closed."""


class Protocol(NamedTuple):
    """A wire format of remote calls.

    answer: turns a request body into a response body; DecodeError when the request cannot be read.
    """

    content_type: str
    answer: Callable[[bytes], bytes]


Handler = Callable[[BaseHTTPRequestHandler], None]
"""Answers one request that is no remote call, by itself: it reads from `rfile` and writes to `wfile`, and sets
`close_connection` when it did not read the whole body. `send_error` sends xapi's page for a status, and closes."""


@dataclass(frozen=True)
class Limits:
    """What one client may take.

    head_size: bytes of a request's head (max_header_length_tcp); beyond it 431.
    head_wait: seconds until the next bytes of a connection's first head (header_read_timeout_tcp); then 408.
    head_time: seconds for a whole head (header_total_timeout_tcp); then 408.
    body_size: bytes of a remote call (http_limit_max_rpc_size); beyond it 500.
    body_time: seconds for the body of a remote call; then 408. xapi waits for ever; here no client holds a thread.
    idle_time: seconds of silence between two requests, and for a client to take an answer; then the connection is
        closed. xapi waits for ever.
    connections: how many are served at once (conn_limit_tcp); more wait to be accepted.
    """

    head_size: int = 1024
    head_wait: float = 10.0
    head_time: float = 60.0
    body_size: int = 300 * 1024
    body_time: float = 60.0
    idle_time: float = 600.0
    connections: int = 800


class HttpServer(socketserver.ThreadingTCPServer):
    """Listens on 127.0.0.1 and answers each connection in a thread.

    port: 0 for any that is free.
    protocols: the wire formats of remote calls, by path; for POST only.
    handlers: for requests that are no remote calls, by method and path. Path means: everything that begins with it,
        unless something else has more in common with the request.
    tls: what HTTPS is served with; None for plain HTTP.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self,
        port: int,
        protocols: Mapping[str, Protocol],
        handlers: Mapping[tuple[str, str], Handler] | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.protocols = protocols
        self.handlers = handlers or {}
        self.limits = limits or Limits()
        self._tls = tls
        self._slots = threading.Semaphore(self.limits.connections)
        self._connections: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._stopping = False
        self._port_guard = threading.Lock()
        self._is_over = False
        super().__init__(("127.0.0.1", port), RequestHandler)
        self._thread = self._acceptor()

    def server_bind(self) -> None:
        """Bind the socket. OSError when the port is taken, and stays so."""
        deadline = time.monotonic() + _BIND_TIME
        while True:
            try:
                super().server_bind()
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.server_address[1]}"

    def start(self) -> None:
        """Begin to accept connections."""
        self._thread.start()

    def stop(self) -> None:
        """Accept nothing more and cut all connections; calls that run already end by themselves."""
        with self._port_guard:
            self._is_over = True
            self._close()

    def close_port(self) -> None:
        """As stop(), until open_port(): meanwhile whoever comes is refused."""
        with self._port_guard:
            if not self._is_over:
                self._close()
                # Bound but not listening, so that nobody else takes the port.
                self.socket = socket.socket(self.address_family, self.socket_type)
                self.server_bind()

    def open_port(self) -> None:
        """Listen again, at the same port; nothing happens after stop()."""
        with self._port_guard:
            if not self._is_over:
                self._stopping = False
                self.server_activate()
                self._thread = self._acceptor()
                self._thread.start()

    def _acceptor(self) -> threading.Thread:
        return threading.Thread(target=self.serve_forever, args=(0.05,), name="http", daemon=True)

    def _close(self) -> None:
        with self._guard:
            was_open, self._stopping = not self._stopping, True
            connections = list(self._connections)
        if was_open:
            self.shutdown()
            self._thread.join()
        self.server_close()
        for connection in connections:
            try:
                # TLS is not ended in order: that would wait for the thread that reads.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
            except OSError:
                pass

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection, once there is room for it. OSError for none yet."""
        if not self._slots.acquire(timeout=0.05):
            raise BlockingIOError
        try:
            connection, address = super().get_request()
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        except BaseException:
            self._slots.release()
            raise
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection in a thread of its own."""
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._slots.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection until its end."""
        try:
            with self._guard:
                if not self._stopping:
                    self._connections.add(request)
            if request in self._connections:
                with serving(request):
                    super().process_request_thread(request, client_address)
            else:
                self.shutdown_request(request)
        finally:
            with self._guard:
                self._connections.discard(request)
            self._slots.release()

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        say_goodbye(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no event."""
