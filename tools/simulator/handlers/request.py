"""A request that is no remote call: who asks, for what, and with which task.

Source: ocaml/xapi/xapi_http.ml. A session's reference, or a name and a password, must come with every request; a task
may come with it, which then tells how it went, and else one is made.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import logging
import socket
import time
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Callable

from .. import errors
from ..calls.session import login_with_password
from ..faults.call_log import DROPPED
from ..faults.errors import Dropped
from ..formats.streams import FormatError, Source
from ..http import Handler
from ..machine import Host
from ..state import Context, State
from ..tasks import CurrentTask
from ..values import now
from .progress import Progress

LOG = logging.getLogger("xenward.simulator.http")

ORIGINATOR = "xapi"
"""Who a session belongs to that is made for one request."""


class Refused(Exception):
    """The request is answered with this status, and nothing else."""

    def __init__(self, status: int, location: str | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.location = location


class Request:
    """A request to a handler, and the answer to it.

    host: the one that was asked. parameters: of the query, and the cookies that the query does not name. session: of
    who asks, once that is checked.
    """

    def __init__(self, state: State, host: Host, name: str, http: BaseHTTPRequestHandler) -> None:
        self.state = state
        self.host = host
        self.http = http
        self.answered = False
        self.session = ""
        query = urllib.parse.urlsplit(http.path).query
        pairs = urllib.parse.parse_qsl(query, keep_blank_values=True)
        self.parameters = {**_cookies(http.headers.get("Cookie", "")), **dict(pairs)}
        # `chunked` and its like may stand there without a value.
        self.flags = {flag for flag, _ in pairs}
        session = self.parameters.get("session_id", "")
        self.transfer = state.conditions.transfer(name, session, self.parameters, http)

    @property
    def content_length(self) -> int | None:
        """How many bytes the client announced."""
        untrusted_length = self.http.headers.get("Content-Length")
        if untrusted_length is None:
            return None
        if not (untrusted_length.isascii() and untrusted_length.isdigit()) or len(untrusted_length) > 18:
            raise Refused(500)
        return int(untrusted_length)

    def body(self) -> Source:
        """What the client sends."""
        return Source(self.transfer.reading(self.http.rfile.read1), self.content_length)

    def find(self, cls: str, *names: str) -> str | None:
        """The object that one of the parameters names by reference or by uuid; None when none is there.

        ApiError UUID_INVALID when there is no such object.
        """
        database = self.state.database
        for name in names:
            if name in self.parameters:
                value = self.parameters[name]
                return value if database.exists(cls, value) else database.by_uuid(cls, value)
        return None

    def answer(self, headers: dict[str, str], status: int = 200, message: str = "OK") -> None:
        """Send the head of the answer; what is written afterwards is its body, which ends with the connection."""
        self.answered = True
        self.http.close_connection = True
        self.http.send_response(status, message)
        for name, value in {**headers, "connection": "close", "cache-control": "no-cache, no-store"}.items():
            self.http.send_header(name, value)
        self.http.end_headers()
        self.http.wfile.flush()

    def write(self, data: bytes) -> None:
        """Send a part of the answer's body. OSError when the client has gone."""
        self.transfer.write(data)

    def redirect(self, host: str) -> Refused:
        """The same on another host. A real one always says https; here that is only where HTTPS is served."""
        address = self.state.database.get("host", host, "address")
        return Refused(302, f"{'https' if self.state.settings.tls else 'http'}://{address}{self.http.path}")

    @contextlib.contextmanager
    def task(self, label: str) -> Iterator[Progress]:
        """The task that the client named, or a new one. It ends when this does, and as this does.

        ApiError HANDLE_INVALID when there is no such task, VDI_IO_ERROR when what the client sends is not right,
        CLIENT_ERROR when it has gone, TASK_CANCELLED.
        """
        tasks, database = self.state.tasks, self.state.database
        ref = self.parameters.get("task_id")
        if ref is None:
            ref = tasks.create(self.session, label)
        operations = database.get("task", ref, "current_operations")
        with tasks.performing(ref) as current:
            progress = Progress(current)
            try:
                with current.cancellable(self._wake):
                    if "cancel" in operations.values():
                        current.cancel()
                    with _translated(current):
                        yield progress
                    self.transfer.end_well()
            except errors.ApiError as error:
                tasks.fail(ref, error)
                raise
            except BaseException:
                tasks.fail(ref, errors.internal_error("Stdlib.Exit"))
                raise
            tasks.succeed(ref, progress.result)

    def _wake(self) -> None:
        # Whoever waits for bytes from the client finds that none come any more.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.http.connection, socket.SHUT_RD)


