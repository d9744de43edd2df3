"""The one way to the database: every question and every change that the rest of xenward needs, and no other.

Each method is one transaction, committed when it returns, so that what is said to be recorded is. What comes back
are plain records. Threads may share a Repository.

Every method raises DatabaseUnavailable when the database is away. Text that describes (messages, codes, who and
where) is cut to its column and cleaned; text that identifies (uuid, names, states) and does not fit is a ValueError.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from agent_protocol.outcomes import Outcome
from compute_driver.db.engine import for_writing, open_engine, unavailability
from compute_driver.db.models import ActionRow, AgentRow, FaultRow, InstanceRow
from compute_driver.db.records import Action, Agent, Fault, Instance
from compute_driver.db.rows import (
    SETTABLE,
    action_record,
    agent_record,
    checked,
    clean,
    columns,
    find_instance_row,
    fitted,
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
)
from compute_driver.states import PowerState, TaskState, VmState


class Repository:
    """The database behind `url`, whose tables compute_driver.db.migrate has made.

    url: see compute_driver.db.engine.open_engine, with its errors.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url)
        self._writing_engine = for_writing(self._engine)

    def close(self) -> None:
        """Gives the connections back. The repository opens new ones when it is used again."""
        self._engine.dispose()

    # Instances

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
    ) -> Instance:
        """A new instance, building and spawning: its turn belongs to the caller. InstanceExists for a used uuid.

        memory_mb in MiB, root_gb in GiB, instance_metadata: anything that JSON holds.
        """
        moment = now()
        given = {
            "uuid": uuid,
            "display_name": display_name,
            "host": host,
            "memory_mb": memory_mb,
            "vcpus": vcpus,
            "root_gb": root_gb,
            "image_ref": image_ref,
            "instance_metadata": dict(instance_metadata or {}),
            "vm_state": VmState.BUILDING,
            "task_state": TaskState.SPAWNING,
        }
        row = InstanceRow(
            **checked(InstanceRow, given),
            power_state=int(PowerState.NOSTATE),
            system_metadata={},
            created_at=moment,
            updated_at=moment,
            deleted=0,
        )
        try:
            with self._writing() as session:
                session.add(row)
                session.flush()
                return instance_record(row)
        except IntegrityError:
            if not self._exists(uuid):
                raise
        raise InstanceExists(uuid)

    def get_instance(self, uuid: str, *, include_deleted: bool = False) -> Instance:
        """The instance with this uuid. InstanceNotFound when there is none."""
        with self._reading() as session:
            return instance_record(find_instance_row(session, uuid, include_deleted=include_deleted))

    def find_instance(self, name_or_uuid: str) -> Instance:
        """The instance that an operator means: by uuid, else by display_name. Never a deleted one.

        InstanceNotFound when there is none, InstanceNameAmbiguous when several have the name.
        """
        with self._reading() as session:
            with contextlib.suppress(InstanceNotFound):
                return instance_record(find_instance_row(session, name_or_uuid))
            query = select(InstanceRow).where(
                InstanceRow.display_name == searchable(name_or_uuid), InstanceRow.deleted == 0
            )
            # Compared once more: MariaDB ignores spaces at the end, and they may tell two instances apart.
            rows = [row for row in session.scalars(query) if row.display_name == name_or_uuid]
            if not rows:
                raise InstanceNotFound(name_or_uuid)
            if len(rows) > 1:
                raise InstanceNameAmbiguous(name_or_uuid)
            return instance_record(rows[0])

    def list_instances(self, *, host: str | None = None) -> list[Instance]:
        """All instances that exist, or those of one host, in the order of their creation."""
        query = select(InstanceRow).where(InstanceRow.deleted == 0).order_by(InstanceRow.id)
        if host is not None:
            query = query.where(InstanceRow.host == searchable(host))
        with self._reading() as session:
            return [instance_record(row) for row in session.scalars(query)]

    def begin_task(self, uuid: str, task_state: str, *, vm_states: Collection[str] | None = None) -> Instance:
        """Takes the instance's turn for a task: of all who try at the same time, one gets it.

        vm_states: the states in which the task is allowed; None for all.

        InstanceNotFound, InstanceBusy when another task has the turn, InstanceStateRefused.
        """
        values = {**checked(InstanceRow, {"task_state": task_state}), "updated_at": now()}
        swap = update(InstanceRow).where(
            InstanceRow.uuid == searchable(uuid), InstanceRow.deleted == 0, InstanceRow.task_state.is_(None)
        )
        if vm_states is not None:
            swap = swap.where(InstanceRow.vm_state.in_([plain(state) for state in vm_states]))
        with self._writing() as session:
            if session.connection().execute(swap.values(values)).rowcount == 1:
                return instance_record(find_instance_row(session, uuid))
            row = find_instance_row(session, uuid, lock=True)
            if row.task_state is not None:
                raise InstanceBusy(uuid, row.task_state)
            if vm_states is not None and row.vm_state not in vm_states:
                raise InstanceStateRefused(uuid, row.vm_state, tuple(map(str, vm_states)))
            # Whoever had the turn let go between the two statements; the row is locked now, so it is ours.
            return set_columns(session, row, values)

    def update_instance(self, uuid: str, **values: Any) -> Instance:
        """Sets columns of the instance. The turn stays as it is unless task_state is named.

        InstanceNotFound; TypeError for a name that is no column or is not for callers to set.
        """
        unknown = sorted(values.keys() - SETTABLE)
        if unknown:
            raise TypeError(f"not a column that can be set: {', '.join(unknown)}")
        ready = checked(InstanceRow, values)
        with self._writing() as session:
            return set_columns(session, find_instance_row(session, uuid, lock=True), {**ready, "updated_at": now()})

    def end_task(self, uuid: str, **values: Any) -> Instance:
        """Gives the turn back and sets columns in the same step. Errors as for update_instance()."""
        if "task_state" in values:
            raise TypeError("end_task() gives the turn back: task_state cannot be set")
        return self.update_instance(uuid, task_state=None, **values)

    def delete_instance(self, uuid: str) -> None:
        """Marks the instance as deleted; its row stays for the record. InstanceNotFound when it already is."""
        moment = now()
        with self._writing() as session:
            row = find_instance_row(session, uuid, lock=True)
            states = {"vm_state": VmState.DELETED.value, "task_state": None, "deleted": row.id}
            times = {"deleted_at": moment, "terminated_at": moment, "updated_at": moment}
            set_columns(session, row, {**states, **times})

    # Actions

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
    ) -> int:
        """Records that something is about to be done, before it is: committed on return. Its number for finish_action.

        target: the name or uuid that was asked for. step: the part of the action that this row stands for; it
        carries the action's request_id.
        """
        described = {"target": target, "user": user, "host": host, "request_id": request_id}
        row = ActionRow(
            **fitted(ActionRow, {**described, "action": action, "step": step}),
            **checked(ActionRow, {"instance_uuid": instance_uuid}),
            started_at=now(),
            code="",
            message="",
        )
        with self._writing() as session:
            session.add(row)
            session.flush()
            return row.id

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
        """Records how an action ended. RuntimeError when it has ended before or was never started.

        seconds: how long it took, by a monotonic clock. instance_uuid: which instance it was about, if that came to
        light meanwhile. message: no secrets.
        """
        values: dict[str, Any] = {"finished_at": now(), "outcome": Outcome(outcome).value, "seconds": float(seconds)}
        values.update(fitted(ActionRow, {"code": code, "message": message}))
        if instance_uuid is not None:
            values.update(checked(ActionRow, {"instance_uuid": instance_uuid}))
        finish = update(ActionRow).where(ActionRow.id == action_id, ActionRow.finished_at.is_(None)).values(values)
        with self._writing() as session:
            if session.connection().execute(finish).rowcount != 1:
                raise RuntimeError(f"action {action_id} is not in flight: it has ended, or was never started")

    def list_actions(
        self, *, instance_uuid: str | None = None, request_id: str | None = None, limit: int = 100
    ) -> list[Action]:
        """The newest `limit` actions and steps, of an instance, a request or all; the oldest of them first."""
        query = select(ActionRow).order_by(ActionRow.id.desc()).limit(limit)
        if instance_uuid is not None:
            query = query.where(ActionRow.instance_uuid == searchable(instance_uuid))
        if request_id is not None:
            query = query.where(ActionRow.request_id == searchable(request_id))
        with self._reading() as session:
            return [action_record(row) for row in session.scalars(query)][::-1]

    def unfinished_actions(self, host: str) -> list[Action]:
        """What a service has begun and not ended, oldest first: at its start, what the last run left in flight."""
        query = select(ActionRow).where(ActionRow.host == searchable(host), ActionRow.finished_at.is_(None))
        with self._reading() as session:
            return [action_record(row) for row in session.scalars(query.order_by(ActionRow.id))]

    # Faults and agents

    def record_fault(self, uuid: str, *, code: str, message: str, request_id: str = "") -> None:
        """Records why an instance, be it deleted by now, went wrong. InstanceNotFound when it never was."""
        described = fitted(FaultRow, {"code": code, "message": message, "request_id": request_id})
        with self._writing() as session:
            find_instance_row(session, uuid, include_deleted=True)
            session.add(FaultRow(instance_uuid=uuid, created_at=now(), **described))

    def list_faults(self, uuid: str, *, limit: int = 100) -> list[Fault]:
        """The newest `limit` faults of an instance, the oldest of them first."""
        query = select(FaultRow).where(FaultRow.instance_uuid == searchable(uuid))
        with self._reading() as session:
            rows = session.scalars(query.order_by(FaultRow.id.desc()).limit(limit))
            return [Fault(**columns(row)) for row in rows][::-1]

    def save_agent(
        self,
        uuid: str,
        *,
        version: str,
        features: Sequence[str],
        protocol: str,
        identity: str | None = None,
        key_id: str | None = None,
        key_public: str | None = None,
        clock_offset: int = 0,
        guest: str = "",
        last_seen_at: datetime | None = None,
    ) -> Agent:
        """Records what is known of an instance's agent, in place of what was. InstanceNotFound.

        protocol: the protocol it was spoken to in, such as `sealed`. identity and the following: as in Agent.
        last_seen_at: an aware time; now by default.
        """
        described = fitted(AgentRow, {"version": version, "protocol": protocol})
        with self._writing() as session:
            # Locked, so that two first words at the same time make one row and not an error.
            find_instance_row(session, uuid, lock=True)
            row = session.merge(
                AgentRow(
                    instance_uuid=uuid,
                    features=[clean(feature) for feature in features],
                    clock_offset=clock_offset,
                    last_seen_at=last_seen_at or now(),
                    **described,
                    **checked(AgentRow, {"identity": identity, "key_id": key_id, "key_public": key_public}),
                    **checked(AgentRow, {"guest": guest}),
                )
            )
            session.flush()
            return agent_record(row)

    def delete_agent(self, uuid: str) -> None:
        """Forgets the agent of an instance, if one was heard of."""
        with self._writing() as session:
            session.execute(delete(AgentRow).where(AgentRow.instance_uuid == searchable(uuid)))

    def get_agent(self, uuid: str) -> Agent | None:
        """The agent of an instance, None when none was ever heard of."""
        with self._reading() as session:
            row = session.get(AgentRow, searchable(uuid))
            return None if row is None else agent_record(row)

    # Transactions

    def _exists(self, uuid: str) -> bool:
        with self._reading() as session:
            return session.scalar(select(InstanceRow.id).where(InstanceRow.uuid == uuid)) is not None

    def _reading(self) -> contextlib.AbstractContextManager[Session]:
        return self._session(self._engine)

    def _writing(self) -> contextlib.AbstractContextManager[Session]:
        return self._session(self._writing_engine)

    @contextlib.contextmanager
    def _session(self, engine: Engine) -> Iterator[Session]:
        with unavailability(engine), Session(engine, expire_on_commit=False) as session, session.begin():
            yield session
