"""The tables as SQLAlchemy sees them. The migrations make them; a test holds the two against each other."""

# Without `from __future__ import annotations`: SQLAlchemy evaluates these, and Python 3.9 knows no `str | None`.

from datetime import datetime, timezone
from typing import Any, Optional

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    UniqueConstraint,
)
from sqlalchemy.dialects.mysql import DATETIME
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator, TypeEngine

MESSAGE_LENGTH = 1024
"""Characters of a message. An outcome's message is a sentence; what a guest adds to it is cut here."""

NAME_LENGTH = 255
"""Characters of names of all kinds, as in Nova's tables."""

UUID_LENGTH = 36
WORD_LENGTH = 64
"""Characters of what is chosen from a vocabulary (states, actions, codes of ours) and of request ids."""

CODE_LENGTH = 128
"""Characters of an error's code: `xenserver_` and a XenAPI code, the longest of which has 60."""

Identity = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts up by itself only in a column that is called INTEGER; it holds 64 bits there all the same."""

# utf8mb4_bin: MariaDB's own choice of collation would find `Web` under the name `web`.
TABLE_OPTIONS = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC with microseconds: aware in Python, in the database whatever keeps both best."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: Optional[datetime], dialect: Dialect) -> Optional[datetime]:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a time zone cannot be stored")
        moment = value.astimezone(timezone.utc)
        return moment if dialect.name == "postgresql" else moment.replace(tzinfo=None)

    def process_result_value(self, value: Optional[datetime], dialect: Dialect) -> Optional[datetime]:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)


class Base(DeclarativeBase):
    """The root of the tables; its metadata names every constraint, so that a migration can drop it."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )


class InstanceRow(Base):
    """One guest, from the order to build it until after its end: a deleted one stays as a row."""

    __tablename__ = "instances"
    __table_args__ = (
        UniqueConstraint("uuid"),
        Index(None, "host", "deleted"),
        Index(None, "display_name", "deleted"),
        TABLE_OPTIONS,
    )

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    uuid: Mapped[str] = mapped_column(String(UUID_LENGTH))
    display_name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    host: Mapped[str] = mapped_column(String(NAME_LENGTH))
    vm_state: Mapped[str] = mapped_column(String(WORD_LENGTH))
    task_state: Mapped[Optional[str]] = mapped_column(String(WORD_LENGTH))
    power_state: Mapped[int] = mapped_column(Integer)
    memory_mb: Mapped[int] = mapped_column(Integer)
    vcpus: Mapped[int] = mapped_column(Integer)
    root_gb: Mapped[int] = mapped_column(Integer)
    image_ref: Mapped[str] = mapped_column(String(NAME_LENGTH))
    instance_metadata: Mapped[dict[str, Any]] = mapped_column(JSON)
    system_metadata: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    launched_at: Mapped[Optional[datetime]] = mapped_column(UtcDateTime)
    terminated_at: Mapped[Optional[datetime]] = mapped_column(UtcDateTime)
    deleted: Mapped[int] = mapped_column(Identity)
    """0 while it exists, its own id afterwards: Nova's way, which lets a key over (x, deleted) be unique."""
    deleted_at: Mapped[Optional[datetime]] = mapped_column(UtcDateTime)


class ActionRow(Base):
    """The audit trail: one row for each thing that was asked, and one for each step of it. Never its arguments.

    Without a foreign key: what was asked of an instance is recorded before the instance has a row, and also when
    it never gets one.
    """

    __tablename__ = "instance_actions"
    __table_args__ = (
        Index(None, "instance_uuid", "id"),
        Index(None, "request_id"),
        Index(None, "host", "finished_at"),
        TABLE_OPTIONS,
    )

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    instance_uuid: Mapped[Optional[str]] = mapped_column(String(UUID_LENGTH))
    target: Mapped[str] = mapped_column(String(NAME_LENGTH))
    action: Mapped[str] = mapped_column(String(WORD_LENGTH))
    step: Mapped[Optional[str]] = mapped_column(String(WORD_LENGTH))
    request_id: Mapped[str] = mapped_column(String(WORD_LENGTH))
    user: Mapped[str] = mapped_column(String(NAME_LENGTH))
    host: Mapped[str] = mapped_column(String(NAME_LENGTH))
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[Optional[datetime]] = mapped_column(UtcDateTime)
    outcome: Mapped[Optional[str]] = mapped_column(String(WORD_LENGTH))
    code: Mapped[str] = mapped_column(String(CODE_LENGTH))
    message: Mapped[str] = mapped_column(String(MESSAGE_LENGTH))
    seconds: Mapped[Optional[float]] = mapped_column(Double)


class FaultRow(Base):
    """Why an instance is in error, for those who look at the instance and not at its actions."""

    __tablename__ = "instance_faults"
    __table_args__ = (Index(None, "instance_uuid", "id"), TABLE_OPTIONS)

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    instance_uuid: Mapped[str] = mapped_column(String(UUID_LENGTH), ForeignKey("instances.uuid"))
    code: Mapped[str] = mapped_column(String(CODE_LENGTH))
    message: Mapped[str] = mapped_column(String(MESSAGE_LENGTH))
    request_id: Mapped[str] = mapped_column(String(WORD_LENGTH))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class AgentRow(Base):
    """What is known of the agent inside an instance. Keys and identity are public halves, in base64."""

    __tablename__ = "agents"
    __table_args__ = (TABLE_OPTIONS,)

    instance_uuid: Mapped[str] = mapped_column(String(UUID_LENGTH), ForeignKey("instances.uuid"), primary_key=True)
    version: Mapped[str] = mapped_column(String(WORD_LENGTH))
    features: Mapped[list[str]] = mapped_column(JSON)
    protocol: Mapped[str] = mapped_column(String(WORD_LENGTH))
    identity: Mapped[Optional[str]] = mapped_column(String(WORD_LENGTH))
    key_id: Mapped[Optional[str]] = mapped_column(String(WORD_LENGTH))
    key_public: Mapped[Optional[str]] = mapped_column(String(WORD_LENGTH))
    clock_offset: Mapped[int] = mapped_column(Integer)
    guest: Mapped[str] = mapped_column(String(WORD_LENGTH))
    last_seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
