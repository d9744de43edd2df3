"""What happens on a connection: one request after the other, remote calls by POST, everything else by handlers.

What is malformed is answered as xapi does: with an HTTP status and a page, not with an XenAPI error. Heads, statuses
and headers follow ocaml/libs/http-lib/http_svr.ml and http.ml.
"""

from __future__ import annotations

import http.client
import logging
import socket
import ssl
import time
import traceback
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from .exchange import exchanging
from .rpc import DecodeError, parse_int64

if TYPE_CHECKING:
    from .http import HttpServer, Protocol

LOG = logging.getLogger("xenward.simulator.http")

LINGER = 2.0
"""Seconds for which the rest of a refused request is read and thrown away."""

MAX_LINGER = 8 * 1024 * 1024
"""How much of it, in bytes."""

METHODS = ("GET", "POST", "PUT", "CONNECT", "OPTIONS")
"""What xapi knows of. Everything else is answered with 501, HEAD too."""

_PAGES = {
    400: ("Bad Request", "bad request"),
    401: ("Unauthorised", "unauthorised"),
    403: ("Forbidden", "forbidden"),
    404: ("Not Found", "not found"),
    408: ("Request Timeout", "request timeout"),
    431: ("Request Header Fields Too Large", "request header fields too large"),
    500: ("Internal Error", "internal server error"),
    501: ("Method not implemented", "Method Not Implemented"),
    503: ("Service Unavailable", "service unavailable"),
}
"""By status: xapi's own words in the status line, and in the heading of the page."""


