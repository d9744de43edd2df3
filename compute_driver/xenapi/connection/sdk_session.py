"""One session of the official SDK with one host: opened, used for one call at a time, ended; fenced, if it must be.

With a fence each session is made known before anything goes over it, and no call that changes something is sent without
asking: that happens when its connection stands, and nothing is left to be waited for but the sending itself.
"""

from __future__ import annotations

import re
import time
import xmlrpc.client
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult

import XenAPI

from agent_protocol.outcomes import Refused, Unsuccessful

from ...errors import (
    XenServerAnswerLost,
    XenServerAuthenticationFailed,
    XenServerCertificateMismatch,
    XenServerFailure,
    XenServerUnreachable,
    answered,
)
from .members import address_of, key_of
from .transport import LOST, USER_AGENT, NotConnected, Transport, reason

if TYPE_CHECKING:
    from .session import XenServer

ORIGINATOR = USER_AGENT
"""What we call ourselves at login: XenServer counts and limits sessions by it."""

LOGOUT_TIMEOUT = 5.0
"""Seconds for a logout. XenServer forgets idle sessions by itself, after 24 hours."""

_QUESTION = re.compile(r"\w+\.get_|event\.(from|inject)\Z")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_ENDED = ("SESSION_INVALID", "HANDLE_INVALID")


class NotSent(Exception):
    """Raised when a call did not leave this machine, so that another host may be asked. error: for when none is."""

    def __init__(self, error: XenServerUnreachable | XenServerCertificateMismatch) -> None:
        super().__init__(error)
        self.error = error


class Session:
    """One session of the SDK with one host. Serves one thread at a time, but for hang_up()."""

    def __init__(self, server: XenServer, url: SplitResult) -> None:
        self.url = url
        self._server = server
        self._connection = server.connection
        self._fence = server.fence
        self._known_as = ""
        self._transport = Transport(server.trust, url, self._vouched)
        self._session = XenAPI.Session(f"{url.scheme}://{url.netloc}", transport=self._transport)

    @property
    def ref(self) -> str:
        """The session's reference, as good as a password: for calls, and as `session_id` of HTTP requests."""
        return str(self._session.handle)

    def login(self, deadline: float) -> None:
        """Log in. XenServerAuthenticationFailed, XenServerFailure; NotSent or XenServerUnreachable otherwise.

        With a fence also what that raises; there is no session then.
        """
        with self._asking(deadline, None, fenced=True):
            self._session.login_with_password(self._connection.username, self._connection.password, "1.1", ORIGINATOR)
        if self._fence is None:
            return
        try:
            untrusted_uuid = str(self.call("session.get_uuid", (self.ref,), deadline))
            if not _UUID.match(untrusted_uuid):
                raise XenServerUnreachable(address_of(self.url), "it did not name the session")
            # Before it is recorded: should that fail, it may have been all the same.
            self._known_as = untrusted_uuid
            self._fence.opened(untrusted_uuid)
        except BaseException:
            self.logout()
            raise

    def call(self, method: str, arguments: tuple[Any, ...], deadline: float) -> Any:
        """The answer to one call, sent once at most. deadline: moment (time.monotonic) until which it must be there.

        XenServerFailure; NotSent; XenServerUnreachable or XenServerAnswerLost when the answer was lost; LeaseLost.
        """
        order = None if _QUESTION.match(method) else method
        with self._asking(deadline, order, fenced=order is not None):
            return self._session.xenapi_request(method, arguments)

    @contextmanager
    def _asking(self, deadline: float, order: str | None, *, fenced: bool) -> Iterator[None]:
        """Surrounds what the SDK sends; raises what became of it in our terms. order: what changes something, if so."""
        self._transport.deadline = deadline
        self._transport.admit = self._server.check_fence if fenced else None
        try:
            yield
        except XenAPI.Failure as failure:
            raise self._failure(failure) from None
        except xmlrpc.client.Fault as fault:
            raise _fault(fault) from None
        except XenServerCertificateMismatch as error:
            raise NotSent(error) from None
        except NotConnected as error:
            raise NotSent(XenServerUnreachable(address_of(self.url), error.args[0])) from None
        except LOST as error:
            if order is None:
                raise XenServerUnreachable(address_of(self.url), reason(error)) from None
            raise XenServerAnswerLost(order) from None

    def hang_up(self) -> None:
        """Let a call end that another thread waits in; its answer is lost. Only logout() works afterwards."""
        self._transport.hang_up()

    def close(self) -> None:
        """Close the connection. The session stays, and makes another one at its next call."""
        self._transport.close()

    def logout(self) -> None:
        """End the session, if XenServer can be asked for that, and close the connection."""
        self._transport.is_ended = False
        # Otherwise XenServer forgets it by itself.
        with suppress(NotSent, Unsuccessful):
            self.end(self.ref, time.monotonic() + LOGOUT_TIMEOUT)
            self.ended()
        self._transport.close()

    def end(self, ref: str, deadline: float) -> None:
        """Have XenServer end a session, this one or another client's. Returns when it is certain that it has ended.

        Errors as of call().
        """
        try:
            with self._asking(deadline, "session.logout", fenced=False):
                self._session.session.logout(ref)
        except XenServerFailure as failure:
            if failure.details[0] not in _ENDED:
                raise

    def ended(self) -> None:
        """XenServer has said that there is no such session any more."""
        if self._fence is not None and self._known_as:
            self._fence.closed(self._known_as)

    def _vouched(self, sock: Any, untrusted_thumbprint: str, details: list[str]) -> None:
        if details[0] == "HOST_IS_SLAVE" and len(details) > 1:
            with suppress(ValueError, Refused):
                coordinator = self._server.members.other(details[1])
                self._server.trust.vouch(sock, key_of(coordinator), untrusted_thumbprint)

    def _failure(self, failure: XenAPI.Failure) -> Exception:
        if failure.details[0] == "SESSION_AUTHENTICATION_FAILED":
            return XenServerAuthenticationFailed(address_of(self.url))
        return answered(failure.details)


def _fault(fault: xmlrpc.client.Fault) -> XenServerFailure:
    return XenServerFailure(["FAULT", str(fault.faultCode), str(fault.faultString)])
