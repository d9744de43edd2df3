"""The agent's life as a Windows service: what the service control manager is told, and when.

It needs nothing of Windows: what it tells the manager through is an interface, and so is the agent.

The service runs from its first moment, not once the agent is made: Windows lets no service be stopped that still
starts, and so could neither upgrade nor remove it.

How a service ends decides whether it is started again. One that says it stopped stays so; one whose process ends
without a word is started again (windows_recovery.py). So what does not go away by itself, such as a mistake in the
configuration, is told as the service's own error; anything else that keeps the agent from serving ends the process.
"""

from __future__ import annotations

import logging
import threading
import traceback
from enum import IntEnum
from typing import Callable, Protocol

from agent_protocol.outcomes import Refused, Unsuccessful

STOP_SECONDS = 25.0
"""How long a stop waits for the command that the agent is carrying out. A network that is being changed takes up to 17;
Windows lets its own end take longer than this for a service that asks for it (windows_recovery.py)."""

TICK_SECONDS = 2.0
"""Seconds between two signs of life while the service stops."""

_log = logging.getLogger(__name__)


class Ended(IntEnum):
    """How the service says that it stopped: zero, or the number of its own that `sc query` shows then."""

    AS_ASKED = 0
    REFUSED = 1
    """The configuration, or a directory of the agent's, is not as it must be."""
    COMMAND_STILL_RUNS = 2


class Crashed(Exception):
    """Raise when the process is to end without a word to the manager, which starts the service again."""


class Manager(Protocol):
    """The service control manager, as a service speaks to it. None of these raises."""

    def running(self) -> None:
        """The service runs, and can be stopped."""

    def stopping(self, seconds: float) -> None:
        """The service stops; it has stopped, or gives another sign of life, within so many seconds."""

    def stopped(self, ended: Ended) -> None:
        """The last word."""


class Runnable(Protocol):
    """What the service runs: an agent."""

    def run(self) -> None:
        """Serve until stop()."""

    def stop(self) -> None:
        """End run(). For another thread."""


class Life:
    """One run of the service.

    manager: is told. build: makes the agent; whatever it raises is logged. stop_seconds: how long a stop may take.
    """

    def __init__(
        self,
        manager: Manager,
        build: Callable[[], Runnable],
        *,
        stop_seconds: float = STOP_SECONDS,
        tick_seconds: float = TICK_SECONDS,
    ) -> None:
        self._manager = manager
        self._build = build
        self._ticks = max(1, round(stop_seconds / tick_seconds))
        self._tick_seconds = tick_seconds
        self._asked = threading.Event()
        self._ended = threading.Event()
        self._change = threading.Condition()
        self._agent: Runnable | None = None
        self._serves = False
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Serve until stop(), and tell the manager all the way. Crashed when the process is to end at once.

        When it returns the manager knows that the service has stopped, and the process must end, whatever still runs
        in it.
        """
        self._manager.running()
        threading.Thread(target=self._serve, daemon=True).start()
        with self._change:
            self._change.wait_for(lambda: self._asked.is_set() or self._ended.is_set())
        if self._asked.is_set() and not self._stopped():
            _log.error("what the agent is doing does not end; whether it was done is not known")
            self._manager.stopped(Ended.COMMAND_STILL_RUNS)
        elif isinstance(self._failure, Refused) and not self._serves:
            _log.error("the agent cannot start: %s", self._failure)
            self._manager.stopped(Ended.REFUSED)
        elif self._failure is not None:
            raise _crashed("the agent failed" if self._serves else "the agent cannot start", self._failure)
        elif not self._asked.is_set():
            raise _crashed("the agent ended", RuntimeError("nobody asked it to"))
        else:
            _log.info("the service has stopped")
            self._manager.stopped(Ended.AS_ASKED)

    def stop(self) -> None:
        """Ask run() to end, which it does within `stop_seconds`. It returns at once, and may be called again."""
        self._set(self._asked)

    def _stopped(self) -> bool:
        """Whether the agent ends in time."""
        _log.info("the service is asked to stop")
        agent = self._agent
        if agent is not None:
            threading.Thread(target=agent.stop, daemon=True).start()
        for _ in range(self._ticks):
            self._manager.stopping(2 * self._tick_seconds)
            if self._ended.wait(self._tick_seconds):
                return True
        return False

    def _serve(self) -> None:
        try:
            # First the agent, then the look at the question, for _stopped() has them the other way round.
            self._agent = agent = self._build()
            if not self._asked.is_set():
                self._serves = True
                _log.info("the agent serves")
                agent.run()
        except BaseException as error:  # cryptography's library in Rust raises what is no Exception
            self._failure = error
        finally:
            self._set(self._ended)

    def _set(self, event: threading.Event) -> None:
        with self._change:
            event.set()
            self._change.notify_all()


def _crashed(what: str, error: BaseException) -> Crashed:
    """Logged with the place in the code: where a guest cannot be reached, its log is all there is.

    The text of an exception that could come from anywhere might hold what a request held; it stays out.
    """
    told = f": {error}" if isinstance(error, (ImportError, OSError, Unsuccessful)) else ""
    place = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    _log.critical("%s: %s%s\n%s", what, type(error).__name__, told, place)
    return Crashed(what)
