from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from compute_driver.db import engine as opening
from compute_driver.db import migrate, transactions
from compute_driver.db.engine import open_engine
from compute_driver.db.models import InstanceRow
from compute_driver.db.repository import Repository
from compute_driver.errors import DatabaseUnavailable
from tests.databases import SERVERS

from .making import connected, make_idle

on_servers = pytest.mark.parametrize(
    "database_url", [pytest.param(kind, marks=pytest.mark.services) for kind in SERVERS], indirect=True
)
on_mariadb = pytest.mark.parametrize(
    "database_url", [pytest.param("mariadb", marks=pytest.mark.services)], indirect=True
)


class Counting:
    """A transaction that adds one to the memory of instances, one after another.

    between: called before each statement with the session and the statement's number from 0; `attempts` counts runs.
    """

    def __init__(self, *uuids: str, between: Callable[[Session, int, int], None] = lambda *_: None) -> None:
        self._uuids = uuids
        self._between = between
        self.attempts = 0

    def __call__(self, session: Session) -> None:
        self.attempts += 1
        for number, uuid in enumerate(self._uuids):
            self._between(session, self.attempts, number)
            more = update(InstanceRow).where(InstanceRow.uuid == uuid).values(memory_mb=InstanceRow.memory_mb + 1)
            session.execute(more.execution_options(synchronize_session=False))


def memory(repository: Repository, uuid: str) -> int:
    return repository.get_instance(uuid).memory_mb


# What the database gives up


@on_servers
def test_a_deadlock_is_survived_by_both(repository: Repository) -> None:
    first, second = make_idle(repository).uuid, make_idle(repository).uuid
    barrier = threading.Barrier(2)

    def meet(_session: Session, attempt: int, number: int) -> None:
        if attempt == 1 and number == 1:
            barrier.wait(30)

    crossing = [Counting(first, second, between=meet), Counting(second, first, between=meet)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(repository._write, crossing))
    assert sorted(work.attempts for work in crossing) == [1, 2]
    assert (memory(repository, first), memory(repository, second)) == (2050, 2050)


GIVING_UP = {
    "postgresql": [
        "DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40001'; END $$",
        "DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40P01'; END $$",
    ],
    "mysql": ["SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213", "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1205"],
}


@on_servers
@pytest.mark.parametrize("which", [0, 1])
def test_a_transaction_is_repeated_a_few_times(
    repository: Repository, database_url: str, which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "PAUSE_SECONDS", 0.001)
    uuid = make_idle(repository).uuid
    statement = GIVING_UP[make_url(database_url).get_backend_name()][which]

    def give_up(until: int) -> Callable[[Session, int, int], None]:
        def between(session: Session, attempt: int, number: int) -> None:
            if number == 1 and attempt < until:
                session.execute(text(statement))

        return between

    work = Counting(uuid, uuid, between=give_up(transactions.ATTEMPTS))
    repository._write(work)
    assert work.attempts == transactions.ATTEMPTS
    assert memory(repository, uuid) == 2050

    hopeless = Counting(uuid, uuid, between=give_up(1000))
    with pytest.raises(DatabaseUnavailable):
        repository._write(hopeless)
    assert hopeless.attempts == transactions.ATTEMPTS
    monkeypatch.setattr(transactions, "REPEAT_SECONDS", -1.0)
    late = Counting(uuid, uuid, between=give_up(1000))
    with pytest.raises(DatabaseUnavailable):
        repository._write(late)
    assert late.attempts == 1
    assert memory(repository, uuid) == 2050


