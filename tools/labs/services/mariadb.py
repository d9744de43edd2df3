"""A MariaDB of a test's own."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from .contained import INSIDE, own_file
from .server import Server, program

_SETTINGS = (
    # First, and instead of this machine's own configuration.
    "--no-defaults",
    f"--datadir={INSIDE}/data",
    f"--tmpdir={INSIDE}",
)

_SERVER_SETTINGS = (
    *_SETTINGS,
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    f"--socket={INSIDE}/socket",
    f"--pid-file={INSIDE}/pid",
    f"--init-file={INSIDE}/init.sql",
    "--character-set-server=utf8mb4",
    "--innodb-buffer-pool-size=16M",
    "--innodb-log-file-size=8M",
)
"""Commits are flushed to the disk as by default: they are there after a kill."""

_INIT = """\
CREATE DATABASE IF NOT EXISTS xenward;
CREATE USER IF NOT EXISTS 'xenward'@'127.0.0.1' IDENTIFIED BY '{password}';
GRANT ALL ON *.* TO 'xenward'@'127.0.0.1';
"""


class MariaDB(Server):
    """The user `xenward` may do everything, with a random password; the database `xenward` is made empty."""

    user = "mysql"
    package = "mariadb-server"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._password = secrets.token_hex(16)
        own_file(self._directory / "init.sql", _INIT.format(password=self._password))
        install = program(self.package, "usr/bin/mariadb-install-db")
        # Only who is root on this machine or the server's own user is its root.
        self._prepare([install, *_SETTINGS, "--innodb-log-file-size=8M", "--skip-test-db"])
        self.start()

    @property
    def url(self) -> str:
        """SQLAlchemy's URL of the database."""
        return f"mysql+pymysql://xenward:{self._password}@127.0.0.1:{self.port}/xenward?charset=utf8mb4"

    def _command(self) -> Sequence[str]:
        return [program(self.package, "usr/sbin/mariadbd"), *_SERVER_SETTINGS, f"--port={self.port}"]

    def _log_in(self) -> None:
        timeouts = {"connect_timeout": 5, "read_timeout": 5}
        create_engine(self.url, poolclass=NullPool, connect_args=timeouts).connect().close()


@contextmanager
def private_mariadb(directory: Path) -> Iterator[MariaDB]:
    """A running MariaDB that is gone after the block. directory: an empty one. LabError when it cannot be had."""
    server = MariaDB(directory)
    try:
        yield server
    finally:
        server.kill()
