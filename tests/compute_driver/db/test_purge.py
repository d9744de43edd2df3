from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from ipaddress import IPv4Interface
from typing import Any

import pytest
from sqlalchemy import func, select

from agent_protocol.outcomes import Outcome
from compute_driver import errors
from compute_driver.db.models import Base
from compute_driver.db.records import Instance
from compute_driver.db.repository import Repository
from compute_driver.network import Interface, NetworkName
from compute_driver.volumes import VdiConnection, Volume

from .making import connected, make, make_idle, make_migration, run, start

DAY = timedelta(days=1)


def now() -> datetime:
    return datetime.now(timezone.utc)


def purge(repository: Repository, before: datetime, limit: int = 1000) -> int:
    """Until nothing is left to purge; how many rows went."""
    rows = 0
    while True:
        removed = repository.purge(before, limit=limit)
        assert 0 <= removed <= limit
        if not removed:
            return rows
        rows += removed


def rows(url: str) -> dict[str, int]:
    """Tables that hold anything, and how much."""
    with connected(url) as connection:
        counts = {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in Base.metadata.sorted_tables
        }
    return {table: number for table, number in counts.items() if number}


def finish(repository: Repository, number: int) -> None:
    repository.finish_action(number, outcome=Outcome.SUCCEEDED, seconds=1)


def furnish(repository: Repository, made: Instance) -> None:
    """One row in each table that belongs to an instance, but two interfaces."""
    connection = VdiConnection("3c5ab1d5-5d3a-4a24-9d28-4f9d2b5e8f11")
    repository.save_volume(made.uuid, Volume("volume-1", connection), "xvdb")
    for number in (1, 2):
        address = (IPv4Interface(f"192.0.2.{number}/24"),)
        network = NetworkName("bridge", "xenbr0")
        repository.save_interface(
            made.uuid, Interface(f"port-{number}", f"00:16:3e:00:00:0{number}", network, addresses=address)
        )
    repository.save_agent(made.uuid, version="1", features=[], protocol="sealed")
    repository.record_fault(made.uuid, code="code", message="wrong")
    migration = make_migration(repository, made)
    repository.set_migration(migration.id, status="confirmed")


@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_all_that_is_over_goes(repository: Repository, database_url: str, limit: int) -> None:
    made = make_idle(repository)
    furnish(repository, made)
    repository.delete_instance(made.uuid)
    for step in (None, "shut down", "remove disks"):
        finish(repository, start(repository, instance_uuid=made.uuid, step=step, action="delete"))
    repository.register_service("run-1", "compute-1", "compute", "1.0")
    repository.stop_service("run-1")
    before = rows(database_url)
    assert purge(repository, now() - DAY) == 0
    assert rows(database_url) == before
    assert purge(repository, now() + DAY, limit) == sum(before.values()) == 1 + 6 + 3 + 1
    assert rows(database_url) == {}


def test_what_exists_stays_but_for_its_past(repository: Repository, database_url: str) -> None:
    made = make_idle(repository)
    furnish(repository, made)
    finish(repository, start(repository, instance_uuid=made.uuid))
    lease = repository.acquire_lease("compute-1", "first", seconds=0)
    repository.open_session(lease, "session-1")
    assert purge(repository, now() + DAY) == 2
    left = {"instances": 1, "block_device_mappings": 1, "virtual_interfaces": 2, "agents": 1, "migrations": 1}
    assert rows(database_url) == {**left, "hosts": 1, "hypervisor_sessions": 1}
    assert repository.get_instance(made.uuid) == made


