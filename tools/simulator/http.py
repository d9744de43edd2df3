"""The HTTP front: persistent connections, one request at a time on each, XML-RPC at `/` and `/RPC2`.

What is malformed is answered as xapi does: with an HTTP status and a page, not with an XenAPI error.
"""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Callable

from .xmlrpc import DecodeError

MAX_BODY = 300 * 1024
"""The longest request body, in bytes: xapi's http_limit_max_rpc_size."""

IDLE_TIMEOUT = 600.0
"""Seconds after which a silent connection is closed, so that forgotten clients do not hold threads."""

LINGER = 2.0
"""Seconds for which the rest of a refused request is read and thrown away."""

MAX_LINGER = 8 * 1024 * 1024
"""How much of it, in bytes."""

RPC_PATHS = ("/", "/RPC2")

Answer = Callable[[bytes], bytes]
"""Turns a request body into a response body; DecodeError when the request cannot be read."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "xenward-simulator"
    timeout = IDLE_TIMEOUT
    # Answers are small and the next request waits for them: nothing may linger in the kernel or go out in two parts.
    disable_nagle_algorithm = True
    wbufsize = -1
    server: HttpServer

    def do_POST(self) -> None:
        """A remote call, if path and length are right."""
        if self.path.partition("?")[0] not in RPC_PATHS:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        untrusted_length = self.headers.get("Content-Length", "")
        if not (untrusted_length.isascii() and untrusted_length.isdigit()) or len(untrusted_length) > 9:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        if "Transfer-Encoding" in self.headers or int(untrusted_length) > MAX_BODY:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        untrusted_body = self.rfile.read(int(untrusted_length))
        if len(untrusted_body) < int(untrusted_length):
            self.close_connection = True
            return
        try:
            answer = self.server.answer(untrusted_body)
        except DecodeError:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("content-type", "text/xml")
        self.send_header("content-length", str(len(answer)))
        self.send_header("cache-control", "no-cache, no-store")
        self.send_header("access-control-allow-origin", "*")
        self.end_headers()
        self.wfile.write(answer)

    def do_GET(self) -> None:
        """There are no files to serve, and no handlers but RPC."""
        self._refuse(HTTPStatus.NOT_FOUND)

    do_PUT = do_GET  # noqa: N815 (http.server's naming)
    do_HEAD = do_GET  # noqa: N815

    def _refuse(self, status: HTTPStatus) -> None:
        # The body was not read, so the connection cannot be used any further; send_error says so to the client.
        self.close_connection = True
        self.send_error(status)
        self._linger()

    def _linger(self) -> None:
        # Closing while the client still sends would reset the connection, and the client never see the answer.
        try:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(LINGER)
            deadline, left = time.monotonic() + LINGER, MAX_LINGER
            while left > 0 and time.monotonic() < deadline:
                piece = self.rfile.read1(65536)
                if not piece:
                    return
                left -= len(piece)
        except OSError:
            pass

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are logged where their outcome is known (dispatch.py), without addresses and paths."""


class HttpServer(socketserver.ThreadingTCPServer):
    """Listens on 127.0.0.1 and answers each connection in a thread.

    port: 0 for any that is free.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, port: int, answer: Answer) -> None:
        self.answer = answer
        self._connections: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._stopping = False
        super().__init__(("127.0.0.1", port), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="http", daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def start(self) -> None:
        """Begin to accept connections."""
        self._thread.start()

    def stop(self) -> None:
        """Accept nothing more and cut all connections; calls that run already end by themselves."""
        with self._guard:
            self._stopping = True
            connections = list(self._connections)
        self.shutdown()
        self._thread.join()
        self.server_close()
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection until its end."""
        with self._guard:
            if self._stopping:
                self.shutdown_request(request)
                return
            self._connections.add(request)
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._guard:
                self._connections.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no event."""
