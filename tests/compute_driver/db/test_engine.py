from __future__ import annotations

import os
import socket
import sqlite3
import stat
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from compute_driver.db import engine as opening
from compute_driver.db import migrate
from compute_driver.db.engine import open_engine
from compute_driver.db.repository import Repository
from compute_driver.errors import DatabaseUnavailable

PASSWORD, USER, DATABASE = (f"{word}5e0c1a6d94b7f283" for word in ("p", "u", "d"))
"""Made up at run time, so that a traceback's own source lines do not hold them."""


def everything_said(error: BaseException) -> str:
    """What any log, traceback or debugger of exceptions would show."""
    shown = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return " ".join([shown, str(error), repr(error), repr(error.args), repr(vars(error))])


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


CALLS: list[Callable[[str], Any]] = [
    lambda url: Repository(url).list_instances(),
    lambda url: Repository(url).start_action(action="a", target="t", request_id="r", user="u", host="h"),
    migrate.upgrade,
    migrate.current,
    lambda url: migrate.downgrade(url, "base"),
]


@pytest.mark.parametrize("kind", ["postgresql+psycopg", "mysql+pymysql", "postgresql", "mariadb"])
@pytest.mark.parametrize("call", CALLS)
def test_a_server_that_is_away_is_unavailable_and_no_secret_is_told(
    kind: str, call: Callable[[str], Any], closed_port: int
) -> None:
    with pytest.raises(DatabaseUnavailable) as caught:
        call(f"{kind}://{USER}:{PASSWORD}@127.0.0.1:{closed_port}/{DATABASE}")
    said = everything_said(caught.value)
    for secret in (PASSWORD, USER, DATABASE, f":{closed_port}", f"port {closed_port}"):
        assert secret not in said
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert str(caught.value).startswith("The database is unavailable (")


@pytest.mark.parametrize(
    "url", ["", "nonsense", f"postgresql://u:{PASSWORD}@h:{PASSWORD}/d", f"oracle://u:{PASSWORD}@h/d", "sqlite://"]
)
def test_a_url_that_cannot_be_used_is_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match=r"database|SQLite") as caught:
        open_engine(url)
    assert PASSWORD not in everything_said(caught.value)


@pytest.mark.parametrize("url", ["sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"])
def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="memory"):
        open_engine(url)


def test_a_lost_connection_is_unavailable(database_url: str) -> None:
    """The server ends the session in the middle of a transaction, as at its shutdown."""
    backend = make_url(database_url).get_backend_name()
    engine = open_engine(database_url)
    ask, kill = {
        "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({})"),
        "mysql": ("SELECT CONNECTION_ID()", "KILL {}"),
        "sqlite": ("SELECT 1", ""),
    }[backend]

    def lose() -> None:
        with opening.unavailability(engine), engine.connect() as connection:
            number = connection.execute(text(ask)).scalar()
            if not kill:
                raise sqlite_trouble(connection)
            with engine.connect() as other:
                other.execute(text(kill.format(number)))
            connection.execute(text("SELECT 1"))

    def sqlite_trouble(connection: Any) -> Exception:
        connection.execute(text("SELECT 1")).close()
        connection.connection.driver_connection.execute("PRAGMA busy_timeout = 0")
        with engine.connect().execution_options(xenward_writing=True) as holder:
            holder.execute(text("SELECT 1"))
            connection.execute(text("CREATE TABLE t (x INTEGER)"))
        return AssertionError("a second writer got in")

    with pytest.raises(DatabaseUnavailable) as caught:
        lose()
    assert caught.value.__cause__ is None
    # The next one gets a good connection.
    with opening.unavailability(engine), engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
    engine.dispose()


def test_a_missing_table_is_not_called_a_missing_database(database_url: str) -> None:
    repository = Repository(database_url)
    with pytest.raises(Exception, match="instances") as caught:
        repository.list_instances()
    assert not isinstance(caught.value, DatabaseUnavailable)
    repository.close()


def test_values_do_not_stand_in_errors(database_url: str) -> None:
    repository = Repository(database_url)
    with pytest.raises(Exception, match="instances") as caught:
        repository.get_instance("do-not-repeat-me")
    assert "do-not-repeat-me" not in str(caught.value)
    repository.close()


def test_the_sqlite_file_is_private_durable_and_strict(tmp_path: Path) -> None:
    path = tmp_path / "made" / "on demand" / "xenward.sqlite"
    before = os.umask(0)
    try:
        engine = open_engine(f"sqlite:///{path}")
    finally:
        os.umask(before)
    with engine.connect() as connection:
        settings = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "busy_timeout", "foreign_keys", "synchronous")
        ]
        assert settings == ["wal", 30000, 1, 2]
        connection.exec_driver_sql("CREATE TABLE t (x INTEGER)")
        connection.commit()
        modes = {stat.S_IMODE(found.stat().st_mode) for found in path.parent.iterdir()}
    engine.dispose()
    assert modes == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_writer_of_before_delays_the_change_to_wal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = sqlite3.connect(tmp_path / "x.sqlite", isolation_level=None)
    writer.execute("CREATE TABLE t (x INTEGER)")
    writer.execute("BEGIN IMMEDIATE")
    waits: list[float] = []

    def end_the_writer(seconds: float) -> None:
        waits.append(seconds)
        writer.close()

    monkeypatch.setattr(time, "sleep", end_the_writer)
    engine = open_engine(f"sqlite:///{tmp_path}/x.sqlite")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    engine.dispose()
    assert len(waits) == 1


def test_transactions_of_servers_see_what_others_committed(database_url: str) -> None:
    engine = open_engine(database_url)
    with engine.connect() as connection:
        expected = "SERIALIZABLE" if connection.dialect.name == "sqlite" else "READ COMMITTED"
        assert connection.get_isolation_level() == expected
    engine.dispose()


def test_an_existing_sqlite_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    made = sqlite3.connect(path)
    made.execute("CREATE TABLE t (x INTEGER)")
    made.close()
    engine = open_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM t").scalar() == 0
    engine.dispose()


def test_a_sqlite_file_that_cannot_be_made_or_read_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("this is no database, and long enough to be looked at as one")
    with pytest.raises(DatabaseUnavailable) as caught:
        open_engine(f"sqlite:///{tmp_path}/file/below.sqlite")
    assert str(tmp_path) not in everything_said(caught.value)
    with pytest.raises(DatabaseUnavailable):
        Repository(f"sqlite:///{tmp_path}").list_instances()
