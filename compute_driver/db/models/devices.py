"""What is attached to instances: volumes and network interfaces."""

from datetime import datetime
from typing import Any, Optional

from sqlalchemy import JSON, Boolean, ForeignKey, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from compute_driver.db.models.base import TABLE_OPTIONS, UUID_LENGTH, WORD_LENGTH, Base, Identity, UtcDateTime


class VolumeRow(Base):
    """A volume that is attached to an instance. `connection` holds no secrets."""

    __tablename__ = "block_device_mappings"
    __table_args__ = (UniqueConstraint("instance_uuid", "volume_id"), TABLE_OPTIONS)

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    instance_uuid: Mapped[str] = mapped_column(String(UUID_LENGTH), ForeignKey("instances.uuid"))
    volume_id: Mapped[str] = mapped_column(String(WORD_LENGTH))
    kind: Mapped[str] = mapped_column(String(WORD_LENGTH))
    connection: Mapped[dict[str, Any]] = mapped_column(JSON)
    device: Mapped[str] = mapped_column(String(WORD_LENGTH))
    boot_index: Mapped[Optional[int]] = mapped_column(Integer)
    read_only: Mapped[bool] = mapped_column(Boolean)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class InterfaceRow(Base):
    """A network interface of an instance. `description`: an Interface as plain data."""

    __tablename__ = "virtual_interfaces"
    __table_args__ = (UniqueConstraint("instance_uuid", "interface_id"), TABLE_OPTIONS)

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    instance_uuid: Mapped[str] = mapped_column(String(UUID_LENGTH), ForeignKey("instances.uuid"))
    interface_id: Mapped[str] = mapped_column(String(WORD_LENGTH))
    position: Mapped[int] = mapped_column(Integer)
    """The order of the devices, from 0."""
    description: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
