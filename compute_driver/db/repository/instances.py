"""Instances and their turns: one task at a time on each."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from compute_driver.db.models import InstanceRow
from compute_driver.db.records import Instance, Lease
from compute_driver.db.repository.base import RepositoryPart, check_lease
from compute_driver.db.rows import (
    SETTABLE,
    checked,
    find_instance_row,
    instance_record,
    now,
    plain,
    searchable,
    set_columns,
)
from compute_driver.errors import (
    InstanceBusy,
    InstanceExists,
    InstanceNameAmbiguous,
    InstanceNotFound,
    InstanceStateRefused,
    TurnLost,
)
from compute_driver.states import PowerState, TaskState, VmState


class Instances(RepositoryPart):
    """The guests. A turn that was taken with the number of an action is that action's until somebody ends it."""

    def create_instance(
        self,
        *,
        uuid: str,
        display_name: str,
        host: str,
        memory_mb: int,
        vcpus: int,
        root_gb: int,
        image_ref: str = "",
        instance_metadata: Mapping[str, Any] | None = None,
        node: str = "",
        action: int | None = None,
        lease: Lease | None = None,
    ) -> Instance:
        """A new instance, building and spawning: its turn belongs to the caller, or to the action that is named.

        memory_mb in MiB, root_gb in GiB, instance_metadata: anything that JSON holds. node: where it is to run, if
        that is known. lease: under which it is made. InstanceExists for a used uuid; LeaseLost.
        """
        given = {
            "uuid": uuid,
            "display_name": display_name,
            "host": host,
            "node": node,
            "memory_mb": memory_mb,
            "vcpus": vcpus,
            "root_gb": root_gb,
            "image_ref": image_ref,
            "instance_metadata": dict(instance_metadata or {}),
            "vm_state": VmState.BUILDING,
            "task_state": TaskState.SPAWNING,
            "task_action": action,
        }
        values, moment = checked(InstanceRow, given), now()
        values.update(power_state=int(PowerState.NOSTATE), system_metadata={}, deleted=0)

        def add(session: Session) -> Instance:
            check_lease(session, lease)
            row = InstanceRow(**values, created_at=moment, updated_at=moment)
            session.add(row)
            session.flush()
            return instance_record(row)

        try:
            return self._write(add)
        except IntegrityError:
            if not self._exists(uuid):
                raise
        raise InstanceExists(uuid)

    def get_instance(self, uuid: str, *, include_deleted: bool = False) -> Instance:
        """The instance with this uuid. InstanceNotFound when there is none."""
        return self._read(
            lambda session: instance_record(find_instance_row(session, uuid, include_deleted=include_deleted))
        )

    def find_instance(self, name_or_uuid: str) -> Instance:
        """The instance that an operator means: by uuid, else by display_name. Never a deleted one.

        InstanceNotFound when there is none, InstanceNameAmbiguous when several have the name.
        """
        return self._read(lambda session: _find(session, name_or_uuid))

    def list_instances(self, *, host: str | None = None) -> list[Instance]:
        """All instances that exist, or those of one host, in the order of their creation."""
        query = select(InstanceRow).where(InstanceRow.deleted == 0).order_by(InstanceRow.id)
        if host is not None:
            query = query.where(InstanceRow.host == searchable(host))
        return self._read(lambda session: [instance_record(row) for row in session.scalars(query)])

    # Turns

    def begin_task(
        self,
        uuid: str,
        task_state: str,
        *,
        vm_states: Collection[str] | None = None,
        action: int | None = None,
        lease: Lease | None = None,
    ) -> Instance:
        """Takes the instance's turn for a task: of all who try at the same time, one gets it.

        vm_states: the states in which the task is allowed; None for all. action: whose turn it is from now on. lease:
        under which the task is carried out.

        InstanceNotFound, InstanceBusy when another task has the turn, InstanceStateRefused, LeaseLost.
        """
        values = {**checked(InstanceRow, {"task_state": task_state, "task_action": action}), "updated_at": now()}
        swap = update(InstanceRow).where(
            InstanceRow.uuid == searchable(uuid), InstanceRow.deleted == 0, InstanceRow.task_state.is_(None)
        )
        if vm_states is not None:
            swap = swap.where(InstanceRow.vm_state.in_([plain(state) for state in vm_states]))

        def take(session: Session) -> Instance:
            check_lease(session, lease)
            if session.connection().execute(swap.values(values)).rowcount == 1:
                return instance_record(find_instance_row(session, uuid))
            row = find_instance_row(session, uuid, lock=True)
            if row.task_state is not None:
                raise InstanceBusy(uuid, row.task_state)
            if vm_states is not None and row.vm_state not in vm_states:
                raise InstanceStateRefused(uuid, row.vm_state, tuple(map(str, vm_states)))
            # Whoever had the turn let go between the two statements; the row is locked now, so it is ours.
            return set_columns(session, row, values)

        return self._write(take)

    def update_instance(self, uuid: str, *, action: int | None = None, **values: Any) -> Instance:
        """Sets columns of the instance. The turn stays as it is unless task_state is named.

        action: whose turn it must be.

        InstanceNotFound; TurnLost; TypeError for a name that is no column or is not for callers to set.
        """
        ready = settable(values)
        if "task_state" in ready and ready["task_state"] is None:
            ready["task_action"] = None
        return self._write(lambda session: set_columns(session, _held(session, uuid, action), ready))

    def end_task(self, uuid: str, *, action: int | None = None, **values: Any) -> Instance:
        """Gives the turn back and sets columns in the same step. Errors as for update_instance()."""
        if "task_state" in values:
            raise TypeError("end_task() gives the turn back: task_state cannot be set")
        return self.update_instance(uuid, action=action, task_state=None, **values)

    def set_states(self, uuid: str, *, when_idle: bool = True, as_of: datetime | None = None, **values: Any) -> bool:
        """Sets columns of an instance that exists and whose turn is free; False, and nothing happens, otherwise.

        For what is seen of a guest from outside: a running task knows better. when_idle: false to set them during a
        task as well. as_of: its updated_at when that was seen; whoever changed it since knows better, too. TypeError as
        for update_instance(), and for task_state.
        """
        if "task_state" in values:
            raise TypeError("set_states() leaves the turn alone: task_state cannot be set")
        change = update(InstanceRow).where(InstanceRow.uuid == searchable(uuid), InstanceRow.deleted == 0)
        if when_idle:
            change = change.where(InstanceRow.task_state.is_(None))
        if as_of is not None:
            change = change.where(InstanceRow.updated_at == as_of)
        change = change.values(settable(values))
        return self._write(lambda session: session.connection().execute(change).rowcount == 1)

    def delete_instance(self, uuid: str, *, action: int | None = None) -> None:
        """Marks the instance as deleted; its row stays for the record. InstanceNotFound when it already is.

        action: whose turn it must be, TurnLost otherwise.
        """
        moment = now()

        def mark(session: Session) -> None:
            row = _held(session, uuid, action)
            states = {"vm_state": VmState.DELETED.value, "task_state": None, "task_action": None, "deleted": row.id}
            times = {"deleted_at": moment, "terminated_at": moment, "updated_at": moment}
            set_columns(session, row, {**states, **times})

        self._write(mark)

    def _exists(self, uuid: str) -> bool:
        query = select(InstanceRow.id).where(InstanceRow.uuid == uuid)
        return self._read(lambda session: session.scalar(query)) is not None


