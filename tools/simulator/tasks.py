"""Tasks: calls under way, those that were asked for with `Async.`, and those that clients make for themselves.

Source: ocaml/xapi/{server_helpers,taskHelper,xapi_task,context,db_gc_util}.ml. Every call that has an asynchronous form
has a task in the database while it runs, whether or not it was called so.
"""

from __future__ import annotations

import contextlib
import datetime
import threading
import traceback
import uuid as uuids
from collections import deque
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Callable

from . import errors
from .database import Database, Row
from .model import NULL_REF
from .values import format_date, now

COMPLETED_TIMEOUT = 65 * 60.0
"""Seconds after which a task that has ended vanishes."""

PENDING_TIMEOUT = 24 * 3600.0
"""Seconds after which a task vanishes that has not ended and makes no progress."""

MAX_TASKS = 200
"""Beyond this many, those that ended first vanish earlier."""

COLLECTION_PERIOD = 30.0
"""Seconds from one search for such tasks to the next."""

SHORTEST_PERIOD = 0.1
"""The same, when tasks that have ended are kept for less than that."""

MAX_THREADS = 128
"""How many asynchronous calls run at once; further ones wait. xapi has no bound."""

_COMPLETED = frozenset({"success", "failure", "cancelled"})


class CurrentTask:
    """The task of the call that a thread performs. `ref` names it, in the database or not."""

    def __init__(self, ref: str, database: Database | None = None) -> None:
        self.ref = ref
        self._database = database
        self._guard = threading.Lock()
        self._is_cancelled = False
        self._actions: list[Callable[[], None]] = []

    def check(self) -> None:
        """For calls to ask between their steps. ApiError TASK_CANCELLED when somebody has cancelled the task."""
        if self._is_cancelled:
            raise errors.ApiError("TASK_CANCELLED", self.ref)

    def progress(self, fraction: float) -> None:
        """How much is done, from 0 to 1."""
        self._set(progress=fraction)

    @contextlib.contextmanager
    def cancellable(self, wake: Callable[[], None] = lambda: None) -> Iterator[None]:
        """While it is entered, clients are told that they can cancel; `wake` is called when one does, or has done."""
        with self._guard:
            self._actions.append(wake)
        self._set(allowed_operations=["cancel"])
        try:
            yield
        finally:
            with self._guard:
                self._actions.remove(wake)
                is_over = not self._actions
            if is_over:
                self._set(allowed_operations=[])

    def cancel(self) -> None:
        """Let the call end at its next step."""
        with self._guard:
            self._is_cancelled = True
            actions = list(self._actions)
        for action in actions:
            action()

    def _set(self, **fields: Any) -> None:
        if self._database is not None:
            with contextlib.suppress(errors.ApiError):
                # A client may have destroyed it.
                self._database.set("task", self.ref, **fields)


_CURRENT: ContextVar[CurrentTask | None] = ContextVar("_CURRENT", default=None)


def current() -> CurrentTask:
    """The task of the call that this thread performs; without a call, one that nobody can know of."""
    return _CURRENT.get() or CurrentTask(dummy(""))


def dummy(label: str) -> str:
    """A reference that names a call and belongs to no task in the database."""
    return f"DummyRef:|{uuids.uuid4()}|{label}"


