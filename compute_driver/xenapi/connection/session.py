"""Calls to XenServer: a small pool of sessions of the official SDK, a deadline on every call, typed errors.

One SDK session is one HTTP connection and serves one thread at a time, so there is a pool. Nothing is ever sent
twice behind the caller's back: a lost answer to a question is XenServerUnreachable, to anything else it is
XenServerAnswerLost, because it may have happened. What a host refused before it looked at it is another matter: a call
goes on to the coordinator when a supporter turned it away, and is repeated once when its session had expired.
"""

from __future__ import annotations

import http.client
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import SplitResult

from agent_protocol.outcomes import Busy, Refused

from ...errors import (
    XenServerAnswerLost,
    XenServerCertificateMismatch,
    XenServerFailure,
    XenServerUnreachable,
)
from ...fencing import Fence, LeaseLost
from .members import Members, Route, address_of
from .sdk_session import LOGOUT_TIMEOUT, ORIGINATOR, NotSent, Session
from .tls import Trust, is_loopback, parse_fingerprint
from .transport import NotConnected, connected

if TYPE_CHECKING:
    from .events import Events
    from .tasks import Task

LOG = logging.getLogger(__name__)

__all__ = ["LOGOUT_TIMEOUT", "ORIGINATOR", "Connection", "Flag", "XenServer"]

_TURNED_AWAY = ("SESSION_INVALID", "HOST_IS_SLAVE", "HOST_IN_EMERGENCY_MODE", "HOST_STILL_BOOTING")
"""What a host answers before it looks at a call (api_server.ml, session_check.ml), so that it may be sent again."""


class Flag(Protocol):
    """Something like a threading.Event: whether somebody wants work to end."""

    def is_set(self) -> bool:
        """Whether somebody does."""


@dataclass(frozen=True)
class Connection:
    """Where XenServer is and who we are there.

    url: `https://host` or, on this machine only unless allow_plain_http, `http://host`; several hosts of the pool may
    be given with commas between them. timeout: seconds for a call that XenServer answers at once; sessions: most calls
    that may be under way together. ca_file, fingerprints: as in tls.Trust.

    Refused with `xenserver_settings` or `xenserver_plain_http` when it cannot be used like that.
    """

    url: str
    username: str
    password: str = field(repr=False)
    timeout: float = 60.0
    sessions: int = 10
    ca_file: str | None = None
    fingerprints: tuple[str, ...] = ()
    allow_plain_http: bool = False

    def __post_init__(self) -> None:
        self.members()
        try:
            for fingerprint in self.fingerprints:
                parse_fingerprint(fingerprint)
        except ValueError as error:
            raise Refused("xenserver_settings", f"{error}") from None

    @property
    def address(self) -> str:
        """Host and port of the first of them, for people; never user or password."""
        return address_of(self.members().configured[0])

    def members(self) -> Members:
        """The pool's hosts, to begin with."""
        urls = [url for url in self.url.split(",") if url.strip()]
        return Members(urls, allow_plain_http=self.allow_plain_http)

    def trust(self) -> Trust:
        """The rule for certificates. Refused when its file cannot be used."""
        try:
            return Trust(self.ca_file, self.fingerprints)
        except OSError as error:
            raise Refused("xenserver_settings", f"ca_file cannot be used: {error.strerror or error}") from None


