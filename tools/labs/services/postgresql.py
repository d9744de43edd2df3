"""A PostgreSQL of a test's own."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg

from .contained import INSIDE, own_file
from .server import Server, program

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # The default lies in /run.
    "unix_socket_directories": "",
    # POSIX's shared memory lies in /dev/shm and would outlast a kill.
    "dynamic_shared_memory_type": "mmap",
    "shared_buffers": "16MB",
}
"""fsync stays on: what was committed is there after a kill."""


class PostgreSQL(Server):
    """The superuser may log in with a random password; the database `xenward` is made empty."""

    user = "postgres"
    package = "postgresql"
    # A "fast" shutdown: sessions are ended, and nobody waits for them.
    stop_signal = signal.SIGINT

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._bin = Path(program(self.package, "usr/lib/postgresql/*/bin/postgres")).parent
        self._password = secrets.token_hex(16)
        own_file(self._directory / "password", self._password)
        where = [f"--pgdata={INSIDE}/data", f"--pwfile={INSIDE}/password", f"--username={self.user}"]
        how = ["--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--wal-segsize=1", "--no-sync"]
        self._prepare([str(self._bin / "initdb"), *where, *how])
        self.start()
        try:
            with self._connect("postgres") as connection:
                connection.execute("CREATE DATABASE xenward")
        except BaseException:
            self.kill()
            raise

    @property
    def url(self) -> str:
        """SQLAlchemy's URL of the database."""
        return f"postgresql+psycopg://{self.user}:{self._password}@127.0.0.1:{self.port}/xenward"

    def _command(self) -> Sequence[str]:
        settings = [f"--{name}={value}" for name, value in {**_SETTINGS, "port": str(self.port)}.items()]
        return [str(self._bin / "postgres"), "-D", f"{INSIDE}/data", *settings]

    def _log_in(self) -> None:
        self._connect("postgres").close()

    def _connect(self, database: str) -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=self.user,
            password=self._password,
            dbname=database,
            autocommit=True,
            connect_timeout=5,
        )


@contextmanager
def private_postgresql(directory: Path) -> Iterator[PostgreSQL]:
    """A running PostgreSQL that is gone after the block. directory: an empty one. LabError when it cannot be had."""
    server = PostgreSQL(directory)
    try:
        yield server
    finally:
        server.kill()
