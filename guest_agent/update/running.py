"""What this process knows of its own start: by which launcher, as which update, and whether it is to start anew."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import NoReturn

from ..launch import PROVEN, STATE_FILE, TRYING, Unusable, check_directory, clear, read_state, write_state

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Launch:
    """How the launcher started this process.

    command: program and arguments that start the agent again. updates: the directory of updates. version: of the update
    that runs, None when it is the packaged agent.
    """

    command: tuple[str, ...]
    updates: str
    version: str | None


class Process:
    """This process. There is one, PROCESS; tests make others.

    launch: None when the agent was not started by the launcher: then no update would ever be. restart_wanted: whether
    an update waits to be started; the agent's loop looks at it once everything is answered.
    """

    def __init__(self) -> None:
        self.launch: Launch | None = None
        self.restart_wanted = False
        self._confirmed = False

    def launched(self, command: tuple[str, ...], updates: str, version: str | None) -> None:
        """Called by the launcher, before the agent's main(). This must keep working for older launchers."""
        self.launch = Launch(command, updates, version)

    def confirm(self) -> None:
        """Called when the agent serves: its advert stands in the store, and requests are watched for.

        An update on trial is proven by that, and the trial's timer ends. Older updates are removed but for the one that
        it took the place of. What goes wrong here is logged: the agent serves, and the next start tries again.
        """
        if self._confirmed or self.launch is None or self.launch.version is None:
            return
        self._confirmed = True
        signal.alarm(0)
        updates = self.launch.updates
        try:
            state = read_state(updates)
            if state is None or state.version != self.launch.version or state.state != TRYING:
                return
            write_state(updates, replace(state, state=PROVEN, attempts=0))
            _log.info("the update to %s is proven", state.version)
            clear(updates, [STATE_FILE, state.version, state.previous])
        except (Unusable, OSError) as error:
            _log.warning("the update serves, but that cannot be noted: %s", error)

    def state(self) -> Mapping[str, object]:
        """The newest update's version, state (`trying`, `proven`, `rolled_back`), previous version and reason.

        Empty when there is none, and where updates are not started. Members that say nothing are left out.
        """
        if self.launch is None:
            return {}
        try:
            check_directory(self.launch.updates)
            state = read_state(self.launch.updates)
        except (Unusable, OSError):
            return {}
        return {} if state is None else {name: value for name, value in asdict(state).items() if value}

    def restart(self) -> NoReturn:
        """Become the launcher again, in the same process. The agent has left the store by then.

        OSError when that cannot be done: then the process ends, and its service manager starts it.
        """
        if self.launch is None:
            raise RuntimeError("the agent was not started by the launcher")
        _log.info("the agent starts again")
        os.execv(self.launch.command[0], self.launch.command)  # noqa: S606


PROCESS = Process()
