"""Service processes and their signs of life, by the database's clock."""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from compute_driver.db.clock import DatabaseNow
from compute_driver.db.models import ServiceRow
from compute_driver.db.records import Service
from compute_driver.db.repository.base import RepositoryPart
from compute_driver.db.rows import checked, columns, fitted, searchable


class Services(RepositoryPart):
    """Which services run where."""

    def register_service(self, id: str, host: str, topic: str, version: str) -> Service:
        """Records that a service process has started; again under the same id, that it started anew.

        id: a uuid of this run. topic: what it listens to. version: of xenward.
        """
        values: dict[str, Any] = {
            **checked(ServiceRow, {"host": host, "topic": topic}),
            **fitted(ServiceRow, {"version": version}),
            "started_at": DatabaseNow(),
            "last_seen_at": DatabaseNow(),
            "stopped_at": None,
        }
        checked(ServiceRow, {"id": id})
        again = update(ServiceRow).where(ServiceRow.id == id).values(values)

        def replace(session: Session) -> Service:
            if session.connection().execute(again).rowcount != 1:
                session.execute(insert(ServiceRow).values(id=id, **values))
            return _services(session, id)[0]

        return self._write(replace)

    def beat_service(self, id: str) -> bool:
        """The service lives. False when it is not registered, or not any more, or was stopped."""
        return self._mark(id, last_seen_at=DatabaseNow())

    def stop_service(self, id: str) -> None:
        """The service ends by itself. Nothing happens when it has already, or is not registered."""
        self._mark(id, last_seen_at=DatabaseNow(), stopped_at=DatabaseNow())

    def list_services(self) -> list[Service]:
        """Every run of a service, the oldest first, those that ended as well."""
        return self._read(_services)

    def _mark(self, id: str, **values: Any) -> bool:
        running = update(ServiceRow).where(ServiceRow.id == searchable(id), ServiceRow.stopped_at.is_(None))
        return self._write(lambda session: session.connection().execute(running.values(values)).rowcount == 1)


def _services(session: Session, id: str | None = None) -> list[Service]:
    query = select(ServiceRow, DatabaseNow()).order_by(ServiceRow.started_at, ServiceRow.id)
    if id is not None:
        query = query.where(ServiceRow.id == id)
    return [
        Service(**columns(row), seconds_silent=max(0.0, (moment - row.last_seen_at).total_seconds()))
        for row, moment in session.execute(query)
    ]