def settable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Columns as they may be set, checked; TypeError for a name that is none or is not for callers to set."""
    unknown = sorted(values.keys() - SETTABLE)
    if unknown:
        raise TypeError(f"not a column that can be set: {', '.join(unknown)}")
    return {**checked(InstanceRow, values), "updated_at": now()}


def _held(session: Session, uuid: str, action: int | None) -> InstanceRow:
    """The row, locked; TurnLost unless the turn is the action's, if one is named."""
    row = find_instance_row(session, uuid, lock=True)
    if action is not None and row.task_action != action:
        raise TurnLost(uuid, action)
    return row


def _find(session: Session, name_or_uuid: str) -> Instance:
    with contextlib.suppress(InstanceNotFound):
        return instance_record(find_instance_row(session, name_or_uuid))
    query = select(InstanceRow).where(InstanceRow.display_name == searchable(name_or_uuid), InstanceRow.deleted == 0)
    # Compared once more: MariaDB ignores spaces at the end, and they may tell two instances apart.
    rows = [row for row in session.scalars(query) if row.display_name == name_or_uuid]
    if not rows:
        raise InstanceNotFound(name_or_uuid)
    if len(rows) > 1:
        raise InstanceNameAmbiguous(name_or_uuid)
    return instance_record(rows[0])
