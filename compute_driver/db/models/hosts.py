"""Hosts and who acts on them: leases, sessions with the hypervisor, service processes."""

from datetime import datetime
from typing import Optional

from sqlalchemy import BigInteger, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from compute_driver.db.models.base import NAME_LENGTH, TABLE_OPTIONS, UUID_LENGTH, Base, Identity, UtcDateTime


class HostRow(Base):
    """One host and its lease: who alone may act on its hypervisor, and until when by the database's clock."""

    __tablename__ = "hosts"
    __table_args__ = (TABLE_OPTIONS,)

    name: Mapped[str] = mapped_column(String(NAME_LENGTH), primary_key=True)
    holder: Mapped[str] = mapped_column(String(NAME_LENGTH))
    """Empty while nobody has it."""
    epoch: Mapped[int] = mapped_column(BigInteger)
    """How often it was acquired."""
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class SessionRow(Base):
    """A session with the hypervisor that was opened under a lease, and that nobody has closed for certain."""

    __tablename__ = "hypervisor_sessions"
    __table_args__ = (Index(None, "host", "epoch"), TABLE_OPTIONS)

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    host: Mapped[str] = mapped_column(String(NAME_LENGTH))
    epoch: Mapped[int] = mapped_column(BigInteger)
    session: Mapped[str] = mapped_column(String(NAME_LENGTH))
    """Its public id, which opens nothing."""
    opened_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ServiceRow(Base):
    """One run of a service process."""

    __tablename__ = "services"
    __table_args__ = (Index(None, "last_seen_at"), TABLE_OPTIONS)

    id: Mapped[str] = mapped_column(String(UUID_LENGTH), primary_key=True)
    host: Mapped[str] = mapped_column(String(NAME_LENGTH))
    topic: Mapped[str] = mapped_column(String(NAME_LENGTH))
    version: Mapped[str] = mapped_column(String(NAME_LENGTH))
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
    stopped_at: Mapped[Optional[datetime]] = mapped_column(UtcDateTime)
