"""The task of a transfer: XenServer's only word on how it went, and on when a disk is let go of."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from agent_protocol.outcomes import Unsuccessful

from ...errors import ObjectGone, TransferCancelled, TransferFailed, XenServerAnswerLost, XenServerFailure
from ..connection.session import Flag, XenServer
from ..connection.tasks import Task

LOG = logging.getLogger(__name__)

END_TIMEOUT = 60.0
"""Seconds that XenServer has to let go of a disk whose transfer was given up."""

UNTOUCHED_TIMEOUT = 5.0
"""Seconds to wait likewise when XenServer never answered the request, so that probably nothing was begun."""

NEWS_TIMEOUT = 10.0
"""Seconds to wait for the task's own words when a connection broke."""


_PENDING = ("pending", "cancelling")
"""Status of a task that has not ended."""


def import_label(vdi: str) -> str:
    """The name of the task of a transfer into a VDI (a ref)."""
    return f"Import into {vdi}"


def export_label(vdi: str) -> str:
    """Of one out of it."""
    return f"Export of {vdi}"


def end_left(server: XenServer, vdi: str) -> None:
    """End the tasks of a VDI's transfers whose process died: as pending ones they would stay for a day.

    Only for a VDI that nobody works on. Errors as of XenServer.call().
    """
    for label in (import_label(vdi), export_label(vdi)):
        for task in server.call("task.get_by_name_label", label):
            with suppress(ObjectGone):
                if server.call("task.get_status", task) in _PENDING:
                    server.call("task.set_status", task, "cancelled")
                server.call("task.destroy", task)


def finish(task: Task, timeout: float, cancelled: Flag) -> None:
    """Wait until the task says that all went well. XenServerFailure, TransferFailed, TransferCancelled.

    timeout: seconds; the task is cancelled when they are over, and when `cancelled` is set.
    """
    try:
        task.wait(timeout, cancelled=cancelled)
    except XenServerFailure as failure:
        raise _told(failure, cancelled) from None
    except XenServerAnswerLost:
        # What it filled goes, so it is certain that it had no effect.
        raise TransferFailed("XenServer does not tell how it went") from None


def raise_reason(server: XenServer, task: Task, cancelled: Flag) -> None:
    """Raise why XenServer broke it off, if its task tells that soon; nothing happens otherwise."""
    if _await_end(server, task, NEWS_TIMEOUT):
        finish(task, NEWS_TIMEOUT, cancelled)


def give_up(server: XenServer, task: Task, *, touched: bool) -> None:
    """Have XenServer end it, and wait until it did, as a disk in use cannot be destroyed. Raises nothing.

    touched: whether XenServer began. The connection is closed already. Without the lease nothing is done.
    """
    try:
        server.check_fence()
        task.cancel()
        if _await_end(server, task, END_TIMEOUT if touched else UNTOUCHED_TIMEOUT):
            return
        if touched:
            LOG.warning("XenServer does not end task %s, which was cancelled", task.ref)
        else:
            # Nobody took it up, and as a pending one it would stay for a day.
            server.call("task.set_status", task.ref, "cancelled")
    except Unsuccessful as error:
        # What led here is the one to report.
        LOG.warning("how task %s ended is not known: %s", task.ref, error.code)


def _await_end(server: XenServer, task: Task, timeout: float) -> bool:
    def is_over(untrusted_record: Mapping[str, Any]) -> bool:
        return untrusted_record.get("status") not in _PENDING

    return server.events.wait_for("task", task.ref, is_over, timeout) is not None


def _told(failure: XenServerFailure, cancelled: Flag) -> Unsuccessful:
    if failure.details[0] != "TASK_CANCELLED":
        return failure
    return (
        TransferCancelled() if cancelled.is_set() else TransferFailed("it was cancelled in XenServer, or took too long")
    )
