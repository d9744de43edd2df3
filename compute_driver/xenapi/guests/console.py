"""A guest's consoles: what it wrote to its serial one, and the way to its screen."""

from __future__ import annotations

import base64
import threading
import time
from collections import deque

from agent_protocol.outcomes import Failed, Refused, Unreachable, Unsupported

from ...errors import XenServerUnreachable
from ...resources import VncConsole
from ..agents.plugin import Plugin
from ..connection.sdk_session import Session
from ..connection.session import XenServer
from .vms import VM

MAX_OUTPUT = 100 * 1024
"""Bytes of a serial console that are shown."""

TOKEN_LIFE = 600.0
"""Seconds after which a session for a screen may end. What was opened with it by then stays open."""

MAX_TOKENS = 100
"""Sessions for screens at a time. XenServer ends the oldest of 500 of one user by itself, whatever they are for."""

_TIMEOUT = 20.0

_NO_LOG = (
    "the host keeps no log of the guest's serial console; switch that on as docs/install-xcpng.md says, and restart "
    "the guest"
)


def output(plugin: Plugin, vm: VM) -> bytes:
    """The last MAX_OUTPUT bytes that a running guest wrote to its serial console: untrusted, of any encoding.

    Unsupported (`console_not_logged`) when its host keeps nothing, Unreachable when it does not run there.
    """
    answer = plugin.console_log(vm, timeout=_TIMEOUT)
    log = answer.get("log")
    if log == "read":
        try:
            return base64.b64decode(answer["data"], validate=True)[-MAX_OUTPUT:]
        except (KeyError, TypeError, ValueError):
            raise Failed("bad_plugin_answer", "the dom0 plugin's answer cannot be read") from None
    if log == "none":
        raise Unsupported("console_not_logged", _NO_LOG)
    if log == "absent":
        raise Unreachable("guest_absent", "no running domain of the guest was found on its host")
    raise Refused("console_log_refused", "where the log of the guest's console should be is no file that can be read")


class Screens:
    """The ways to guests' screens, each with a session of its own. close() ends those sessions."""

    def __init__(self, server: XenServer) -> None:
        self._server = server
        self._guard = threading.Lock()
        self._sessions: deque[tuple[float, Session]] = deque()

    def open(self, vm: VM) -> VncConsole:
        """The way to a running guest's screen. Its token can do all that we can: it is for a proxy, not for users.

        Unsupported (`no_console`) when the guest has none.
        """
        server = self._server
        for ref in server.call("VM.get_consoles", vm.ref):
            console = server.call("console.get_record", ref)
            if console["protocol"] == "rfb":
                break
        else:
            raise Unsupported("no_console", "XenServer has no screen of the guest")
        try:
            url = server.members.other(str(server.call("host.get_address", vm.host)))
        except ValueError:
            raise XenServerUnreachable("an address that is none", "XenServer named it") from None
        session = server.open_session()
        # The session stays; only its connection is not needed any more.
        session.close()
        self._keep(session)
        tls = url.scheme == "https"
        return VncConsole(
            host=str(url.hostname),
            port=url.port or (443 if tls else 80),
            internal_access_path=f"/console?uuid={console['uuid']}",
            tls=tls,
            token=session.ref,
        )

    def _keep(self, session: Session) -> None:
        now = time.monotonic()
        over = []
        with self._guard:
            self._sessions.append((now + TOKEN_LIFE, session))
            while self._sessions and (self._sessions[0][0] < now or len(self._sessions) > MAX_TOKENS):
                over.append(self._sessions.popleft()[1])
        for old in over:
            old.logout()

    def close(self) -> None:
        """End all of these sessions."""
        with self._guard:
            sessions = [session for _, session in self._sessions]
            self._sessions.clear()
        for session in sessions:
            session.logout()
