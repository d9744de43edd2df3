"""What all tables share: lengths, types, and the root that they hang on."""

# Without `from __future__ import annotations`, here and in the tables: SQLAlchemy evaluates annotations, and Python 3.9
# knows no `str | None`.

from datetime import datetime, timezone
from typing import Any, Optional

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, MetaData
from sqlalchemy.dialects.mysql import DATETIME
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator, TypeEngine

MESSAGE_LENGTH = 1024
"""Characters of a message. An outcome's message is a sentence; what a guest adds to it is cut here."""

NAME_LENGTH = 255
"""Characters of names of all kinds, as in Nova's tables."""

UUID_LENGTH = 36
WORD_LENGTH = 64
"""Characters of what is chosen from a vocabulary (states, actions, codes of ours), and of ids of the cloud."""

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
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )
