"""Sessions of services that acted on the pool before this one: they are ended, and what they began is known.

A session's calls that XenServer has accepted go on when it ends. Most show as operations of the objects that they are
about; of others, such as host.call_plugin, only the task tells.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ...errors import ObjectGone, XenServerFailure
from .session import XenServer

_PENDING = ("pending", "cancelling")
_CALL = re.compile(r"(Async\.)?[A-Za-z_]+\.[A-Za-z0-9_]+\Z")
"""The name of a task that xapi made for a call; clients give theirs names for people."""


UNTOUCHED_TIMEOUT = 1.0
"""Seconds until a transfer that was cancelled must have ended, if XenServer ever began it."""


def _is_over(untrusted_record: Mapping[str, Any]) -> bool:
    return untrusted_record.get("status") not in _PENDING


class Predecessors:
    """What is left of them. Every method may be called by any thread."""

    def __init__(self, server: XenServer) -> None:
        self._server = server
        self._guard = threading.Lock()
        self._tasks: set[str] = set()

    def end(self, sessions: Iterable[str]) -> None:
        """End these sessions (uuids); those that have ended are fine. Errors as of XenServer.call()."""
        for uuid in sessions:
            try:
                ref = str(self._server.call("session.get_by_uuid", uuid))
                tasks = [str(task) for task in self._server.call("session.get_tasks", ref)]
            except ObjectGone:
                continue
            # With the session goes what tells whose they were.
            for task in tasks:
                self._server.events.keep(task)
            with self._guard:
                self._tasks.update(tasks)
            self._server.end_session(ref)
            self._wind_up(tasks)

    def _wind_up(self, tasks: Sequence[str]) -> None:
        # Transfers need no session once they have begun.
        transfers = [task for task in tasks if self._is_transfer(task)]
        for task in transfers:
            with suppress(XenServerFailure):
                self._server.call("task.cancel", task)
        deadline = time.monotonic() + UNTOUCHED_TIMEOUT
        for task in transfers:
            wait = max(0.0, deadline - time.monotonic())
            with suppress(XenServerFailure):
                if self._server.events.wait_for("task", task, _is_over, wait) is None:
                    # Nobody took it up, and now nobody can. As a pending one it would stay for a day.
                    self._server.call("task.set_status", task, "cancelled")
        for task in tasks:
            with suppress(XenServerFailure):
                # Nobody else would: it vanishes when it is over.
                self._server.call("task.destroy", task)

    def _is_transfer(self, task: str) -> bool:
        try:
            record = self._server.call("task.get_record", task)
        except XenServerFailure:
            return False
        return record["status"] in _PENDING and not _CALL.match(str(record["name_label"]))

    def calls(self) -> Mapping[str, str]:
        """The calls of theirs that are under way: their names, by their tasks."""
        with self._guard:
            tasks = sorted(self._tasks)
        found: dict[str, str] = {}
        for task in tasks:
            name = self._under_way(task)
            if name:
                found[task] = name
                continue
            self._server.events.let_go(task)
            with self._guard:
                self._tasks.discard(task)
        return found

    def _under_way(self, task: str) -> str:
        try:
            record: Mapping[str, Any] = self._server.events.record("task", task)
        except ObjectGone:
            return ""
        name = str(record["name_label"])
        return name if record["status"] in _PENDING and _CALL.match(name) else ""
