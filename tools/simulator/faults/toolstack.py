"""A toolstack that restarts: connections are cut, ports closed for a while, and tasks lost that were under way."""

from __future__ import annotations

import contextlib
import math
import socket
import time

from .. import errors
from ..http import HttpServer
from ..state import State
from .errors import FaultError

MAX_SECONDS = 600.0
"""How long it can take."""


class Toolstack:
    """The toolstack of all hosts of a pool."""

    def __init__(self, state: State) -> None:
        self._state = state

    def restart(self, seconds: float) -> None:
        """Restart it; gives back when it answers again, so many seconds later.

        Sessions stay, and tokens of events are good afterwards: both are in the database. Tasks that are under way end
        as cancelled, and what was done for them ends at its next step (ocaml/xapi/cancel_tasks.ml).
        """
        if not math.isfinite(seconds) or not 0 <= seconds <= MAX_SECONDS:
            raise FaultError(f"seconds: 0 to {MAX_SECONDS:g}")
        with self._state.changing_hosts:
            servers = self._servers()
            for server in servers:
                server.close_port()
            try:
                self._lose_tasks()
                time.sleep(seconds)
            finally:
                for server in servers:
                    server.open_port()

    def _servers(self) -> list[HttpServer]:
        servers = [server for host in self._state.hosts.values() for server in host.servers]
        # What plugins reach over dom0's own socket stays: they are not clients whose behaviour is tried.
        return [server for server in servers if server.address_family == socket.AF_INET]

    def _lose_tasks(self) -> None:
        tasks, database = self._state.tasks, self._state.database
        for ref, row in database.snapshots("task").items():
            if row["status"] == "pending":
                tasks.give_up(ref)
                with contextlib.suppress(errors.ApiError):
                    tasks.cancel(ref, ref)
