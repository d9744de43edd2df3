"""Calls to XenServer: a small pool of sessions of the official SDK, a deadline on every call, typed errors.

One SDK session is one HTTP connection and serves one thread at a time, so there is a pool. Nothing is ever sent
twice behind the caller's back: a lost answer to a question is XenServerUnreachable, to anything else it is
XenServerAnswerLost, because it may have happened.
"""

from __future__ import annotations

import http.client
import queue
import re
import select
import socket
import xmlrpc.client
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from xml.parsers.expat import ExpatError

import XenAPI

from agent_protocol.outcomes import Busy

from ..errors import XenServerAnswerLost, XenServerAuthenticationFailed, XenServerFailure, XenServerUnreachable

ORIGINATOR = "xenward"
"""What we call ourselves at login: XenServer counts and limits sessions by it."""

_LOST = (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError, xmlrpc.client.ResponseError, ExpatError)
_QUESTION = re.compile(r"\w+\.get_")


@dataclass(frozen=True)
class Connection:
    """Where XenServer is and who we are there.

    url: `https://host`, whose certificate the system must trust, or `http://host`. timeout: seconds for a call
    that XenServer answers at once; sessions: most calls that may be under way together.
    """

    url: str
    username: str
    password: str = field(repr=False)
    timeout: float = 60.0
    sessions: int = 10

    @property
    def address(self) -> str:
        """Host and port for people; never user or password."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


class _NotConnected(Exception):
    """The connection could not even be made. args[0] says why."""


class _Transport(xmlrpc.client.Transport):
    """Keeps one connection open, with a deadline, and sends each request once only.

    The standard transport repeats a request when the connection breaks; XenServer might then do it twice.
    """

    deadline = 60.0

    def request(self, host: Any, handler: str, request_body: Any, verbose: bool = False) -> Any:
        return self.single_request(host, handler, request_body, verbose)

    def make_connection(self, host: Any) -> Any:
        connection = super().make_connection(host)
        if connection.sock is not None and select.select([connection.sock], [], [], 0)[0]:
            # Readable between two requests: the server closed it while it was idle.
            connection.close()
        connection.timeout = self.deadline
        if connection.sock is None:
            try:
                connection.connect()
            except OSError as error:
                connection.close()
                raise _NotConnected(error.strerror or type(error).__name__) from None
        connection.sock.settimeout(self.deadline)
        return connection

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
        return answer


class _SecureTransport(_Transport, xmlrpc.client.SafeTransport):
    """The same over TLS, with the system's certificate authorities."""


class XenServer:
    """XenServer as a function: `call("VM.start", vm, False, False)`. Serves many threads."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._idle: queue.LifoQueue[_Session] = queue.LifoQueue()
        self._permits: queue.Queue[None] = queue.Queue()
        for _ in range(connection.sessions):
            self._permits.put(None)

    def call(self, method: str, *arguments: Any, timeout: float | None = None) -> Any:
        """XenServer's answer to a call. Whole numbers come as text, as the SDK gives them.

        timeout: seconds for this call; the connection's own otherwise. Raises XenServerUnreachable,
        XenServerAuthenticationFailed, XenServerFailure or XenServerAnswerLost; Busy when no session of the pool
        became free in that time.
        """
        seconds = timeout or self.connection.timeout
        with self._session(seconds) as session:
            return session.call(method, arguments, seconds)

    def close(self) -> None:
        """Log out of every idle session."""
        while True:
            try:
                self._idle.get_nowait().logout()
            except queue.Empty:
                return

    @contextmanager
    def _session(self, timeout: float) -> Iterator[_Session]:
        try:
            self._permits.get(timeout=timeout)
        except queue.Empty:
            raise Busy("xenserver_sessions_busy", "every session with XenServer is in use") from None
        try:
            try:
                session = self._idle.get_nowait()
            except queue.Empty:
                session = _Session(self.connection)
            try:
                yield session
            except XenServerFailure:
                # As good as before, unlike one whose connection broke: that is let go of.
                self._idle.put(session)
                raise
            self._idle.put(session)
        finally:
            self._permits.put(None)


class _Session:
    """One session of the SDK, logged in."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        secure = urlsplit(connection.url).scheme == "https"
        self._transport = _SecureTransport() if secure else _Transport()
        self._transport.deadline = connection.timeout
        try:
            self._session = XenAPI.Session(connection.url, transport=self._transport)
            self._session.login_with_password(connection.username, connection.password, "1.1", ORIGINATOR)
        except XenAPI.Failure as failure:
            raise self._login_error(failure) from None
        except xmlrpc.client.Fault as fault:
            raise _fault(fault) from None
        except _NotConnected as error:
            raise XenServerUnreachable(connection.address, error.args[0]) from None
        except _LOST as error:
            raise XenServerUnreachable(connection.address, _reason(error)) from None

    def _login_error(self, failure: XenAPI.Failure) -> Exception:
        if failure.details[0] == "SESSION_AUTHENTICATION_FAILED":
            return XenServerAuthenticationFailed(self._connection.address)
        return XenServerFailure(failure.details)

    def call(self, method: str, arguments: tuple[Any, ...], timeout: float) -> Any:
        self._transport.deadline = timeout
        try:
            return self._session.xenapi_request(method, arguments)
        except XenAPI.Failure as failure:
            raise self._login_error(failure) from None
        except xmlrpc.client.Fault as fault:
            raise _fault(fault) from None
        except _NotConnected as error:
            raise XenServerUnreachable(self._connection.address, error.args[0]) from None
        except _LOST as error:
            if _QUESTION.match(method):
                raise XenServerUnreachable(self._connection.address, _reason(error)) from None
            raise XenServerAnswerLost(method) from None

    def logout(self) -> None:
        # The answer does not matter: XenServer forgets idle sessions by itself.
        try:
            self._session.xenapi_request("session.logout", ())
        except (XenAPI.Failure, xmlrpc.client.Fault, _NotConnected, *_LOST):
            pass
        finally:
            self._transport.close()


def _is_answer(untrusted_values: Any) -> bool:
    """Whether this is one struct with Status `Success` and a Value, or `Failure` and an ErrorDescription."""
    if len(untrusted_values) != 1 or not isinstance(untrusted_values[0], dict):
        return False
    answer = untrusted_values[0]
    if answer.get("Status") == "Success":
        return "Value" in answer
    description = answer.get("ErrorDescription")
    return answer.get("Status") == "Failure" and isinstance(description, list) and bool(description)


def _fault(fault: xmlrpc.client.Fault) -> XenServerFailure:
    return XenServerFailure(["FAULT", str(fault.faultCode), str(fault.faultString)])


def _reason(error: Exception) -> str:
    if isinstance(error, socket.timeout):
        return "no answer in time"
    if isinstance(error, xmlrpc.client.ProtocolError):
        return f"HTTP status {error.errcode}"
    return str(getattr(error, "strerror", None) or type(error).__name__)
