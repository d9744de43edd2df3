"""What those are told who watch the orders: notifications, metrics and whoever else wants to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from agent_protocol.outcomes import Outcome

from ..db.records import Instance


@dataclass(frozen=True)
class Report:
    """An order at its beginning or its end, or a step of it at its end, for who watches.

    outcome: None at its beginning. step: its name, None for the order itself.
    """

    request_id: str
    user: str
    host: str
    action: str
    target: str
    instance: Instance | None
    outcome: Outcome | None = None
    code: str = ""
    message: str = ""
    seconds: float = 0.0
    step: str | None = None


class Observer(Protocol):
    """Somebody who is told of every order; what it raises is logged and does no harm."""

    def __call__(self, report: Report, /) -> None:
        """An order began or ended."""
