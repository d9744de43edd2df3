"""The agent's life: it finds the store, serves it, and finds it again whenever it was lost.

A guest's store comes late at boot, goes when its daemon is restarted, and is another one after a migration or where a
copy of the guest wakes up. None of this ends the agent: what it must not forget (memory.py) and who it is (presence.py)
outlive the connection, and each connection is a session of its own (session.py).
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Callable

from agent_protocol.wire import WireError
from agent_protocol.xenstore import XenStoreError

from .commands import Commands, Context
from .memory import Memory
from .presence import Presence
from .session import Session
from .store import Store
from .update.running import PROCESS

FIRST_PAUSE = 0.1
"""Seconds until a store that was lost is tried for the first time; each further pause is twice as long."""

LONGEST_PAUSE = 5.0
"""Seconds of the longest pause. A session that lasted as long ends the row."""

_log = logging.getLogger(__name__)


class Agent:
    """One agent, for one guest.

    open_store: gives a connection to the guest's store, or raises StoreClosed; called for each new one.
    commands, sealed_commands: what the agent can do for requests in the clear and for sealed ones, by name.
    context: what the commands work with; its vm, features and nodes are set by the agent.
    """

    def __init__(
        self, open_store: Callable[[], Store], commands: Commands, sealed_commands: Commands, context: Context
    ) -> None:
        self._open_store = open_store
        self._commands = commands
        self._context = context
        self._presence = Presence(commands, sealed_commands, context)
        self._memory = Memory()
        self._stopping = threading.Event()
        self._change = threading.Lock()  # held where the session is changed, or the one that there is is asked to end
        self._session: Session | None = None
        self._lost = False

    def run(self) -> None:
        """Serve until stop(), however often the store goes and comes, or until an update is to take its place."""
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._serve(self._open_store())
                return
            except (XenStoreError, WireError) as error:
                if self._stopping.is_set():
                    return
                self._report_lost(error)
            if time.monotonic() - began >= LONGEST_PAUSE:
                pause = FIRST_PAUSE
            self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def stop(self) -> None:
        """End run() as soon as the request in hand is answered, and take the advert away. For another thread.

        A request whose frames are still on their way is refused. A reply whose frames are is left to the next run.
        """
        self._stopping.set()
        with self._change:
            session = self._session
        if session is not None:
            session.stop()

    def _serve(self, store: Store) -> None:
        session = Session(store, self._commands, self._context, self._presence, self._memory)
        with self._change:
            self._session = session
        try:
            if not self._stopping.is_set():
                session.start()
                self._report_found()
                PROCESS.confirm()
                session.serve()
        finally:
            with self._change:
                self._session = None
            store.close()

    def _report_lost(self, error: Exception) -> None:
        # Once, however many attempts fail.
        if not self._lost:
            _log.warning("the store is lost, and looked for again: %s", error)
        self._lost = True

    def _report_found(self) -> None:
        if self._lost:
            _log.warning("the store is back")
        self._lost = False
