from __future__ import annotations

import io
import logging
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateTable

from compute_driver.db import migrate
from compute_driver.db.engine import open_engine
from compute_driver.db.models import Base
from compute_driver.db.repository import Repository

TABLES = {"instances", "instance_actions", "instance_faults", "agents"}

NEWEST = "0002"


def tables(url: str) -> set[str]:
    engine = open_engine(url)
    try:
        return set(inspect(engine).get_table_names()) - {"alembic_version"}
    finally:
        engine.dispose()


def test_up_down_and_up_again(database_url: str) -> None:
    assert migrate.current(database_url) is None
    migrate.upgrade(database_url)
    assert migrate.current(database_url) == NEWEST
    assert tables(database_url) == TABLES
    migrate.downgrade(database_url, "base")
    assert migrate.current(database_url) is None
    assert tables(database_url) == set()
    migrate.upgrade(database_url)
    migrate.upgrade(database_url)
    assert tables(database_url) == TABLES


SEALED_COLUMNS = {"identity", "key_id", "key_public", "clock_offset", "guest"}


def agent_rows(url: str) -> list[dict[str, Any]]:
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            return [dict(row) for row in connection.execute(text("SELECT * FROM agents")).mappings()]
    finally:
        engine.dispose()


def test_agents_that_were_known_before_the_sealed_protocol_stay_known(database_url: str) -> None:
    migrate.upgrade(database_url)
    repository = Repository(database_url)
    for number in (1, 2):
        name = f"uuid-{number}"
        repository.create_instance(uuid=name, display_name=name, host="here", memory_mb=64, vcpus=1, root_gb=1)
        told: dict[str, Any] = {
            "identity": "A" * 44,
            "key_id": "0123456789abcdef",
            "key_public": "B" * 44,
            "guest": "vm-uuid",
        }
        repository.save_agent(name, version="2.0", features=["password"], protocol="sealed", clock_offset=7, **told)
    repository.close()
    before = agent_rows(database_url)
    assert len(before) == 2

    migrate.downgrade(database_url, "0001")
    assert migrate.current(database_url) == "0001"
    older = agent_rows(database_url)
    assert older == [{k: v for k, v in row.items() if k not in SEALED_COLUMNS} for row in before]

    migrate.upgrade(database_url)
    added = {"identity": None, "key_id": None, "key_public": None, "clock_offset": 0, "guest": ""}
    assert agent_rows(database_url) == [{**row, **added} for row in older]
    # And they can be replaced by what is heard next.
    repository = Repository(database_url)
    agent = repository.save_agent("uuid-1", version="3", features=[], protocol="sealed", identity="C" * 44)
    assert repository.get_agent("uuid-1") == agent
    # The new columns have no default that could stand in for a forgotten value.
    with pytest.raises(DBAPIError, match="clock_offset"):
        forgetful(database_url)
    repository.delete_instance("uuid-2")
    repository.close()


def forgetful(url: str) -> None:
    engine = open_engine(url)
    try:
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM agents"))
            connection.execute(
                text(
                    "INSERT INTO agents (instance_uuid, version, features, protocol, last_seen_at)"
                    " VALUES ('uuid-1', '1', '[]', 'legacy', '2026-03-01 12:00:00')"
                )
            )
    finally:
        engine.dispose()


def test_the_migrations_make_what_the_models_say(database_url: str) -> None:
    migrate.upgrade(database_url)
    engine = open_engine(database_url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


def test_what_alembic_does_not_compare_is_as_it_should_be(database_url: str) -> None:
    migrate.upgrade(database_url)
    engine = open_engine(database_url)
    with engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            found = inspect(connection)
            assert found.get_pk_constraint(table.name)["constrained_columns"] == [c.name for c in table.primary_key]
            if connection.dialect.name == "mysql":
                statement = connection.execute(text(f"SHOW CREATE TABLE {table.name}")).one()[1]
                assert "ENGINE=InnoDB" in statement
                assert "utf8mb4_bin" in statement
                assert "datetime(6)" in statement
                assert "DATETIME(6)" in str(CreateTable(table).compile(connection))
                assert " datetime " not in statement
            if connection.dialect.name == "postgresql":
                kinds = connection.execute(
                    text("SELECT data_type FROM information_schema.columns WHERE table_name = :name"),
                    {"name": table.name},
                )
                assert "timestamp without time zone" not in set(kinds.scalars())
    engine.dispose()


def test_processes_at_the_same_time_make_one_migration(database_url: str) -> None:
    program = (
        "import sys\nfrom compute_driver.db import migrate\n"
        "print('ready', flush=True)\nsys.stdin.readline()\nmigrate.upgrade(sys.argv[1])"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, database_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert said == [("", "")] * 3
    assert tables(database_url) == TABLES
    assert migrate.current(database_url) == NEWEST


def test_a_failed_change_leaves_no_lock(database_url: str) -> None:
    migrate.upgrade(database_url)
    with pytest.raises(Exception, match="no-such-revision"):
        migrate.downgrade(database_url, "no-such-revision")
    migrate.downgrade(database_url, "base")
    assert tables(database_url) == set()


def test_it_is_silent_and_leaves_logging_alone(tmp_path: Path) -> None:
    handlers, level = list(logging.getLogger().handlers), logging.getLogger("alembic").level
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        migrate.upgrade(f"sqlite:///{tmp_path}/x.sqlite")
        migrate.current(f"sqlite:///{tmp_path}/x.sqlite")
    assert out.getvalue() + err.getvalue() == ""
    assert logging.getLogger().handlers == handlers
    assert logging.getLogger("alembic").level == level


def test_a_developer_can_write_the_next_revision(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.sqlite"
    migrate.upgrade(url)
    engine = open_engine(url)
    with engine.connect() as connection:
        config = migrate.configuration(connection)
        copied = shutil.copytree(config.get_main_option("script_location") or "", tmp_path / "migrations")
        config.set_main_option("script_location", str(copied))
        command.revision(config, "one more", rev_id="9999", autogenerate=True)
    engine.dispose()
    (written,) = copied.glob("versions/9999*.py")
    content = written.read_text()
    compile(content, str(written), "exec")
    assert content.startswith('"""one more\n')
    assert f"down_revision = '{NEWEST}'" in content
    assert content.count("    pass\n") == 2