class XenServer:
    """XenServer as a function: `call("VM.start", vm, False, False)`. Serves many threads.

    fence: asked before whatever changes something, and told of each session; None for a XenServer that is ours alone.
    """

    def __init__(self, connection: Connection, fence: Fence | None = None) -> None:
        self.connection = connection
        self.fence = fence
        self.members = connection.members()
        self.trust = connection.trust()
        for url in self.members.configured:
            if url.scheme == "http" and not is_loopback(str(url.hostname)):
                LOG.warning("XenServer at %s is asked over plain HTTP: all can read the password", address_of(url))
        self._idle: queue.LifoQueue[Session] = queue.LifoQueue()
        self._permits: queue.Queue[None] = queue.Queue()
        for _ in range(connection.sessions):
            self._permits.put(None)
        self._guard = threading.Lock()
        self._events: Events | None = None

    def call(self, method: str, *arguments: Any, timeout: float | None = None) -> Any:
        """XenServer's answer to a call. Whole numbers come as text, as the SDK gives them.

        timeout: seconds for this call; the connection's own otherwise. Raises XenServerUnreachable,
        XenServerCertificateMismatch, XenServerAuthenticationFailed, XenServerFailure or XenServerAnswerLost; Busy when
        no session of the pool became free in that time; LeaseLost, or what else the fence raises.
        """
        seconds = timeout or self.connection.timeout
        deadline = time.monotonic() + seconds
        with self._permit(seconds):
            return self._perform(method, arguments, deadline)

    def run(
        self,
        method: str,
        *arguments: Any,
        timeout: float,
        progress: Callable[[float], None] | None = None,
        cancelled: Flag | None = None,
    ) -> Any:
        """The answer to a call that takes long and has an asynchronous form: see tasks.run()."""
        from .tasks import run

        return run(self, method, arguments, timeout=timeout, progress=progress, cancelled=cancelled)

    @contextmanager
    def task(self, label: str) -> Iterator[Task]:
        """A task of XenServer's for what is done by HTTP; destroyed at the end. label: for people."""
        from .tasks import client_task

        with client_task(self, label) as it:
            yield it

    @property
    def events(self) -> Events:
        """What XenServer tells by itself. The stream begins at the first use."""
        with self._guard:
            if self._events is None:
                # Only now: it needs this module.
                from .events import Events

                self._events = Events(self)
                self._events.start()
            return self._events

    def connect(self, address: str | None = None, timeout: float | None = None) -> http.client.HTTPConnection:
        """A connection for HTTP requests to the coordinator, or to another host of the pool, by the same TLS policy.

        address: `host`, `host:port` or a URL, as the `Location` of a 302 names it. timeout: seconds for each wait on
        the connection. XenServerUnreachable, XenServerCertificateMismatch, or Refused for plain HTTP.
        """
        try:
            url = self.members.other(address) if address else self.members.coordinator
        except ValueError:
            raise XenServerUnreachable("an address that is none", "XenServer named it") from None
        seconds = timeout or self.connection.timeout
        try:
            connection = connected(self.trust, url, seconds)
        except NotConnected as error:
            raise XenServerUnreachable(address_of(url), error.args[0]) from None
        connection.sock.settimeout(seconds)
        connection.timeout = seconds
        return connection

    @contextmanager
    def session(self, timeout: float | None = None) -> Iterator[Session]:
        """A session of one's own with the coordinator, apart from the pool; logged out of at the end.

        Its `ref` is for HTTP requests too. timeout: seconds to get it. Errors as of call().
        """
        it = self.open_session(timeout)
        try:
            yield it
        finally:
            it.logout()

    def open_session(self, timeout: float | None = None) -> Session:
        """The same, for the caller to log out of."""
        deadline = time.monotonic() + (timeout or self.connection.timeout)
        return self._open(Route(self.members), deadline)

    def check_fence(self) -> None:
        """Return when something may be changed now; LeaseLost otherwise. For what is not sent by call()."""
        if self.fence is not None:
            self.fence.check()

    def end_session(self, ref: str) -> None:
        """End another client's session, and return when that is certain; errors as of call().

        XenServer lets whoever knows a session's reference end it.
        """
        own = Session(self, self.members.coordinator)
        self.check_fence()
        try:
            own.end(ref, time.monotonic() + self.connection.timeout)
        except NotSent as error:
            raise error.error from None
        finally:
            own.close()

    def close(self) -> None:
        """End the stream of events, and log out of every idle session."""
        with self._guard:
            events, self._events = self._events, None
        if events is not None:
            events.stop()
        while True:
            try:
                self._idle.get_nowait().logout()
            except queue.Empty:
                return

    @contextmanager
    def _permit(self, timeout: float) -> Iterator[None]:
        try:
            self._permits.get(timeout=timeout)
        except queue.Empty:
            raise Busy("xenserver_sessions_busy", "every session with XenServer is in use") from None
        try:
            yield
        finally:
            self._permits.put(None)

    def _perform(self, method: str, arguments: tuple[Any, ...], deadline: float) -> Any:
        route = Route(self.members)
        session = self._take()
        if session is not None:
            route.again(session.url)
        renewed = False
        while True:
            if session is None:
                session = self._open(route, deadline)
            try:
                answer = session.call(method, arguments, deadline)
            except XenServerFailure as failure:
                code = failure.details[0]
                if code not in _TURNED_AWAY:
                    # As good as before, unlike one whose connection broke: that is let go of.
                    self._idle.put(session)
                    raise
                session.close()
                if code == "SESSION_INVALID":
                    session.ended()
                    if renewed:
                        raise
                    renewed = True
                    session = self._open(route, deadline, first=session.url)
                    continue
                route.turned_away(failure)
            except NotSent as error:
                session.close()
                route.failed(error.error)
            except (XenServerUnreachable, XenServerAnswerLost):
                # The session itself is as good as before: whoever has it next makes another connection.
                self._idle.put(session)
                self._doubt_others()
                raise
            except LeaseLost:
                # Nothing was sent.
                self._idle.put(session)
                raise
            else:
                self._idle.put(session)
                return answer
            session = None

    def _take(self) -> Session | None:
        """An idle session with the host that is believed to coordinate."""
        while True:
            try:
                session = self._idle.get_nowait()
            except queue.Empty:
                return None
            if session.url == self.members.coordinator:
                return session
            session.close()

    def _doubt_others(self) -> None:
        """A host that left one call unanswered may be gone: let the idle sessions make their connections anew."""
        doubted = []
        with suppress(queue.Empty):
            while True:
                doubted.append(self._idle.get_nowait())
        for session in doubted:
            session.close()
            self._idle.put(session)

    def _open(self, route: Route, deadline: float, first: SplitResult | None = None) -> Session:
        """A new session with the coordinator, wherever that is now."""
        url = first or route.next()
        while True:
            session = Session(self, url)
            try:
                session.login(deadline)
            except XenServerFailure as failure:
                session.close()
                if failure.details[0] not in _TURNED_AWAY:
                    raise
                route.turned_away(failure)
            except NotSent as error:
                session.close()
                route.failed(error.error)
            except (XenServerCertificateMismatch, XenServerUnreachable) as error:
                session.close()
                if isinstance(error, XenServerCertificateMismatch):
                    LOG.error("%s", error)
                route.failed(error)
            else:
                if url != self.members.coordinator:
                    LOG.info("XenServer's coordinator is %s", address_of(url))
                self.members.coordinates(url)
                return session
            url = route.next()
