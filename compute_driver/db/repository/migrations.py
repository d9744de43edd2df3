"""Moves of instances to other nodes and sizes."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from compute_driver.db.models import MigrationRow
from compute_driver.db.records import ENDED_MIGRATIONS, MIGRATION_KINDS, Migration
from compute_driver.db.repository.base import RepositoryPart
from compute_driver.db.rows import checked, columns, find_instance_row, fitted, now, searchable

_SETTABLE = frozenset({"status", "dest_node"})


class Migrations(RepositoryPart):
    """Where instances came from and went to. Who begins one has the instance's turn."""

    def create_migration(
        self,
        *,
        instance_uuid: str,
        kind: str,
        status: str,
        source_node: str,
        dest_node: str = "",
        old_memory_mb: int,
        old_vcpus: int,
        old_root_gb: int,
        new_memory_mb: int,
        new_vcpus: int,
        new_root_gb: int,
        request_id: str = "",
    ) -> Migration:
        """Records a move before it begins.

        kind: one of MIGRATION_KINDS, a ValueError otherwise. dest_node: empty while it is not chosen. Sizes: MiB and
        GiB. InstanceNotFound.
        """
        if kind not in MIGRATION_KINDS:
            raise ValueError(f"a migration is one of {', '.join(sorted(MIGRATION_KINDS))}")
        given = {"kind": kind, "status": status, "source_node": source_node, "dest_node": dest_node}
        values = {
            **checked(MigrationRow, given),
            **fitted(MigrationRow, {"request_id": request_id}),
            "old_memory_mb": old_memory_mb,
            "old_vcpus": old_vcpus,
            "old_root_gb": old_root_gb,
            "new_memory_mb": new_memory_mb,
            "new_vcpus": new_vcpus,
            "new_root_gb": new_root_gb,
        }
        moment = now()

        def add(session: Session) -> Migration:
            find_instance_row(session, instance_uuid, lock=True)
            row = MigrationRow(instance_uuid=instance_uuid, created_at=moment, updated_at=moment, **values)
            session.add(row)
            session.flush()
            return Migration(**columns(row))

        return self._write(add)

    def set_migration(self, id: int, **values: Any) -> Migration:
        """Sets `status` or `dest_node`, or both. LookupError when there is no such migration; TypeError for others."""
        unknown = sorted(values.keys() - _SETTABLE)
        if unknown:
            raise TypeError(f"not a column of a migration that can be set: {', '.join(unknown)}")
        ready = {**checked(MigrationRow, values), "updated_at": now()}

        def change(session: Session) -> Migration:
            row = session.get(MigrationRow, id, with_for_update=True)
            if row is None:
                raise LookupError(f"there is no migration {id}")
            for name, value in ready.items():
                setattr(row, name, value)
            session.flush()
            return Migration(**columns(row))

        return self._write(change)

    def open_migration(self, instance_uuid: str) -> Migration | None:
        """The newest move of the instance that is not at its end (ENDED_MIGRATIONS); None when there is none."""
        query = (
            select(MigrationRow)
            .where(
                MigrationRow.instance_uuid == searchable(instance_uuid), MigrationRow.status.not_in(ENDED_MIGRATIONS)
            )
            .order_by(MigrationRow.id.desc())
            .limit(1)
        )

        def find(session: Session) -> Migration | None:
            row = session.scalar(query)
            return None if row is None else Migration(**columns(row))

        return self._read(find)
