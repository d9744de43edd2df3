"""What is old and over, removed in small transactions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, exists, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from compute_driver.db.models import (
    ActionRow,
    AgentRow,
    FaultRow,
    InstanceRow,
    InterfaceRow,
    MigrationRow,
    ServiceRow,
    VolumeRow,
)
from compute_driver.db.records import ENDED_MIGRATIONS
from compute_driver.db.repository.base import RepositoryPart

_Key = InstrumentedAttribute[Any]
_REFERRING: tuple[Any, ...] = (FaultRow, AgentRow, VolumeRow, InterfaceRow, MigrationRow)


class Purge(RepositoryPart):
    """The end of rows."""

    def purge(self, before: datetime, *, limit: int = 1000) -> int:
        """Removes at most `limit` rows of what ended before that moment, and gives their number: call it until 0.

        These are actions with their steps, faults, service processes that were not seen since, and instances that were
        deleted before that, with all that belongs to them. Never anything in flight: no action without an outcome and
        none of its steps, not the action of a turn, no instance with an action or a migration under way.

        before: an aware time.
        """
        removed = 0
        for key, condition in _conditions(before):
            if removed < limit:
                removed += self._write(_removal(key, condition, limit - removed))
        if removed < limit:
            removed += self._write(_removal_of_instances(before, limit - removed))
        return removed


def _conditions(before: datetime) -> list[tuple[_Key, ColumnElement[bool]]]:
    """What may go, table by table: key and condition. Instances follow when nothing refers to them any more."""
    instance = aliased(InstanceRow)
    gone = select(instance.uuid).where(_is_over(instance, before))
    return [
        (ActionRow.id, _is_finished(before)),
        (FaultRow.id, FaultRow.created_at < before),
        (AgentRow.instance_uuid, AgentRow.instance_uuid.in_(gone)),
        (VolumeRow.id, VolumeRow.instance_uuid.in_(gone)),
        (InterfaceRow.id, InterfaceRow.instance_uuid.in_(gone)),
        (MigrationRow.id, MigrationRow.instance_uuid.in_(gone)),
        (ServiceRow.id, ServiceRow.last_seen_at < before),
    ]


def _is_finished(before: datetime) -> ColumnElement[bool]:
    other, instance = aliased(ActionRow), aliased(InstanceRow)
    is_running = exists().where(other.request_id == ActionRow.request_id, other.finished_at.is_(None))
    holds_turn = exists().where(instance.task_action == ActionRow.id)
    return and_(ActionRow.finished_at < before, ~is_running, ~holds_turn)


def _is_over(instance: Any, before: datetime) -> ColumnElement[bool]:
    action, migration = aliased(ActionRow), aliased(MigrationRow)
    is_asked = exists().where(action.instance_uuid == instance.uuid, action.finished_at.is_(None))
    is_moving = exists().where(
        migration.instance_uuid == instance.uuid, migration.status.not_in(sorted(ENDED_MIGRATIONS))
    )
    return and_(instance.deleted != 0, instance.deleted_at < before, ~is_asked, ~is_moving)


def _removal(key: _Key, condition: ColumnElement[bool], limit: int) -> Callable[[Session], int]:
    # Keys first: no two of the databases agree on how many rows a DELETE may be limited to.
    chosen = select(key).where(condition).order_by(key).limit(limit)

    def remove(session: Session) -> int:
        keys = list(session.scalars(chosen))
        return session.connection().execute(delete(key.class_).where(key.in_(keys))).rowcount if keys else 0

    return remove


def _removal_of_instances(before: datetime, limit: int) -> Callable[[Session], int]:
    tables = [aliased(row) for row in _REFERRING]
    is_alone = and_(*(~exists().where(table.instance_uuid == InstanceRow.uuid) for table in tables))
    chosen = select(InstanceRow.id).where(_is_over(InstanceRow, before), is_alone).order_by(InstanceRow.id)

    def remove(session: Session) -> int:
        keys = list(session.scalars(chosen.limit(limit).with_for_update()))
        # Asked once more now that they are locked: a fault may have been recorded between the two.
        removal = delete(InstanceRow).where(InstanceRow.id.in_(keys), is_alone)
        return session.connection().execute(removal).rowcount if keys else 0

    return remove