@contextlib.contextmanager
def _translated(current: CurrentTask) -> Iterator[None]:
    """Errors of the transfer as those of the API; a cancelled one was cancelled, whatever it says itself."""
    try:
        yield
    except FormatError as error:
        current.check()
        LOG.info("what was sent is not right: %s", error)
        raise errors.ApiError("VDI_IO_ERROR", "Device I/O errors") from error
    except OSError as error:
        current.check()
        raise errors.ApiError("CLIENT_ERROR", type(error).__name__) from error


def _cookies(text: str) -> dict[str, str]:
    """Both `;` and `&` separate them."""
    cookies = {}
    for cookie in text.replace("&", ";").split(";"):
        name, equals, value = cookie.strip().partition("=")
        if equals:
            cookies[name] = urllib.parse.unquote(value)
    return cookies


@contextlib.contextmanager
def _session(request: Request) -> Iterator[None]:
    """The client's session, or one for this request only. Refused when neither name nor reference are right."""
    database = request.state.database
    session = request.parameters.get("session_id")
    scheme, _, untrusted_credentials = request.http.headers.get("Authorization", "").partition(" ")
    if session is not None:
        try:
            database.set("session", session, last_active=now())
        except errors.ApiError:
            raise Refused(401) from None
        request.session = session
        yield
        return
    if not scheme:
        raise Refused(401)
    if scheme.lower() != "basic":
        raise Refused(500)
    try:
        decoded = base64.b64decode(untrusted_credentials.strip(), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        raise Refused(401) from None
    username, _, password = decoded.partition(":")
    try:
        context = Context(request.state, "", request.host)
        request.session = login_with_password(context, username, password, "1.1", ORIGINATOR)
    except errors.ApiError:
        raise Refused(401) from None
    try:
        yield
    finally:
        with contextlib.suppress(errors.ApiError):
            database.destroy("session", request.session)


def answering(state: State, host: Host, name: str, realm: str, function: Callable[[Request], None]) -> Handler:
    """A handler that lets `function` answer requests of those who may ask. name: of rules, and in the call log."""

    def handle(http: BaseHTTPRequestHandler) -> None:
        started = time.monotonic()
        request = Request(state, host, name, http)
        outcome = "SUCCESS"
        http.close_connection = True
        try:
            with _session(request):
                _begin(request)
                function(request)
        except Refused as refused:
            outcome = str(refused.status)
            _refuse(request, refused)
        except errors.ApiError as error:
            outcome = error.code
            if not request.answered:
                http.send_error(500)
        except OSError as error:
            # The client has gone, which is its right; a task has noted it.
            outcome = type(error).__name__
        except Dropped:
            outcome = DROPPED
        except BaseException:
            outcome = "INTERNAL_ERROR"
            raise
        finally:
            request.transfer.end(outcome)
            LOG.info("%s %.1f ms %s", realm, 1000 * (time.monotonic() - started), outcome)

    return handle


def _begin(request: Request) -> None:
    try:
        request.transfer.begin()
    except errors.ApiError as error:
        fail_task(request, error)
        raise


def _refuse(request: Request, refused: Refused) -> None:
    if refused.location is not None:
        request.answer({"location": refused.location, "content-length": "0"}, 302, "Found")
    else:
        request.http.send_error(refused.status)


def fail_task(request: Request, error: errors.ApiError) -> None:
    """Note in the client's task, if it named one, why the request is refused."""
    if "task_id" in request.parameters:
        request.state.tasks.fail(request.parameters["task_id"], error)
