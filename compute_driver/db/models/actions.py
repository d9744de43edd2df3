"""The audit trail."""

from datetime import datetime
from typing import Optional

from sqlalchemy import BigInteger, Double, Index, String, UniqueConstraint
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


class ActionRow(Base):
    """One row for each thing that was asked, and one for each step of it. Never its arguments.

    Without a foreign key: what was asked of an instance is recorded before the instance has a row, and also when
    it never gets one.
    """

    __tablename__ = "instance_actions"
    __table_args__ = (
        UniqueConstraint("order_id"),
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
    order_id: Mapped[Optional[str]] = mapped_column(String(WORD_LENGTH))
    """One per order of a caller, so that an order that is given twice is carried out once. Steps have none."""
    user: Mapped[str] = mapped_column(String(NAME_LENGTH))
    host: Mapped[str] = mapped_column(String(NAME_LENGTH))
    epoch: Mapped[int] = mapped_column(BigInteger)
    """Of the lease that it was done under; 0 without one."""
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[Optional[datetime]] = mapped_column(UtcDateTime)
    outcome: Mapped[Optional[str]] = mapped_column(String(WORD_LENGTH))
    code: Mapped[str] = mapped_column(String(CODE_LENGTH))
    message: Mapped[str] = mapped_column(String(MESSAGE_LENGTH))
    seconds: Mapped[Optional[float]] = mapped_column(Double)
