"""The agents inside instances, and the faults of instances."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from compute_driver.db.models import AgentRow, FaultRow
from compute_driver.db.records import Agent, Fault
from compute_driver.db.repository.base import RepositoryPart
from compute_driver.db.rows import agent_record, checked, clean, columns, find_instance_row, fitted, now, searchable


class Agents(RepositoryPart):
    """What is known of agents, and of what went wrong with instances."""

    def record_fault(self, uuid: str, *, code: str, message: str, request_id: str = "") -> None:
        """Records why an instance, be it deleted by now, went wrong. InstanceNotFound when it never was."""
        described = fitted(FaultRow, {"code": code, "message": message, "request_id": request_id})

        def add(session: Session) -> None:
            # Locked, so that it is not purged meanwhile.
            find_instance_row(session, uuid, include_deleted=True, lock=True)
            session.add(FaultRow(instance_uuid=uuid, created_at=now(), **described))

        self._write(add)

    def list_faults(self, uuid: str, *, limit: int = 100) -> list[Fault]:
        """The newest `limit` faults of an instance, the oldest of them first."""
        query = select(FaultRow).where(FaultRow.instance_uuid == searchable(uuid))
        newest = query.order_by(FaultRow.id.desc()).limit(limit)
        return self._read(lambda session: [Fault(**columns(row)) for row in session.scalars(newest)][::-1])

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
        values = {
            "features": [clean(feature) for feature in features],
            "clock_offset": clock_offset,
            "last_seen_at": last_seen_at or now(),
            **fitted(AgentRow, {"version": version, "protocol": protocol}),
            **checked(AgentRow, {"identity": identity, "key_id": key_id, "key_public": key_public, "guest": guest}),
        }

        def replace(session: Session) -> Agent:
            # Locked, so that two first words at the same time make one row and not an error.
            find_instance_row(session, uuid, lock=True)
            row = session.merge(AgentRow(instance_uuid=uuid, **values))
            session.flush()
            return agent_record(row)

        return self._write(replace)

    def delete_agent(self, uuid: str) -> None:
        """Forgets the agent of an instance, if one was heard of."""
        forget = delete(AgentRow).where(AgentRow.instance_uuid == searchable(uuid))

        def remove(session: Session) -> None:
            session.execute(forget)

        self._write(remove)

    def get_agent(self, uuid: str) -> Agent | None:
        """The agent of an instance, None when none was ever heard of."""

        def find(session: Session) -> Agent | None:
            row = session.get(AgentRow, searchable(uuid))
            return None if row is None else agent_record(row)

        return self._read(find)