@on_mariadb
def test_a_wait_for_a_lock_that_took_too_long_undoes_everything(repository: Repository, database_url: str) -> None:
    """The server itself undoes the last statement alone."""
    first, second = make_idle(repository).uuid, make_idle(repository).uuid
    holder = open_engine(database_url)
    with holder.connect() as holding:
        holding.execute(text("UPDATE instances SET vcpus = 3 WHERE uuid = :uuid"), {"uuid": second})

        def between(session: Session, attempt: int, number: int) -> None:
            if number == 0 and attempt == 1:
                session.execute(text("SET SESSION innodb_lock_wait_timeout = 1"))
            if attempt == 2 and number == 0:
                # The first attempt holds nothing any more.
                with connected(database_url) as other:
                    other.execute(text("UPDATE instances SET vcpus = 4 WHERE uuid = :uuid"), {"uuid": first})
                holding.rollback()

        work = Counting(first, second, between=between)
        repository._write(work)
    holder.dispose()
    assert work.attempts == 2
    assert (memory(repository, first), memory(repository, second)) == (2049, 2049)
    assert (repository.get_instance(first).vcpus, repository.get_instance(second).vcpus) == (4, 2)


@pytest.fixture
def impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Repository, sqlite3.Connection]]:
    """A repository that does not wait for another writer, and that writer."""
    monkeypatch.setattr(opening, "SQLITE_BUSY_SECONDS", 0.0)
    path = tmp_path / "x.sqlite"
    migrate.upgrade(f"sqlite:///{path}")
    repository, writer = Repository(f"sqlite:///{path}"), sqlite3.connect(path, isolation_level=None)
    yield repository, writer
    writer.close()
    repository.close()


