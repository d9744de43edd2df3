"""The end of an order: what became of it, and of its instance, in one step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from agent_protocol.outcomes import Outcome
from compute_driver.db.models import ActionRow, FaultRow, InstanceRow
from compute_driver.db.records import Instance, Lease
from compute_driver.db.repository.base import RepositoryPart, check_lease
from compute_driver.db.repository.instances import settable
from compute_driver.db.rows import checked, fitted, instance_record, now, searchable
from compute_driver.errors import ActionEnded
from compute_driver.states import VmState


class Endings(RepositoryPart):
    """How actions that may hold an instance's turn end."""

    def conclude(
        self,
        action_id: int,
        *,
        outcome: Outcome,
        code: str = "",
        message: str = "",
        seconds: float,
        instance_uuid: str | None = None,
        values: Mapping[str, Any] | None = None,
        deleted: bool = False,
        fault: bool = False,
        lease: Lease | None = None,
    ) -> Instance | None:
        """Records how an action ended, and gives its instance's turn back with these columns set; gives the instance.

        The instance is left alone when the turn is not this action's. deleted: mark it as deleted. fault: record why it
        is in error. The rest is as of finish_action. Asked again with the same end, it finds that recorded and changes
        nothing.

        ActionEnded when it has another end already, or was never started; LeaseLost.
        """
        ended: dict[str, Any] = {"outcome": Outcome(outcome).value, "seconds": float(seconds), "finished_at": now()}
        ended.update(fitted(ActionRow, {"code": code, "message": message}))
        if instance_uuid is not None:
            ended.update(checked(ActionRow, {"instance_uuid": instance_uuid}))
        columns = {**settable(values or {}), "task_state": None, "task_action": None}

        def end(session: Session) -> Instance | None:
            check_lease(session, lease)
            action = session.scalar(select(ActionRow).where(ActionRow.id == action_id).with_for_update())
            if action is None or action.finished_at is not None:
                if action is None or (action.outcome, action.seconds) != (ended["outcome"], ended["seconds"]):
                    raise ActionEnded(action_id)
                return _instance(session, action.instance_uuid)
            for name, value in ended.items():
                setattr(action, name, value)
            row = _held(session, action)
            if row is not None:
                _set(row, columns, deleted=deleted)
                if fault:
                    described = fitted(FaultRow, {"code": code, "message": message, "request_id": action.request_id})
                    session.add(FaultRow(instance_uuid=row.uuid, created_at=now(), **described))
            session.flush()
            return _instance(session, action.instance_uuid) if row is None else instance_record(row)

        return self._write(end)


def _held(session: Session, action: ActionRow) -> InstanceRow | None:
    """The instance whose turn the action has, locked."""
    query = select(InstanceRow).where(InstanceRow.task_action == action.id, InstanceRow.deleted == 0)
    return session.scalar(query.with_for_update())


def _set(row: InstanceRow, columns: Mapping[str, Any], *, deleted: bool) -> None:
    for name, value in columns.items():
        setattr(row, name, value)
    if deleted:
        moment = now()
        row.vm_state, row.deleted = VmState.DELETED.value, row.id
        row.deleted_at = row.terminated_at = moment


def _instance(session: Session, uuid: str | None) -> Instance | None:
    row = None if uuid is None else session.scalar(select(InstanceRow).where(InstanceRow.uuid == searchable(uuid)))
    return None if row is None else instance_record(row)
