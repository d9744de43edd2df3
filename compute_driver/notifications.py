"""What other services of the cloud are told of orders: `instance.<action>.start`, `.end` and `.error` on the bus.

Sent when `[oslo_messaging_notifications] driver` says so; `messagingv2` is the usual one. A notification tells of
states and outcomes, never of arguments.
"""

from __future__ import annotations

from typing import Any

import oslo_messaging

from agent_protocol.outcomes import Outcome

from .db.records import Instance
from .manager.reports import Report

_TOLD = (
    "uuid",
    "display_name",
    "host",
    "node",
    "vm_state",
    "task_state",
    "power_state",
    "memory_mb",
    "vcpus",
    "root_gb",
    "image_ref",
    "created_at",
    "launched_at",
    "terminated_at",
    "deleted_at",
)
"""What of an instance is told."""


class _Context(dict[str, str]):
    """What is told of who asked."""

    def redacted_copy(self) -> _Context:
        """Itself: oslo.messaging asks for what may be told, and sends nothing of a context that cannot say."""
        return self


class Notifications:
    """An observer of orders (manager.reports.Observer). A notification that cannot be sent is logged, and lost."""

    def __init__(self, conf: Any, host: str) -> None:
        transport = oslo_messaging.get_notification_transport(conf)
        self._notifier = oslo_messaging.Notifier(transport, publisher_id=f"compute.{host}", retry=1)

    def __call__(self, report: Report) -> None:
        """Tell of an order's beginning or end; its steps are its own matter."""
        if report.step is not None:
            return
        context = _Context(request_id=report.request_id, user=report.user)
        if report.outcome is None:
            self._notifier.info(context, f"instance.{report.action}.start", payload(report))
        elif report.outcome is Outcome.SUCCEEDED:
            self._notifier.info(context, f"instance.{report.action}.end", payload(report))
        else:
            self._notifier.error(context, f"instance.{report.action}.error", payload(report))


def payload(report: Report) -> dict[str, Any]:
    """What is told of an order, as plain data."""
    return {
        "request_id": report.request_id,
        "host": report.host,
        "action": report.action,
        "target": report.target,
        "instance": None if report.instance is None else _described(report.instance),
        "outcome": None if report.outcome is None else str(report.outcome),
        "code": report.code,
        "message": report.message,
        "seconds": report.seconds,
    }


def _described(instance: Instance) -> dict[str, Any]:
    members = instance.to_dict()
    return {name: members[name] for name in _TOLD}
