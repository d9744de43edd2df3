"""How one driver may act on a fake hypervisor: through its fence, if it has one, and in a session that can be ended."""

from __future__ import annotations

import threading
import uuid as uuids

from ..fencing import Fence
from .shared import Shared


class Access:
    """Asked directly before each effect. Every method may be called by any thread."""

    def __init__(self, shared: Shared, fence: Fence | None) -> None:
        self._shared = shared
        self._fence = fence
        self._guard = threading.Lock()
        self._session = ""

    def admit(self) -> None:
        """Return when something may be changed now; what the fence raises otherwise.

        A session that was ended while the fence was asked is another one's by then: all is asked anew.
        """
        if self._fence is None:
            return
        while True:
            session = self._opened(self._fence)
            self._fence.check()
            if self._lives(session):
                return

    def close(self) -> None:
        """End the session."""
        with self._guard:
            session, self._session = self._session, ""
        self._end(session)

    def _lives(self, session: str) -> bool:
        with self._shared.lock:
            return session in self._shared.sessions

    def _opened(self, fence: Fence) -> str:
        """The session, which is opened when there is none."""
        with self._guard:
            if self._session and not self._lives(self._session):
                self._end(self._session)
                self._session = ""
            if not self._session:
                fence.check()
                session = str(uuids.uuid4())
                with self._shared.lock:
                    self._shared.sessions.add(session)
                try:
                    fence.opened(session)
                except BaseException:
                    self._end(session)
                    raise
                self._session = session
            return self._session

    def _end(self, session: str) -> None:
        if not session:
            return
        with self._shared.lock:
            self._shared.sessions.discard(session)
        if self._fence is not None:
            self._fence.closed(session)
