"""The audit trail: what was asked of instances, by whom, and how it ended."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from agent_protocol.outcomes import Outcome
from compute_driver.db.models import ActionRow
from compute_driver.db.records import Action, Lease
from compute_driver.db.repository.base import RepositoryPart, check_lease
from compute_driver.db.rows import action_record, checked, fitted, now, searchable
from compute_driver.errors import ActionEnded, OrderKnown


class Actions(RepositoryPart):
    """Actions and their steps."""

    def start_action(
        self,
        *,
        action: str,
        target: str,
        request_id: str,
        user: str,
        host: str,
        instance_uuid: str | None = None,
        step: str | None = None,
        order_id: str | None = None,
        lease: Lease | None = None,
    ) -> int:
        """Records that something is about to be done, before it is: committed on return. Its number for finish_action.

        target: the name or uuid that was asked for. step: the part of the action that this row stands for; it
        carries the action's request_id. order_id: what its caller calls this order, which is then carried out once.
        lease: under which it is done.

        OrderKnown when an action with this order_id is recorded already; LeaseLost when the host is another's by now.
        """
        described = {"target": target, "user": user, "host": host, "request_id": request_id}
        values = {
            **fitted(ActionRow, {**described, "action": action, "step": step}),
            **checked(ActionRow, {"instance_uuid": instance_uuid, "order_id": order_id}),
            "epoch": 0 if lease is None else lease.epoch,
            "started_at": now(),
            "code": "",
            "message": "",
        }

        def add(session: Session) -> int:
            check_lease(session, lease)
            row = ActionRow(**values)
            session.add(row)
            session.flush()
            return row.id

        try:
            return self._write(add)
        except IntegrityError:
            known = None if order_id is None else self.get_action(order_id)
            if known is None:
                raise
        raise OrderKnown(known)

    def finish_action(
        self,
        action_id: int,
        *,
        outcome: Outcome,
        code: str = "",
        message: str = "",
        seconds: float,
        instance_uuid: str | None = None,
    ) -> None:
        """Records how an action ended. ActionEnded when it has ended before or was never started.

        seconds: how long it took, by a monotonic clock. instance_uuid: which instance it was about, if that came to
        light meanwhile. message: no secrets.
        """
        values: dict[str, Any] = {"finished_at": now(), "outcome": Outcome(outcome).value, "seconds": float(seconds)}
        values.update(fitted(ActionRow, {"code": code, "message": message}))
        if instance_uuid is not None:
            values.update(checked(ActionRow, {"instance_uuid": instance_uuid}))
        finish = update(ActionRow).where(ActionRow.id == action_id, ActionRow.finished_at.is_(None)).values(values)

        def swap(session: Session) -> None:
            if session.connection().execute(finish).rowcount != 1:
                raise ActionEnded(action_id)

        self._write(swap)

    def get_action(self, order_id: str) -> Action | None:
        """The action of the order that its caller calls so; None when there is none, or not any more."""
        query = select(ActionRow).where(ActionRow.order_id == searchable(order_id))
        found = self._list(query)
        # Compared once more: MariaDB ignores spaces at the end.
        return next((action for action in found if action.order_id == order_id), None)

    def list_actions(
        self, *, instance_uuid: str | None = None, request_id: str | None = None, limit: int = 100
    ) -> list[Action]:
        """The newest `limit` actions and steps, of an instance, a request or all; the oldest of them first."""
        query = select(ActionRow).order_by(ActionRow.id.desc()).limit(limit)
        if instance_uuid is not None:
            query = query.where(ActionRow.instance_uuid == searchable(instance_uuid))
        if request_id is not None:
            query = query.where(ActionRow.request_id == searchable(request_id))
        return self._list(query)[::-1]

    def unfinished_actions(self, host: str) -> list[Action]:
        """What a service has begun and not ended, oldest first: at its start, what the last run left in flight."""
        query = select(ActionRow).where(ActionRow.host == searchable(host), ActionRow.finished_at.is_(None))
        return self._list(query.order_by(ActionRow.id))

    def _list(self, query: Select[Any]) -> list[Action]:
        return self._read(lambda session: [action_record(row) for row in session.scalars(query)])
