"""Databases for tests: a SQLite file, or a database of our own on this machine's PostgreSQL or MariaDB."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text

SERVERS = {
    "postgresql": ("postgresql+psycopg://postgres@127.0.0.1:5432/{}", "postgres", "", " WITH (FORCE)"),
    "mariadb": ("mysql+pymysql://root@127.0.0.1:3306/{}?charset=utf8mb4", "", " CHARACTER SET utf8mb4", ""),
}
"""For each: the URL of a database, one that always exists to connect to, how to make one, how to drop one."""


@contextmanager
def empty_database(kind: str, directory: Path) -> Iterator[str]:
    """The URL of an empty database that is gone afterwards. kind: `sqlite`, or a key of SERVERS."""
    if kind == "sqlite":
        yield f"sqlite:///{directory}/state/xenward.sqlite"
        return
    url, administrative, making, dropping = SERVERS[kind]
    name = f"xenward_test_{uuid.uuid4().hex[:12]}"
    server = create_engine(url.format(administrative), isolation_level="AUTOCOMMIT")
    try:
        with server.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}{making}"))
        try:
            yield url.format(name)
        finally:
            with server.connect() as connection:
                connection.execute(text(f"DROP DATABASE {name}{dropping}"))
    finally:
        server.dispose()
