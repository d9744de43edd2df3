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
from compute_driver.db.engine import for_writing, open_engine
from compute_driver.db.models import Base
from compute_driver.db.repository import Repository

TABLES = {"instances", "instance_actions", "instance_faults", "agents"} | {
    *("hosts", "hypervisor_sessions", "services", "migrations", "block_device_mappings", "virtual_interfaces"),
}

NEWEST = "0003"


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


BEFORE_SERVICES = {
    "instances": [
        {
            "uuid": f"uuid-{number}",
            "display_name": "web",
            "host": "here",
            "vm_state": "active",
            "task_state": task,
            "power_state": 1,
            "memory_mb": 64,
            "vcpus": 1,
            "root_gb": 1,
            "image_ref": "",
            "instance_metadata": "{}",
            "system_metadata": "{}",
            "created_at": "2026-03-01 12:00:00.000000",
            "updated_at": "2026-03-01 12:00:00.000000",
            "deleted": 0,
        }
        for number, task in ((1, None), (2, "rebooting"))
    ],
    "instance_actions": [
        {
            "instance_uuid": "uuid-1",
            "target": "web",
            "action": "reboot",
            "request_id": "req-1",
            "user": "alice",
            "host": "here",
            "started_at": "2026-03-01 12:00:00.000000",
            "code": "",
            "message": "",
        }
        for _ in range(2)
    ],
    "instance_faults": [
        {
            "instance_uuid": "uuid-1",
            "code": "code",
            "message": "wrong",
            "request_id": "req-1",
            "created_at": "2026-03-01 12:00:00.000000",
        }
    ],
    "agents": [
        {
            "instance_uuid": "uuid-2",
            "version": "1",
            "features": "[]",
            "protocol": "sealed",
            "last_seen_at": "2026-03-01 12:00:00.000000",
            "clock_offset": 7,
            "guest": "",
        }
    ],
}
"""What a service of revision 0002 may have left."""


def insert(url: str, table: str, row: dict[str, Any]) -> None:
    engine = open_engine(url, foreign_keys=False)
    quote = engine.dialect.identifier_preparer.quote
    names, values = ", ".join(map(quote, row)), ", ".join(f":{name}" for name in row)
    with for_writing(engine).begin() as connection:
        connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), row)
    engine.dispose()


def content(url: str) -> dict[str, list[dict[str, Any]]]:
    engine = open_engine(url)
    with engine.connect() as connection:
        found = {
            table: sorted(map(dict, connection.execute(text(f"SELECT * FROM {table}")).mappings()), key=repr)
            for table in BEFORE_SERVICES
        }
    engine.dispose()
    return found


def test_what_was_recorded_before_services_shared_a_host_stays(database_url: str) -> None:
    migrate.upgrade(database_url)
    migrate.downgrade(database_url, "0002")
    for table, rows in BEFORE_SERVICES.items():
        for row in rows:
            insert(database_url, table, row)
    before = content(database_url)

    migrate.upgrade(database_url)
    added: dict[str, dict[str, Any]] = {
        "instances": {"node": "", "task_action": None},
        "instance_actions": {"order_id": None, "epoch": 0},
    }
    assert content(database_url) == {
        table: [{**row, **added.get(table, {})} for row in rows] for table, rows in before.items()
    }
    repository = Repository(database_url)
    assert [it.task_state for it in repository.list_instances()] == [None, "rebooting"]
    assert len(repository.unfinished_actions("here")) == 2
    # What is new can be used, and what refers to instances still does.
    lease = repository.acquire_lease("here", "first", seconds=60)
    action = repository.start_action(
        action="stop", target="web", request_id="r", user="u", host="here", order_id="order-1", lease=lease
    )
    repository.begin_task("uuid-1", "powering-off", action=action, lease=lease)
    repository.record_fault("uuid-2", code="code", message="wrong")
    repository.close()
    with pytest.raises(DBAPIError, match=r"(?i)foreign key"):
        with_foreign_keys(database_url, "DELETE FROM instances")
    # Neither new column has a default that could stand in for a forgotten value.
    for table, name in (("instances", "node"), ("instance_actions", "epoch")):
        row = {**BEFORE_SERVICES[table][0], **({"uuid": "uuid-9"} if table == "instances" else {})}
        with pytest.raises(DBAPIError, match=name):
            insert(database_url, table, row)

    with_foreign_keys(database_url, "DELETE FROM instance_faults WHERE instance_uuid = 'uuid-2'")
    with_foreign_keys(database_url, f"DELETE FROM instance_actions WHERE id = {action}")
    migrate.downgrade(database_url, "0002")
    assert tables(database_url) == set(BEFORE_SERVICES)
    after = content(database_url)
    (changed,) = [row for row in after["instances"] if row["uuid"] == "uuid-1"]
    assert changed["task_state"] == "powering-off"
    changed.update({name: before["instances"][0][name] for name in ("task_state", "updated_at")})
    assert after == before


def with_foreign_keys(url: str, statement: str) -> None:
    engine = open_engine(url)
    try:
        with for_writing(engine).begin() as connection:
            connection.execute(text(statement))
    finally:
        engine.dispose()


def test_sqlite_rows_that_refer_to_nothing_stop_a_migration(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.sqlite"
    migrate.upgrade(url)
    migrate.downgrade(url, "0002")
    insert(url, "agents", BEFORE_SERVICES["agents"][0])
    with pytest.raises(RuntimeError, match="agents"):
        migrate.upgrade(url)
    assert migrate.current(url) == "0002"
    assert tables(url) == set(BEFORE_SERVICES)


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
