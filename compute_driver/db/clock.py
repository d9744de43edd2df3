"""The database's own clock, which all services share: leases and signs of life go by it alone."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from compute_driver.db.models.base import UtcDateTime


class DatabaseNow(FunctionElement[datetime]):
    """The moment at which the database carries out the very statement, plus some seconds: an SQL expression.

    seconds: to add, at a resolution of 1 ms.
    """

    inherit_cache = True
    type = UtcDateTime()

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(literal(round(seconds * 1000)))


@compiles(DatabaseNow, "postgresql")
def _postgresql(element: DatabaseNow, compiler: SQLCompiler, **kw: Any) -> str:
    # Not now(), which is when the transaction began.
    return f"(clock_timestamp() + {compiler.process(element.clauses, **kw)} * interval '1 millisecond')"


@compiles(DatabaseNow, "mysql")
@compiles(DatabaseNow, "mariadb")
def _mariadb(element: DatabaseNow, compiler: SQLCompiler, **kw: Any) -> str:
    return f"(utc_timestamp(6) + INTERVAL ({compiler.process(element.clauses, **kw)} * 1000) MICROSECOND)"


@compiles(DatabaseNow, "sqlite")
def _sqlite(element: DatabaseNow, compiler: SQLCompiler, **kw: Any) -> str:
    # As text, as SQLAlchemy stores moments there, with microseconds: SQLite compares the characters.
    seconds = f"(({compiler.process(element.clauses, **kw)} / 1000.0) || ' seconds')"
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', {seconds}) || '000')"
