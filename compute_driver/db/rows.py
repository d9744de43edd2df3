"""Between the repository and its tables: values made fit for columns, rows found, and rows turned into records."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import String, select
from sqlalchemy.orm import Session

from agent_protocol.outcomes import Outcome
from compute_driver.db.models import ActionRow, AgentRow, Base, InstanceRow
from compute_driver.db.records import Action, Agent, Instance
from compute_driver.errors import InstanceNotFound

_OWN_COLUMNS = frozenset({"id", "uuid", "task_action", "created_at", "updated_at", "deleted", "deleted_at"})
"""Columns of an instance that the repository itself keeps; update_instance takes the others."""

SETTABLE = frozenset(InstanceRow.__table__.columns.keys()) - _OWN_COLUMNS


def find_instance_row(session: Session, uuid: str, *, include_deleted: bool = False, lock: bool = False) -> InstanceRow:
    """The row, as it is now; locked until the end of the transaction if asked. SQLite's writers are alone anyway."""
    query = select(InstanceRow).where(InstanceRow.uuid == searchable(uuid))
    if not include_deleted:
        query = query.where(InstanceRow.deleted == 0)
    row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise InstanceNotFound(uuid)
    return row


def set_columns(session: Session, row: InstanceRow, values: Mapping[str, Any]) -> Instance:
    """Writes values, checked before, to the row."""
    for name, value in values.items():
        setattr(row, name, value)
    session.flush()
    return instance_record(row)


def now() -> datetime:
    """The moment, in UTC."""
    return datetime.now(timezone.utc)


def plain(value: Any) -> Any:
    """A plain word or number in place of an enum's member: database drivers disagree about those."""
    return value.value if isinstance(value, enum.Enum) else value


def clean(text: str) -> str:
    """`text` as every database takes it: PostgreSQL holds no NUL, and none holds half a surrogate pair."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def searchable(text: str) -> str:
    """What to look for in place of `text`, which an operator may have typed: an impossible name is merely not found."""
    return clean(plain(text))


def checked(row: type[Base], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values for columns that identify or decide. ValueError for text that would not come back as it went in."""
    ready = {name: plain(value) for name, value in values.items()}
    for name, value in ready.items():
        limit = _length(row, name)
        if isinstance(value, str) and limit is not None and (len(value) > limit or clean(value) != value):
            raise ValueError(f"{name} must be text of at most {limit} characters")
    return ready


def fitted(row: type[Base], values: Mapping[str, str | None]) -> dict[str, str | None]:
    """Values for text columns that describe, cleaned and cut to their lengths in characters."""
    return {
        name: None if value is None else clean(plain(value))[: _length(row, name)] for name, value in values.items()
    }


def _length(row: type[Base], column: str) -> int | None:
    kind = row.__table__.columns[column].type
    return kind.length if isinstance(kind, String) else None


def columns(row: Base) -> dict[str, Any]:
    """Every column of a row under its name, as the records call them too."""
    return {column.key: getattr(row, column.key) for column in row.__table__.columns}


def instance_record(row: InstanceRow) -> Instance:
    """What leaves the repository in place of the row; likewise below."""
    return Instance(**columns(row))


def action_record(row: ActionRow) -> Action:
    found = Action(**columns(row))
    return dataclasses.replace(found, outcome=None if row.outcome is None else Outcome(row.outcome))


def agent_record(row: AgentRow) -> Agent:
    return Agent(**{**columns(row), "features": tuple(row.features)})