def test_a_busy_sqlite_is_asked_again(
    impatient: tuple[Repository, sqlite3.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, writer = impatient
    uuid = make_idle(repository).uuid
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            writer.execute("ROLLBACK")

    monkeypatch.setattr(transactions.time, "sleep", pause)
    writer.execute("BEGIN IMMEDIATE")
    assert repository.update_instance(uuid, vcpus=4).vcpus == 4
    assert len(pauses) == 2
    writer.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseUnavailable, match="sqlite"):
        repository.update_instance(uuid, vcpus=8)
    assert len(pauses) == 2 + transactions.ATTEMPTS - 1
    assert all(0 <= seconds <= transactions.PAUSE_SECONDS * 2**transactions.ATTEMPTS for seconds in pauses)
    writer.execute("ROLLBACK")
    assert repository.get_instance(uuid).vcpus == 4


# Connections that are lost


NUMBER = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT CONNECTION_ID()"}
KILL = {"postgresql": "SELECT pg_terminate_backend({})", "mysql": "KILL {}"}
OTHERS = {
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    "mysql": "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()",
}


def kill_all(url: str) -> int:
    """Ends every other connection to the database, as the server does when it is restarted; how many there were."""
    backend = make_url(url).get_backend_name()
    with connected(url) as connection:
        numbers = connection.execute(text(OTHERS[backend])).scalars().all()
        for number in numbers:
            connection.execute(text(KILL[backend].format(number)))
    return len(numbers)


def kill(session: Session, url: str) -> None:
    """Ends the session's own connection, behind its back."""
    backend = make_url(url).get_backend_name()
    number = session.execute(text(NUMBER[backend])).scalar_one()
    with connected(url) as connection:
        connection.execute(text(KILL[backend].format(number)))


def sever(session: Session) -> None:
    """The connection is dead before the transaction's first statement."""
    dead: Any = session.connection().connection.driver_connection
    dead.close()


@on_servers
def test_connections_that_died_while_nobody_used_them_are_not_noticed(
    repository: Repository, database_url: str
) -> None:
    made = make_idle(repository)
    assert kill_all(database_url) > 0
    assert repository.get_instance(made.uuid) == made
    assert kill_all(database_url) > 0
    assert repository.update_instance(made.uuid, vcpus=4).vcpus == 4


@on_servers
def test_what_only_reads_is_asked_again_on_a_new_connection(repository: Repository, database_url: str) -> None:
    made = make_idle(repository)
    attempts: list[int] = []

    def find(session: Session) -> str:
        attempts.append(len(attempts))
        found = session.scalars(select(InstanceRow.display_name)).one()
        if len(attempts) == 1:
            kill(session, database_url)
        return found + session.scalars(select(InstanceRow.uuid)).one()

    assert repository._read(find) == "web" + made.uuid
    assert len(attempts) == 2


@on_servers
@pytest.mark.parametrize("run", ["_read", "_write"])
def test_a_connection_that_is_dead_from_the_start_is_replaced_once(repository: Repository, run: str) -> None:
    attempts: list[int] = []

    def find(session: Session, *, dying: int) -> int:
        attempts.append(len(attempts))
        if len(attempts) <= dying:
            sever(session)
        return len(session.scalars(select(InstanceRow)).all())

    assert getattr(repository, run)(lambda session: find(session, dying=1)) == 0
    assert len(attempts) == 2
    attempts.clear()
    with pytest.raises(DatabaseUnavailable):
        getattr(repository, run)(lambda session: find(session, dying=5))
    assert len(attempts) == 2


@on_servers
def test_what_is_lost_before_it_wrote_is_run_again(repository: Repository, database_url: str) -> None:
    uuid = make_idle(repository).uuid

    def between(session: Session, attempt: int, number: int) -> None:
        if attempt == 1 and number == 0:
            kill(session, database_url)
            session.scalars(select(InstanceRow.id)).all()

    work = Counting(uuid, between=between)
    repository._write(work)
    assert work.attempts == 2
    assert memory(repository, uuid) == 2049


@on_servers
@pytest.mark.parametrize("before", [0, 1])
def test_what_is_lost_while_it_wrote_is_never_repeated(repository: Repository, database_url: str, before: int) -> None:
    """With the first thing that it wrote, and with the second."""
    uuid = make_idle(repository).uuid

    def between(session: Session, attempt: int, number: int) -> None:
        if number == before:
            kill(session, database_url)

    work = Counting(uuid, uuid, between=between)
    with pytest.raises(DatabaseUnavailable):
        repository._write(work)
    assert work.attempts == 1
    assert memory(repository, uuid) == 2048


@on_servers
def test_what_is_lost_at_its_end_is_never_repeated(repository: Repository, database_url: str) -> None:
    uuid = make_idle(repository).uuid
    work = Counting(uuid)

    def lose(session: Session) -> None:
        kill(session, database_url)

    event.listen(Session, "before_commit", lose)
    try:
        with pytest.raises(DatabaseUnavailable):
            repository._write(work)
    finally:
        event.remove(Session, "before_commit", lose)
    assert work.attempts == 1
    assert memory(repository, uuid) == 2048


@on_servers
def test_what_was_added_is_lost_like_what_was_changed(repository: Repository, database_url: str) -> None:
    """Rows that the session writes at its end are writing as well."""
    attempts: list[int] = []

    def add(session: Session) -> None:
        attempts.append(len(attempts))
        values = {"display_name": "x", "host": "h", "node": "", "vm_state": "active", "image_ref": ""}
        sizes = {"memory_mb": 1, "vcpus": 1, "root_gb": 1, "power_state": 0, "deleted": 0}
        moment = datetime.now(timezone.utc)
        plain = {"instance_metadata": {}, "system_metadata": {}, "created_at": moment, "updated_at": moment}
        session.add(InstanceRow(uuid="new", **values, **sizes, **plain))
        kill(session, database_url)

    with pytest.raises(DatabaseUnavailable):
        repository._write(add)
    assert len(attempts) == 1
    assert repository.list_instances() == []


@on_servers
def test_who_holds_a_lock_and_does_not_go_on_is_ended_by_the_server(
    repository: Repository, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_idle(repository)
    monkeypatch.setattr(opening, "IDLE_SECONDS", 1)
    stopped = Repository(database_url)
    is_held, is_over = threading.Event(), threading.Event()

    def hold(session: Session) -> None:
        Counting(made.uuid)(session)
        is_held.set()
        # As a process would that was stopped here.
        assert is_over.wait(60)
        session.scalars(select(InstanceRow)).all()

    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(stopped._write, hold)
        assert is_held.wait(60)
        try:
            repository._write(Counting(made.uuid))
        finally:
            is_over.set()
        with pytest.raises(DatabaseUnavailable):
            ended.result(60)
    stopped.close()
    assert memory(repository, made.uuid) == made.memory_mb + 1