class Tasks:
    """The tasks of a pool. Methods may be called by any thread; start() once, then stop() once.

    host: gives the reference of the host that they run on.
    completed_timeout: seconds that one is kept when it has ended.
    """

    def __init__(
        self, database: Database, host: Callable[[], str], completed_timeout: float = COMPLETED_TIMEOUT
    ) -> None:
        self._database = database
        self._host = host
        self._completed_timeout = completed_timeout
        self._guard = threading.Lock()
        self._running: dict[str, CurrentTask] = {}
        self._owners: dict[str, str] = {}
        self._waiting: deque[Callable[[], None]] = deque()
        self._threads = 0
        self._stopped = threading.Event()
        self._stalled: dict[str, float] = {}
        self._collector = threading.Thread(target=self._collect_for_ever, name="tasks", daemon=True)

    def start(self) -> None:
        """Begin to remove old tasks."""
        self._collector.start()

    def stop(self) -> None:
        """Remove none any more, and let calls end that wait and can be cancelled."""
        self._stopped.set()
        self._collector.join()
        with self._guard:
            self._waiting.clear()
            running = list(self._running.values())
        for task in running:
            task.cancel()

    # Of clients

    def create(self, session: str, label: str, description: str = "", **fields: Any) -> str:
        """A new task that belongs to a session. Fields are those of the datamodel."""
        with self._database.exclusively():
            ref = self._database.create(
                "task",
                name_label=label,
                name_description=description,
                created=now(),
                resident_on=self._host(),
                type="<none/>",
                **fields,
            )
            with contextlib.suppress(errors.ApiError):
                self._database.add_to_set("session", session, "tasks", ref)
            self._owners[ref] = session
        return ref

    def destroy(self, ref: str) -> None:
        """Remove a task that has ended; one that has not vanishes when it ends. ApiError HANDLE_INVALID."""
        with self._database.exclusively():
            if self._database.get("task", ref, "status") in _COMPLETED:
                self._remove(ref)
            else:
                operations = self._database.get("task", ref, "current_operations")
                self._database.set("task", ref, current_operations={**operations, "task": "destroy"})

    def cancel(self, ref: str, canceller: str) -> None:
        """Ask for a task's end, in the name of the task `canceller`. ApiError HANDLE_INVALID.

        Whoever performs it ends at his next step. When nobody does, it stays as it is.
        """
        self._database.set("task", ref, current_operations={canceller: "cancel"})
        with self._guard:
            task = self._running.get(ref)
        if task is not None:
            task.cancel()

    # Their ends

    def succeed(self, ref: str, result: str = "") -> None:
        """A task has ended well. result: a `<value>` element of XML-RPC, or nothing."""
        self._end(ref, status="success", result=result)

    def give_up(self, ref: str) -> None:
        """A task has ended because it was cancelled. xapi tells no error then: the status says it all."""
        self._end(ref, status="cancelled")

    def fail(self, ref: str, error: errors.ApiError, backtrace: str = "()") -> None:
        """A task has ended in an error. backtrace: an s-expression.

        For one that a client made, that error may be TASK_CANCELLED: then it is told as such.
        """
        status = "cancelled" if error.code == "TASK_CANCELLED" else "failure"
        self._end(ref, status=status, error_info=error.description, backtrace=backtrace)

    def _end(self, ref: str, **fields: Any) -> None:
        with self._database.exclusively(), contextlib.suppress(errors.ApiError):
            row = self._database.snapshot("task", ref)
            if row["status"] == "pending":
                self._database.set("task", ref, **fields, progress=1.0, finished=now(), allowed_operations=[])
            if "destroy" in row["current_operations"].values():
                self._remove(ref)

    def _remove(self, ref: str) -> None:
        with self._database.exclusively(), contextlib.suppress(errors.ApiError):
            with contextlib.suppress(errors.ApiError):
                self._database.remove_from_set("session", self._owners.pop(ref, NULL_REF), "tasks", ref)
            self._database.destroy("task", ref)

    # Calls

    @contextlib.contextmanager
    def performing(self, ref: str) -> Iterator[CurrentTask]:
        """What this thread does while it is entered belongs to a task of the database, or to a dummy()."""
        task = CurrentTask(ref, self._database if ref in self._owners else None)
        with self._guard:
            self._running[ref] = task
        token = _CURRENT.set(task)
        try:
            yield task
        finally:
            _CURRENT.reset(token)
            with self._guard:
                del self._running[ref]

    @contextlib.contextmanager
    def synchronously(self, session: str, label: str) -> Iterator[CurrentTask]:
        """As performing(), with a task that exists only for so long."""
        ref = self.create(session, label)
        try:
            with self.performing(ref) as task:
                yield task
        finally:
            self._remove(ref)

    def launch(self, ref: str, work: Callable[[], str]) -> None:
        """Perform `work` for a task in another thread. It gives the task's result, or raises what it failed with."""

        def perform() -> None:
            with self.performing(ref) as task:
                try:
                    if "cancel" in self._operations(ref):
                        task.cancel()
                    task.check()
                    result = work()
                except errors.ApiError as error:
                    if error.code == "TASK_CANCELLED":
                        self.give_up(ref)
                    else:
                        self.fail(ref, error, _backtrace(error.__cause__ or error))
                else:
                    self.succeed(ref, result)

        with self._guard:
            if self._threads >= MAX_THREADS:
                self._waiting.append(perform)
                return
            self._threads += 1
        threading.Thread(target=self._work, args=(perform,), name=f"task-{ref}", daemon=True).start()

    def _work(self, job: Callable[[], None] | None) -> None:
        while job is not None:
            job()
            with self._guard:
                job = self._waiting.popleft() if self._waiting else None
                if job is None:
                    self._threads -= 1

    def _operations(self, ref: str) -> list[str]:
        try:
            return list(self._database.get("task", ref, "current_operations").values())
        except errors.ApiError:
            return []

    # Old ones

    def _collect_for_ever(self) -> None:
        period = min(COLLECTION_PERIOD, max(self._completed_timeout, SHORTEST_PERIOD))
        while not self._stopped.wait(period):
            self.collect(datetime.datetime.now(datetime.timezone.utc))

    def collect(self, moment: datetime.datetime) -> None:
        """Remove what is old at that moment."""
        with self._database.exclusively():
            rows = self._database.snapshots("task")
            completed = {ref: row for ref, row in rows.items() if row["status"] in _COMPLETED}
            pending = {ref: row for ref, row in rows.items() if row["status"] not in _COMPLETED}
            old = _before(moment, self._completed_timeout, completed, "finished")
            old |= {ref for ref, row in completed.items() if "destroy" in row["current_operations"].values()}
            late = _before(moment, PENDING_TIMEOUT, pending, "created")
            # It has the time until the next search to show that it still lives.
            old |= {ref for ref in late if rows[ref]["progress"] <= self._stalled.get(ref, -1.0)}
            self._stalled = {ref: rows[ref]["progress"] for ref in late}
            overflow = len(rows) - len(old) - MAX_TASKS
            if overflow > 0:
                young = sorted(completed.keys() - old, key=lambda ref: str(completed[ref]["finished"]))
                old |= set(young[:overflow])
            for ref in old:
                self._remove(ref)


def _before(moment: datetime.datetime, timeout: float, rows: dict[str, Row], field: str) -> set[str]:
    latest = format_date(moment - datetime.timedelta(seconds=timeout))
    # Dates of this form are in the order of their texts.
    return {ref for ref, row in rows.items() if row[field] < latest}


def _backtrace(error: BaseException) -> str:
    frames = [
        f"((process simulator)(filename {Path(frame.filename).name})(line {frame.lineno}))"
        for frame in traceback.extract_tb(error.__traceback__)
    ]
    return f"({''.join(frames)})"
