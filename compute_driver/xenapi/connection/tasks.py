"""Long work of XenServer's: asked for with `Async.`, so that no connection has to wait for it, and seen as a task.

The end of a task is told by the stream of events; only while that is down its record is asked for now and then.
"""

from __future__ import annotations

import time
import uuid
import xmlrpc.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from xml.parsers.expat import ExpatError

from agent_protocol.outcomes import Outcome, Unsuccessful

from ...errors import XenServerAnswerLost, XenServerFailure, answered
from ...fencing import LeaseLost
from .batches import Row

if TYPE_CHECKING:
    from .session import Flag, XenServer

CANCEL_TIMEOUT = 15.0
"""Seconds that a cancelled task gets to end; few of xapi's operations can be cancelled in the middle."""

_PAUSES = (0.0, 0.5, 1.0)
"""Seconds before each attempt to tell XenServer that a task is not wanted any more."""

_RESULT = "<value"
"""How a task's result begins: xapi gives it as XML-RPC (taskHelper.ml)."""


class Task:
    """A task of XenServer's. ref: its reference, for `task_id` of HTTP requests. call: what it does, for errors."""

    def __init__(self, server: XenServer, ref: str, call: str) -> None:
        self.ref = ref
        self._server = server
        self._call = call
        self._told = -1.0
        self.is_cancelled = False

    def wait(
        self,
        timeout: float,
        progress: Callable[[float], None] | None = None,
        cancelled: Flag | None = None,
    ) -> Any:
        """Wait for its end; gives its result.

        timeout: seconds; the task is cancelled when they are over, and when `cancelled` is set. progress: called with
        0 to 1 whenever that changed. XenServerFailure when it failed or was cancelled; XenServerAnswerLost when it did
        not end although it was cancelled, or is gone without a trace.
        """
        deadline = time.monotonic() + timeout
        try:
            record = self._follow(deadline, progress, cancelled)
            if record is None:
                self.cancel()
                record = self._follow(time.monotonic() + CANCEL_TIMEOUT, progress, None)
        except BaseException:
            # Nobody will wait for it any more.
            self.cancel()
            raise
        if record is None:
            raise XenServerAnswerLost(self._call)
        return self._result(record)

    def cancel(self) -> None:
        """Ask XenServer to end it; whether it does is another matter."""
        self.is_cancelled = True
        self._insist("task.cancel")

    def destroy(self) -> None:
        """Let XenServer forget it."""
        self._server.events.let_go(self.ref)
        self._insist("task.destroy")

    def _insist(self, method: str) -> None:
        """Call a method on it that may be called twice, until there is an answer. The coordinator may be changing."""
        for pause in _PAUSES:
            time.sleep(pause)
            try:
                self._server.call(method, self.ref, timeout=CANCEL_TIMEOUT)
            except LeaseLost:
                return
            except Unsuccessful as error:
                if error.outcome not in (Outcome.UNREACHABLE, Outcome.UNKNOWN):
                    return
            else:
                return

    def _follow(self, deadline: float, progress: Callable[[float], None] | None, cancelled: Flag | None) -> Row | None:
        """Its record once it has ended, None when the time is over or it is to be cancelled."""

        def is_over(record: Row) -> bool:
            self._report(record, progress)
            return record.get("status") not in ("pending", "cancelling")

        try:
            return self._server.events.wait_for(
                "task",
                self.ref,
                is_over,
                max(0.0, deadline - time.monotonic()),
                interrupted=None if cancelled is None else cancelled.is_set,
            )
        except Unsuccessful as error:
            if error.outcome in (Outcome.UNREACHABLE, Outcome.BUSY):
                # Until the time was over: the coordinator may have been on its way back, or another one.
                return None
            # Whatever keeps us from seeing its end, the task was begun.
            raise XenServerAnswerLost(self._call) from None

    def _report(self, untrusted_record: Row, progress: Callable[[float], None] | None) -> None:
        done = untrusted_record.get("progress")
        if progress is None or not isinstance(done, (int, float)) or not 0 <= done <= 1 or done == self._told:
            return
        self._told = float(done)
        progress(self._told)

    def _result(self, untrusted_record: Row) -> Any:
        status = untrusted_record.get("status")
        if status == "success":
            return self._value(untrusted_record.get("result"))
        if status == "cancelled":
            raise XenServerFailure(["TASK_CANCELLED", self.ref])
        error = untrusted_record.get("error_info")
        if status == "failure" and isinstance(error, tuple) and error:
            raise answered([str(detail) for detail in error])
        raise XenServerAnswerLost(self._call)

    def _value(self, untrusted_result: Any) -> Any:
        if not isinstance(untrusted_result, str) or not untrusted_result.startswith(_RESULT):
            # What a client or an HTTP handler put there by itself.
            return untrusted_result
        text = f"<methodResponse><params><param>{untrusted_result}</param></params></methodResponse>"
        try:
            (value,), _ = xmlrpc.client.loads(text)
        except (xmlrpc.client.Error, ExpatError, ValueError, TypeError, LookupError, AttributeError):
            raise XenServerAnswerLost(self._call) from None
        return value


def run(
    server: XenServer,
    method: str,
    arguments: tuple[Any, ...],
    *,
    timeout: float,
    progress: Callable[[float], None] | None,
    cancelled: Flag | None,
) -> Any:
    """What `Async.<method>` gives in the end; Task.wait() tells the rest. Errors of the call itself as of call().

    method: one that has an asynchronous form; most calls that do something have one, `get_…` and `set_…` do not.
    """
    deadline = time.monotonic() + timeout
    try:
        ref = server.call(f"Async.{method}", *arguments, timeout=min(timeout, server.connection.timeout))
    except XenServerAnswerLost:
        raise XenServerAnswerLost(method) from None
    with _followed(server, Task(server, str(ref), method)) as task:
        try:
            return task.wait(max(0.0, deadline - time.monotonic()), progress, cancelled)
        except XenServerFailure as failure:
            if failure.details[0] == "TASK_CANCELLED" and not task.is_cancelled:
                # A toolstack that starts again marks so whatever was under way before, however far it had come.
                raise XenServerAnswerLost(method) from None
            raise


@contextmanager
def client_task(server: XenServer, label: str) -> Iterator[Task]:
    """A task that HTTP handlers report to; destroyed at the end. label: for people."""
    # By its description it can be found when the answer with its reference is lost: nobody would ever end it then.
    mark = str(uuid.uuid4())
    try:
        ref = server.call("task.create", label, mark)
    except XenServerAnswerLost:
        with suppress(Unsuccessful):
            for left in server.call("task.get_by_name_label", label):
                if server.call("task.get_name_description", left) == mark:
                    server.call("task.set_status", left, "cancelled")
                    server.call("task.destroy", left)
        raise
    with _followed(server, Task(server, str(ref), label)) as task:
        yield task


@contextmanager
def _followed(server: XenServer, task: Task) -> Iterator[Task]:
    # Before its record is first asked for, so that no change is missed in between.
    server.events.keep(task.ref)
    try:
        yield task
    finally:
        task.destroy()
