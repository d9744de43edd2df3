"""How the three databases are opened, and how their troubles become DatabaseUnavailable.

What differs between SQLite, PostgreSQL and MariaDB in opening and in transactions is in this file and nowhere else.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from compute_driver.errors import DatabaseUnavailable

SQLITE_BUSY_SECONDS = 30.0
"""How long a writer of SQLite waits for another one. Our transactions last milliseconds."""

CONNECT_SECONDS = 10
"""How long to wait for a database server to take a connection. PyMySQL's default; psycopg has none."""

IDLE_SECONDS = 10
"""How long a transaction may wait for its own process before the server ends it: one that was stopped, or unplugged,
must not keep its locks from whoever takes over. Ours never wait for anything but the database."""

_DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}
"""The driver of a URL that names none: those we ship with, not SQLAlchemy's own choice, which changed in 2.1."""

_POSTGRESQL_VICTIMS = ("40001", "40P01")
"""serialization_failure and deadlock_detected (PostgreSQL's manual, appendix A)."""

_MARIADB_DEADLOCK, _MARIADB_LOCK_WAIT = 1213, 1205
"""ER_LOCK_DEADLOCK, after which InnoDB has rolled the transaction back; ER_LOCK_WAIT_TIMEOUT, after which it has rolled
back the last statement (innodb_rollback_on_timeout is off by default)."""

_WRITING = {"xenward_writing": True}


def open_engine(url: str, *, foreign_keys: bool = True) -> Engine:
    """The engine for a database URL. Connects to nothing yet, but makes a missing SQLite file and its folder.

    url: SQLAlchemy's form. `sqlite:///relative` or `sqlite:////absolute`, `postgresql://…` or `mysql://…`.
    foreign_keys: without them SQLite can replace a table that others refer to; the others heed them always.

    ValueError for a URL that cannot be used, without repeating it; DatabaseUnavailable when the SQLite file
    cannot be made.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed, foreign_keys)
    # Read committed, as PostgreSQL has it: MariaDB's default could show a transaction that waited for a lock the
    # rows of before, and locks gaps between rows too.
    return create_engine(
        parsed,
        pool_pre_ping=True,
        hide_parameters=True,
        isolation_level="READ COMMITTED",
        connect_args=_connect_arguments(parsed),
    )


def _connect_arguments(url: URL) -> dict[str, Any]:
    """What the URL does not say itself."""
    wanted: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS}
    if url.get_backend_name() == "postgresql":
        wanted["options"] = f"-c idle_in_transaction_session_timeout={IDLE_SECONDS}s"
    else:
        # In a comment that only MariaDB reads: MySQL has no such setting.
        wanted["init_command"] = f"SET @xenward = 1 /*M!100300 , SESSION idle_transaction_timeout = {IDLE_SECONDS} */"
    return {name: value for name, value in wanted.items() if name not in url.query}


def for_writing(engine: Engine) -> Engine:
    """The same engine and pool, whose transactions are going to write.

    SQLite must know at the start: a transaction that turns from reading to writing fails at once, without waiting,
    when another one wrote meanwhile.
    """
    return engine.execution_options(**_WRITING)


@contextlib.contextmanager
def unavailability(engine: Engine) -> Iterator[None]:
    """Turns failed and lost connections in the block into DatabaseUnavailable; other errors pass."""
    try:
        yield
    except PoolTimeoutError:
        raise DatabaseUnavailable(f"{engine.dialect.name}, no free connection") from None
    except DBAPIError as error:
        if not _is_unavailability(error):
            raise
        # From None: the driver's text, with host and user in it, is not to be printed along.
        raise DatabaseUnavailable(_reason(engine.dialect.name, error.orig)) from None


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError("the database URL cannot be parsed") from None
    if parsed.get_backend_name() not in ("sqlite", *_DRIVERS):
        raise ValueError("the database must be sqlite, postgresql, mysql or mariadb")
    return parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))


def _open_sqlite(url: URL, foreign_keys: bool) -> Engine:
    name = url.database or ""
    if not name or name == ":memory:" or name.startswith("file:"):
        raise ValueError("SQLite needs the path of a file: a database in memory would be another one in each thread")
    try:
        _make_private_file(Path(name))
    except OSError as error:
        raise DatabaseUnavailable(f"sqlite, {error.strerror}") from None
    engine = create_engine(url, hide_parameters=True, connect_args={"timeout": SQLITE_BUSY_SECONDS})
    event.listen(engine, "connect", functools.partial(_prepare_sqlite, foreign_keys))
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _make_private_file(path: Path) -> None:
    """Makes the file with mode 0600 (SQLite gives its companions the same) and its folder with 0700, when missing."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _prepare_sqlite(foreign_keys: bool, connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # Python's module keeps its hands off: _begin_sqlite begins transactions.
    connection.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")
    deadline = time.monotonic() + SQLITE_BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            # The change to WAL, once in a file's life, is the one step for which SQLite does not wait by itself.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    writing = connection.get_execution_options().get("xenward_writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def is_rolled_back(error: DBAPIError, *, in_commit: bool) -> bool:
    """Whether the database gave the transaction up for the sake of another one: for certain none of it happened."""
    if getattr(error.orig, "sqlstate", None) in _POSTGRESQL_VICTIMS:
        return True
    if isinstance(error.orig, sqlite3.OperationalError):
        return "database is locked" in str(error.orig)
    number = next(iter(getattr(error.orig, "args", ())), None)
    # A wait that took too long undoes the statement alone: the transaction is undone by who gives it up, not in commit.
    return number == _MARIADB_DEADLOCK or (number == _MARIADB_LOCK_WAIT and not in_commit)


def _is_unavailability(error: DBAPIError) -> bool:
    if error.connection_invalidated:
        return True
    # SQLite calls a missing table an operational error too; that one is for the reader of a traceback.
    missing = isinstance(error.orig, sqlite3.Error) and str(error.orig).startswith("no such")
    return isinstance(error, (OperationalError, InterfaceError)) and not missing


def _reason(dialect: str, original: BaseException | None) -> str:
    """Kind of database and the error's number, taken from where each driver keeps it; never its text."""
    candidates = (getattr(original, "sqlstate", None), getattr(original, "sqlite_errorname", None))
    number = next((found for found in candidates if isinstance(found, str)), None)
    if number is None:
        number = next((str(found) for found in getattr(original, "args", ())[:1] if isinstance(found, int)), None)
    return f"{dialect} {number}" if number else dialect
