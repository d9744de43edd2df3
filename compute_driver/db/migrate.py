"""Brings the tables of a database to a revision: once, even when several processes try at the same time.

Alembic is driven from here alone: no alembic.ini, no output, no set-up of logging. The revisions are in migrations/.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine

from compute_driver.db.engine import for_writing, open_engine, unavailability
from compute_driver.errors import DatabaseUnavailable

LOCK_SECONDS = 300
"""How long to wait for another process that is migrating the same server. SQLite waits as for any writer."""

_ADVISORY_LOCK = 0x78656E77
"""The number of our advisory lock in PostgreSQL, where it counts within one database: `xenw`."""


def upgrade(url: str) -> None:
    """Makes the tables, or brings them to the newest revision; nothing happens when they are.

    Start services afterwards. ValueError for a URL that cannot be used; DatabaseUnavailable when the database is
    away or another process is migrating for longer than LOCK_SECONDS.
    """
    with _connected(url) as connection:
        command.upgrade(configuration(connection), "head")


def downgrade(url: str, revision: str) -> None:
    """Goes back to `revision`; `base` drops every table with all it holds. Errors as for upgrade()."""
    with _connected(url) as connection:
        command.downgrade(configuration(connection), revision)


def current(url: str) -> str | None:
    """The revision of the tables, None before the first upgrade(). Errors as for upgrade()."""
    with _opened(url) as engine, engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def configuration(connection: Connection) -> Config:
    """What Alembic's commands need, for work on `connection`. For `alembic.command.revision` when developing."""
    config = Config(stdout=io.StringIO())
    # Doubled, because Alembic's configuration takes a single percent sign for the start of a variable.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


@contextlib.contextmanager
def _connected(url: str) -> Iterator[Connection]:
    """A connection within a transaction, alone with the tables until the end of the block."""
    # Without foreign keys: SQLite alters a table by replacing it, which others that refer to it would forbid.
    with _opened(url, foreign_keys=False) as engine, for_writing(engine).begin() as connection, _locked(connection):
        yield connection
        _check_references(connection)


def _check_references(connection: Connection) -> None:
    """SQLite did not watch over foreign keys meanwhile: RuntimeError, and nothing has changed, if one leads nowhere."""
    if connection.dialect.name != "sqlite":
        return
    broken = {row[0] for row in connection.execute(text("PRAGMA foreign_key_check"))}
    if broken:
        raise RuntimeError(f"the migration would leave rows that refer to nothing in: {', '.join(sorted(broken))}")


@contextlib.contextmanager
def _opened(url: str, *, foreign_keys: bool = True) -> Iterator[Engine]:
    engine = open_engine(url, foreign_keys=foreign_keys)
    try:
        with unavailability(engine):
            yield engine
    finally:
        engine.dispose()


@contextlib.contextmanager
def _locked(connection: Connection) -> Iterator[None]:
    """Holds the lock of the database's own kind. SQLite needs none beyond the transaction, which is a writer's."""
    dialect = connection.dialect.name
    if dialect == "postgresql":
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _ADVISORY_LOCK})
    if dialect not in ("mysql", "mariadb"):
        yield
        return
    # Names of locks are shared by all databases of the server and hold 64 characters: hence the digest. The lock
    # belongs to the connection, not to the transaction, which ends with every change of a table.
    got = connection.execute(
        text("SELECT GET_LOCK(CONCAT('xenward-', MD5(DATABASE())), :seconds)"), {"seconds": LOCK_SECONDS}
    )
    if got.scalar() != 1:
        raise DatabaseUnavailable(f"{dialect}, another process is migrating it")
    try:
        yield
    finally:
        connection.execute(text("SELECT RELEASE_LOCK(CONCAT('xenward-', MD5(DATABASE())))"))