class _RefusedError(Exception):
    """Raised when the request is answered with a page, and the connection closed."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class RequestHandler(BaseHTTPRequestHandler):
    """Serves one connection until its end."""

    protocol_version = "HTTP/1.1"
    # Answers are small and the next request waits for them: nothing may linger in the kernel or go out in two parts.
    disable_nagle_algorithm = True
    wbufsize = -1
    server: HttpServer
    _is_refused = False

    def setup(self) -> None:
        """Prepare the streams; the handshake of TLS comes first, within the time for a head."""
        self.request.settimeout(self.server.limits.head_wait)
        if isinstance(self.request, ssl.SSLSocket):
            self.request.do_handshake()
        super().setup()

    def handle(self) -> None:
        """Serve requests until either side closes the connection."""
        is_first = True
        self.close_connection = False
        while not self.close_connection:
            self.protocol_version = self.request_version = "HTTP/1.1"
            try:
                self._serve_request(is_first)
            except _RefusedError as refused:
                self.send_error(refused.status)
            except EOFError:
                self.close_connection = True
            self.wfile.flush()
            is_first = False
        if self._is_refused:
            self._linger()

    def _serve_request(self, is_first: bool) -> None:
        self._parse_head(self._read_head(is_first))
        self.connection.settimeout(self.server.limits.idle_time)
        try:
            self._route()
        except (_RefusedError, EOFError, OSError):
            raise
        except Exception as error:
            # Neither client nor log learn more than the kind of exception and its place: the text may hold a value.
            frames = "".join(traceback.format_tb(error.__traceback__))
            LOG.error("%s %r failed with %s\n%s", self.command, self._target(), type(error).__name__, frames)
            raise _RefusedError(500) from None

    def _read_head(self, is_first: bool) -> bytes:
        """Everything up to the empty line. EOFError when the client closes, or is silent between two requests."""
        limits = self.server.limits
        head = b""
        deadline = time.monotonic() + limits.head_time
        self.connection.settimeout(limits.head_wait if is_first else limits.idle_time)
        try:
            while not head.endswith(b"\r\n\r\n"):
                piece = self._peek()
                if not head and not is_first:
                    deadline = time.monotonic() + limits.head_time
                # Only up to the end of the head: what follows is the body, or the next request.
                end = (head + piece).find(b"\r\n\r\n")
                used = len(piece) if end < 0 else end + 4 - len(head)
                head += self.rfile.read(used)
                if len(head) > limits.head_size:
                    raise _RefusedError(431)
                self._wait_until(deadline, limits.head_wait)
        except socket.timeout:
            if is_first or head:
                raise _RefusedError(408) from None
            raise EOFError from None
        return head

    def _peek(self) -> bytes:
        piece = self.rfile.peek(1)  # type: ignore[attr-defined]
        if not piece:
            raise EOFError
        return bytes(piece)

    def _wait_until(self, deadline: float, at_most: float) -> None:
        left = min(deadline - time.monotonic(), at_most)
        if left <= 0:
            raise socket.timeout
        self.connection.settimeout(left)

    def _parse_head(self, untrusted_head: bytes) -> None:
        first, *lines = untrusted_head.decode("latin-1").split("\n")
        fields = first.split()
        if len(fields) != 3 or len(fields[2]) < len("HTTP/"):
            raise _RefusedError(500)
        self.command, self.path = fields[:2]
        self.requestline = first.rstrip()
        if fields[2][len("HTTP/") :] == "1.0":
            self.protocol_version = self.request_version = "HTTP/1.0"
        self.close_connection = self.protocol_version == "HTTP/1.0"
        self.headers = http.client.HTTPMessage()
        for name, colon, value in (line.partition(":") for line in lines):
            if not colon:
                continue
            self.headers[name] = value.strip()
            if name.lower() == "connection" and value.strip().lower() in ("close", "keep-alive"):
                self.close_connection = value.strip().lower() == "close"
        self._content_length()

    def _content_length(self) -> int | None:
        untrusted_lengths = self.headers.get_all("Content-Length", [])
        try:
            return parse_int64(untrusted_lengths[-1]) if untrusted_lengths else None
        except DecodeError:
            raise _RefusedError(500) from None

    def _target(self) -> str:
        """The path that is asked for, without the query."""
        try:
            return unquote(urlsplit(self.path).path)
        except ValueError:
            raise _RefusedError(500) from None

    def _route(self) -> None:
        """To what has the longest beginning of the path in common, as xapi does."""
        if self.command not in METHODS:
            raise _RefusedError(501)
        if self.command == "OPTIONS":
            self._answer_options()
            return
        target, handlers, protocols = self._target(), self.server.handlers, self.server.protocols
        paths = [path for method, path in handlers if method == self.command]
        if self.command == "POST":
            paths += protocols
        path = max((path for path in paths if target.startswith(path)), key=len, default=None)
        if path is None:
            # xapi serves files below GET /, and forbids what it knows nothing of.
            raise _RefusedError(404 if self.command == "GET" else 403)
        handler = handlers.get((self.command, path))
        if handler is not None:
            handler(self)
        else:
            self._answer_call(protocols[path])

    def _answer_options(self) -> None:
        """What a browser asks before a request to another site than its own."""
        asked = self.headers.get("Access-Control-Request-Headers")
        self.send_response(200)
        self.send_header("content-length", "0")
        self._send_persistence()
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Allow-Headers", f"{asked}, X-Requested-With" if asked else "X-Requested-With")
        self.send_header("Access-Control-Allow-Methods", "PUT")
        self.end_headers()

    def _answer_call(self, protocol: Protocol) -> None:
        untrusted_body = self._read_body()
        try:
            with exchanging(self.headers.get) as exchange:
                answer = protocol.answer(untrusted_body)
        except DecodeError:
            raise _RefusedError(500) from None
        self.connection.settimeout(self.server.limits.idle_time)
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self._send_persistence()
        self.send_header("content-type", protocol.content_type)
        for name, value in exchange.response.items():
            self.send_header(name, value)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Allow-Headers", "X-Requested-With")
        self.end_headers()
        self.wfile.write(answer)

    def _read_body(self) -> bytes:
        # Nobody is told to continue, whatever `Expect` says: xapi never does.
        limits = self.server.limits
        length = self._content_length()
        if length is None or not 0 <= length <= limits.body_size or "Transfer-Encoding" in self.headers:
            raise _RefusedError(500)
        body = bytearray()
        deadline = time.monotonic() + limits.body_time
        try:
            while len(body) < length:
                self._wait_until(deadline, limits.body_time)
                body += self.rfile.read(min(len(self._peek()), length - len(body)))
        except socket.timeout:
            raise _RefusedError(408) from None
        return bytes(body)

    def _send_persistence(self) -> None:
        self.send_header("connection", "close" if self.close_connection else "keep-alive")
        self.send_header("cache-control", "no-cache, no-store")

    def send_response(self, code: int, message: str | None = None) -> None:
        """The status line alone: xapi tells neither its name nor the date."""
        self.send_response_only(code, message)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """xapi's page for a status; the connection is closed after it.

        message: the words of the status line, by default xapi's own. explain: put into the page as it is.
        """
        words, heading = _PAGES.get(code, (message or "", message or ""))
        page = f"<html><body><h1>HTTP {int(code)} {heading}</h1>{explain or ''}</body></html>".encode(
            "utf-8", "replace"
        )
        self.close_connection = True
        self._is_refused = True
        self.send_response(code, message or words)
        self.send_header("content-length", str(len(page)))
        self.send_header("content-type", "text/html")
        if code == 401:
            # xapi names its handler, which the path tells as well.
            self.send_header("WWW-Authenticate", f'Basic realm="{self._target().strip("/")}"')
        self._send_persistence()
        self.end_headers()
        self.wfile.write(page)

    def _linger(self) -> None:
        # Closing while the client still sends would reset the connection, and the client never see the answer.
        connection = self.connection
        try:
            say_goodbye(connection)
            socket.socket.shutdown(connection, socket.SHUT_WR)
            connection.settimeout(LINGER)
            deadline, left = time.monotonic() + LINGER, MAX_LINGER
            while left > 0 and time.monotonic() < deadline:
                piece = socket.socket.recv(connection, 65536)
                if not piece:
                    return
                left -= len(piece)
        except OSError:
            pass

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are logged where their outcome is known (dispatch.py), without addresses and paths."""


def say_goodbye(connection: socket.socket) -> None:
    """End TLS in order, if there is any, without waiting for the client's own farewell."""
    if isinstance(connection, ssl.SSLSocket):
        try:
            connection.settimeout(0.0)
            connection.unwrap()
        except (OSError, ValueError):
            pass