def test_only_what_is_older_goes(repository: Repository, database_url: str) -> None:
    old, young = make_idle(repository), make_idle(repository)
    for made in (old, young):
        furnish(repository, made)
        repository.delete_instance(made.uuid)
        finish(repository, start(repository, instance_uuid=made.uuid, request_id=made.uuid, order_id=made.uuid))
    moment = now() - 2 * DAY
    for statement in (
        "UPDATE instances SET deleted_at = :moment WHERE uuid = :uuid",
        "UPDATE instance_actions SET finished_at = :moment WHERE instance_uuid = :uuid",
        "UPDATE instance_faults SET created_at = :moment WHERE instance_uuid = :uuid",
    ):
        run(database_url, statement, moment=moment.replace(tzinfo=None).isoformat(" "), uuid=old.uuid)
    assert purge(repository, moment - timedelta(seconds=1)) == 0
    assert purge(repository, now() - DAY) == 8
    with pytest.raises(errors.InstanceNotFound):
        repository.get_instance(old.uuid, include_deleted=True)
    assert repository.get_instance(young.uuid, include_deleted=True).deleted
    assert (repository.get_action(old.uuid), repository.get_action(young.uuid) is None) == (None, False)
    assert sum(rows(database_url).values()) == 8


Hold = Callable[[Repository, Instance], Any]

HOLDS: dict[str, tuple[Hold, set[str]]] = {
    "an action without an outcome": (
        lambda repository, made: start(repository, instance_uuid=made.uuid, request_id="req-2"),
        {"instances", "instance_actions"},
    ),
    "a migration under way": (lambda repository, made: make_migration(repository, made), {"instances", "migrations"}),
}


@pytest.mark.parametrize("which", HOLDS)
def test_a_deleted_instance_stays_while_something_of_it_is_in_flight(
    repository: Repository, database_url: str, which: str
) -> None:
    hold, tables = HOLDS[which]
    made = make_idle(repository)
    furnish(repository, made)
    hold(repository, made)
    repository.delete_instance(made.uuid)
    before = rows(database_url)
    # The fault is of the past.
    assert purge(repository, now() + DAY) == before.pop("instance_faults")
    assert rows(database_url) == before
    assert tables <= before.keys()
    run(database_url, "UPDATE instance_actions SET finished_at = started_at")
    run(database_url, "UPDATE migrations SET status = 'failed'")
    assert purge(repository, now() + DAY) == sum(before.values())
    assert rows(database_url) == {}


def test_nothing_of_an_order_goes_before_its_end(repository: Repository, database_url: str) -> None:
    order = start(repository, order_id="order-1", request_id="req-1")
    finish(repository, start(repository, step="shut down", request_id="req-1"))
    finish(repository, start(repository, request_id="req-2"))
    assert purge(repository, now() + DAY) == 1
    assert [action.request_id for action in repository.list_actions()] == ["req-1", "req-1"]
    finish(repository, order)
    assert purge(repository, now() + DAY) == 2
    assert rows(database_url) == {}


def test_the_action_of_a_turn_stays(repository: Repository) -> None:
    number = start(repository)
    made = make(repository, action=number)
    finish(repository, number)
    assert purge(repository, now() + DAY) == 0
    repository.end_task(made.uuid)
    assert purge(repository, now() + DAY) == 1
    assert repository.get_instance(made.uuid).task_action is None


def test_an_instance_stays_while_a_younger_fault_speaks_of_it(repository: Repository, database_url: str) -> None:
    made = make_idle(repository)
    repository.delete_instance(made.uuid)
    repository.record_fault(made.uuid, code="late", message="wrong")
    run(database_url, "UPDATE instances SET deleted_at = '2001-01-01 00:00:00.000000'")
    assert purge(repository, now() - DAY) == 0
    assert [fault.code for fault in repository.list_faults(made.uuid)] == ["late"]


def test_faults_that_come_meanwhile_are_recorded_or_refused(repository: Repository, database_url: str) -> None:
    for _ in range(5):
        made = make_idle(repository)
        repository.delete_instance(made.uuid)
        barrier = threading.Barrier(2)

        def record(uuid: str = made.uuid, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait(30)
            try:
                repository.record_fault(uuid, code="late", message="wrong")
            except errors.InstanceNotFound:
                return False
            return True

        with ThreadPoolExecutor(1) as pool:
            recording = pool.submit(record)
            barrier.wait(30)
            repository.purge(now() + DAY)
            recording.result(30)
        purge(repository, now() + DAY)
        assert rows(database_url) == {}


def test_a_time_without_a_zone_is_refused(repository: Repository) -> None:
    with pytest.raises(Exception, match="time zone"):
        repository.purge(datetime(2026, 3, 1))
