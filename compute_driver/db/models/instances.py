"""Instances, and what belongs to them: why they went wrong, their agents, where they went."""

from datetime import datetime
from typing import Any, Optional

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from compute_driver.db.models.base import (
    CODE_LENGTH,
    MESSAGE_LENGTH,
    NAME_LENGTH,
    TABLE_OPTIONS,
    UUID_LENGTH,
    WORD_LENGTH,
    Base,
    Identity,
    UtcDateTime,
)


class InstanceRow(Base):
    """One guest, from the order to build it until after its end: a deleted one stays as a row until it is purged."""

    __tablename__ = "instances"
    __table_args__ = (
        UniqueConstraint("uuid"),
        Index(None, "host", "deleted"),
        Index(None, "display_name", "deleted"),
        Index(None, "task_action"),
        TABLE_OPTIONS,
    )

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    uuid: Mapped[str] = mapped_column(String(UUID_LENGTH))
    display_name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    host: Mapped[str] = mapped_column(String(NAME_LENGTH))
    node: Mapped[str] = mapped_column(String(NAME_LENGTH))
    """Where it runs within the pool; empty while it runs nowhere."""
    vm_state: Mapped[str] = mapped_column(String(WORD_LENGTH))
    task_state: Mapped[Optional[str]] = mapped_column(String(WORD_LENGTH))
    task_action: Mapped[Optional[int]] = mapped_column(BigInteger)
    """The action that holds the turn. No foreign key: an action may be purged when the turn was given back."""
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


class MigrationRow(Base):
    """One move of an instance to another node or another size, from its order to its end and after."""

    __tablename__ = "migrations"
    __table_args__ = (Index(None, "instance_uuid", "id"), TABLE_OPTIONS)

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    instance_uuid: Mapped[str] = mapped_column(String(UUID_LENGTH), ForeignKey("instances.uuid"))
    kind: Mapped[str] = mapped_column(String(WORD_LENGTH))
    status: Mapped[str] = mapped_column(String(WORD_LENGTH))
    source_node: Mapped[str] = mapped_column(String(NAME_LENGTH))
    dest_node: Mapped[str] = mapped_column(String(NAME_LENGTH))
    old_memory_mb: Mapped[int] = mapped_column(Integer)
    old_vcpus: Mapped[int] = mapped_column(Integer)
    old_root_gb: Mapped[int] = mapped_column(Integer)
    new_memory_mb: Mapped[int] = mapped_column(Integer)
    new_vcpus: Mapped[int] = mapped_column(Integer)
    new_root_gb: Mapped[int] = mapped_column(Integer)
    request_id: Mapped[str] = mapped_column(String(WORD_LENGTH))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
