"""XML-RPC over one HTTP connection: each call is sent once, and its answer waited for until a moment and no longer."""

from __future__ import annotations

import http.client
import io
import os
import select
import socket
import time
import xmlrpc.client
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import SplitResult
from xml.parsers.expat import ExpatError

import XenAPI

from .tls import Trust

USER_AGENT = "xenward"
"""XenServer counts and limits clients by it."""

CONNECT_TIMEOUT = 10.0
"""Seconds until a connection is made; a host that takes longer is not waited for while others could be asked."""

THUMBPRINT_REQUEST = ("x-xenapi-request-host-certificate-thumbprint", "sha-256:master")
"""Lets a host that does not coordinate tell the certificate of the one that does (xapi_globs.ml)."""

THUMBPRINT_RESPONSE = "x-xenapi-response-host-certificate-thumbprint"

LOST = (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError, xmlrpc.client.ResponseError, ExpatError)
"""What it raises when a call went out and there is no answer that can be believed."""


class NotConnected(Exception):
    """The connection could not even be made, so nothing was sent. args[0] says why."""


class Transport(xmlrpc.client.Transport):
    """Keeps one connection open, with a deadline, and sends each request once only.

    The standard transport repeats a request when the connection breaks; XenServer might then do it twice. An answer
    that reports a failure is raised as XenAPI.Failure here, so that the SDK does not send the call again either.

    deadline: moment (time.monotonic) until which the next request must be answered. admit: called directly before it is
    sent, when there is a connection; what it raises keeps it from being sent.
    vouched: called with the socket and a thumbprint that came beside a failure, and the failure's details.
    """

    user_agent = USER_AGENT

    def __init__(self, trust: Trust, url: SplitResult, vouched: Callable[[Any, str, list[str]], None]) -> None:
        super().__init__()
        self.deadline = 0.0
        self.admit: Callable[[], None] | None = None
        self._trust = trust
        self._url = url
        self._vouched = vouched
        self._http: http.client.HTTPConnection | None = None
        self._untrusted_thumbprint = ""
        self.is_ended = False

    def request(self, host: Any, handler: str, request_body: Any, verbose: bool = False) -> Any:
        answer: Any = self.single_request(host, handler, request_body, verbose)
        if answer[0]["Status"] == "Failure":
            details = [str(detail) for detail in answer[0]["ErrorDescription"]]
            if self._http is not None and self._untrusted_thumbprint:
                self._vouched(self._http.sock, self._untrusted_thumbprint, details)
            raise XenAPI.Failure(details)
        return answer

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        del host
        if self._http is not None and self._http.sock is not None and _is_readable(self._http.sock):
            # Between two requests: the server closed it while it was idle.
            self._http.close()
        try:
            if self._http is None or self._http.sock is None:
                self._http = connected(self._trust, self._url, _remaining(self.deadline))
                # Read each answer until the deadline of its own request.
                self._http.response_class = self._response  # type: ignore[assignment]
            self._http.sock.settimeout(_remaining(self.deadline))
        except socket.timeout:
            raise NotConnected("no time was left") from None
        if self.is_ended:
            # Since before there was a connection that could be ended.
            self._http.close()
            raise NotConnected("it is not wanted any more")
        self._extra_headers = [THUMBPRINT_REQUEST] if self._trust.is_pinned else []
        if self.admit is not None:
            self.admit()
        return self._http

    def _response(self, sock: Any, *arguments: Any, **named: Any) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(sock, *arguments, **named)
        response.fp.close()
        response.fp = io.BufferedReader(_Incoming(sock, self.deadline))
        return response

    def parse_response(self, response: Any) -> Any:
        try:
            answer = super().parse_response(response)
        except (OSError, http.client.HTTPException, xmlrpc.client.Error, ExpatError):
            raise
        except Exception as error:
            # On XML that is no answer the standard parser fails in whatever way it comes upon it.
            raise xmlrpc.client.ResponseError(type(error).__name__) from None
        if not _is_answer(answer):
            # The SDK would take it for a fault that XenServer reported, so for a call that had no effect.
            raise xmlrpc.client.ResponseError("not an answer of XenAPI's")
        self._untrusted_thumbprint = response.getheader(THUMBPRINT_RESPONSE, "")
        return answer

    def hang_up(self) -> None:
        """End the connection under whatever waits on it in another thread, and make no other while is_ended."""
        self.is_ended = True
        sock = self._http.sock if self._http is not None else None
        if sock is not None:
            # Not by the socket itself: TLS ones, shut down, make other threads' reads fail in odd ways.
            with suppress(OSError), socket.socket(fileno=os.dup(sock.fileno())) as same:
                same.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self._http is not None:
            self._http.close()


class _Incoming(io.RawIOBase):
    """What comes from a socket until a moment; socket.timeout afterwards, however steadily it drips."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        super().__init__()
        self._sock = sock
        # It keeps the socket open when the connection is closed before its last answer was read.
        self._raw = sock.makefile("rb", buffering=0)
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_remaining(self._deadline))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def connected(trust: Trust, url: SplitResult, timeout: float) -> http.client.HTTPConnection:
    """A connection to a host that is what it should be. NotConnected, or XenServerCertificateMismatch."""
    connection = trust.connection(url, min(timeout, CONNECT_TIMEOUT))
    try:
        connection.connect()
    except (OSError, UnicodeError) as error:
        connection.close()
        raise NotConnected(reason(error)) from None
    return connection


def reason(error: Exception) -> str:
    """Why there is no answer, in words that hold no secret."""
    if isinstance(error, socket.timeout):
        return "no answer in time"
    if isinstance(error, xmlrpc.client.ProtocolError):
        return f"HTTP status {error.errcode}"
    return str(getattr(error, "strerror", None) or type(error).__name__)


def _remaining(deadline: float) -> float:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise socket.timeout("timed out")
    return remaining


def _is_readable(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])


def _is_answer(untrusted_values: Any) -> bool:
    """Whether this is one struct with Status `Success` and a Value, or `Failure` and an ErrorDescription."""
    if len(untrusted_values) != 1 or not isinstance(untrusted_values[0], dict):
        return False
    answer = untrusted_values[0]
    if answer.get("Status") == "Success":
        return "Value" in answer
    description = answer.get("ErrorDescription")
    return answer.get("Status") == "Failure" and isinstance(description, list) and bool(description)
