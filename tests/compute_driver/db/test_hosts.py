from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from compute_driver import errors
from compute_driver.db.clock import DatabaseNow
from compute_driver.db.records import Lease
from compute_driver.db.repository import Repository
from compute_driver.db.repository.base import check_lease
from compute_driver.fencing import LeaseLost

from .making import connected, count, expire, make, make_idle, start

HOST = "compute-1"
MILLISECOND = timedelta(milliseconds=1)


def test_the_clock_is_the_databases_own_in_utc(database_url: str) -> None:
    before = datetime.now(timezone.utc)
    with connected(database_url) as connection:
        moment, later = connection.execute(select(DatabaseNow(), DatabaseNow(90061.5))).one()
    assert before - MILLISECOND <= moment <= datetime.now(timezone.utc)
    assert moment.tzinfo is timezone.utc
    # PostgreSQL looks at the clock for each of the two.
    assert timedelta(0) <= later - moment - timedelta(seconds=90061.5) <= timedelta(minutes=1)


def test_the_clock_goes_on_within_a_transaction(database_url: str) -> None:
    deadline = time.monotonic() + 30
    with connected(database_url) as connection:
        first = connection.execute(select(DatabaseNow())).scalar_one()
        while connection.execute(select(DatabaseNow())).scalar_one() == first:
            assert time.monotonic() < deadline


def test_a_lease_is_for_one_holder_at_a_time(repository: Repository) -> None:
    lease = repository.acquire_lease(HOST, "first", seconds=60)
    assert lease == Lease(HOST, "first", 1)
    with pytest.raises(errors.HostHeld) as caught:
        repository.acquire_lease(HOST, "second", seconds=60)
    assert (caught.value.code, caught.value.holder) == ("host_held", "first")
    assert 0 < caught.value.seconds <= 60
    assert repository.acquire_lease("compute-2", "second", seconds=60) == Lease("compute-2", "second", 1)
    (first, second) = repository.list_hosts()
    assert (first.name, first.holder, first.epoch, second.name) == (HOST, "first", 1, "compute-2")
    assert 0 < first.seconds_left <= 60
    assert timedelta(seconds=59) < first.expires_at - first.updated_at < timedelta(seconds=61)
    assert first.to_dict()["holder"] == "first"


def test_the_same_holder_gets_a_new_epoch(repository: Repository) -> None:
    old = repository.acquire_lease(HOST, "first", seconds=60)
    new = repository.acquire_lease(HOST, "first", seconds=60)
    assert new == Lease(HOST, "first", 2)
    with pytest.raises(LeaseLost):
        repository.renew_lease(old, seconds=60)
    repository.renew_lease(new, seconds=60)


def test_only_its_holder_joins_a_lease(repository: Repository, database_url: str) -> None:
    for holder in ("first", ""):
        with pytest.raises(errors.HostHeld) as nobody:
            repository.join_lease(HOST, holder)
        assert (nobody.value.holder, nobody.value.seconds) == ("", 0.0)
    lease = repository.acquire_lease(HOST, "first", seconds=60)
    assert repository.join_lease(HOST, "first") == lease
    with pytest.raises(errors.HostHeld) as caught:
        repository.join_lease(HOST, "second")
    assert caught.value.holder == "first"
    assert caught.value.seconds > 0
    expire(database_url, HOST)
    assert repository.join_lease(HOST, "first") == lease
    repository.release_lease(lease)
    for holder in ("first", ""):
        with pytest.raises(errors.HostHeld, match="nobody"):
            repository.join_lease(HOST, holder)


def test_an_expired_lease_can_be_renewed_until_somebody_takes_it(repository: Repository, database_url: str) -> None:
    lease = repository.acquire_lease(HOST, "first", seconds=60)
    expire(database_url, HOST)
    assert repository.list_hosts()[0].seconds_left == 0
    repository.renew_lease(lease, seconds=120)
    assert 60 < repository.list_hosts()[0].seconds_left <= 120
    with pytest.raises(errors.HostHeld):
        repository.acquire_lease(HOST, "second", seconds=60)
    expire(database_url, HOST)
    assert repository.acquire_lease(HOST, "second", seconds=60).epoch == 2
    with pytest.raises(LeaseLost) as caught:
        repository.renew_lease(lease, seconds=60)
    assert caught.value.host == HOST
    assert repository.list_hosts()[0].holder == "second"


def test_a_released_lease_is_free_at_once_and_lost(repository: Repository) -> None:
    lease = repository.acquire_lease(HOST, "first", seconds=60)
    repository.release_lease(lease)
    repository.release_lease(lease)
    assert (repository.list_hosts()[0].holder, repository.list_hosts()[0].seconds_left) == ("", 0)
    with pytest.raises(LeaseLost):
        repository.renew_lease(lease, seconds=60)
    taken = repository.acquire_lease(HOST, "second", seconds=60)
    assert taken == Lease(HOST, "second", 2)
    repository.release_lease(lease)
    repository.renew_lease(taken, seconds=60)


@pytest.mark.parametrize(("host", "holder"), [("", ""), (HOST, ""), (HOST, "x" * 256), ("x" * 256, "first")])
def test_a_lease_needs_names_that_come_back(repository: Repository, host: str, holder: str) -> None:
    with pytest.raises(ValueError, match=r"holder|name"):
        repository.acquire_lease(host, holder, seconds=60)
    assert repository.list_hosts() == []


def test_of_many_threads_one_gets_a_free_and_an_expired_lease(repository: Repository, database_url: str) -> None:
    for epoch in (1, 2, 3):
        barrier = threading.Barrier(6)

        def attempt(number: int, epoch: int = epoch, barrier: threading.Barrier = barrier) -> str:
            barrier.wait(30)
            try:
                return f"got {repository.acquire_lease(HOST, f'{epoch}-{number}', seconds=60).holder}"
            except errors.HostHeld as held:
                return held.holder

        with ThreadPoolExecutor(6) as pool:
            said = list(pool.map(attempt, range(6)))
        (winner,) = [word[4:] for word in said if word.startswith("got ")]
        assert said.count(winner) == 5
        (host,) = repository.list_hosts()
        assert (host.holder, host.epoch) == (winner, epoch)
        expire(database_url, HOST)


TAKING_TURNS = """
import sys, threading, time
from pathlib import Path
from compute_driver.db.repository import Repository
from compute_driver.errors import HostHeld

url, name, number = sys.argv[1:]
repository, counter, deadline = Repository(url), Path(name), time.monotonic() + 50

def count(holder):
    for _ in range(5):
        while True:
            assert time.monotonic() < deadline, "no turn in time"
            try:
                lease = repository.acquire_lease("compute-1", holder, seconds=100)
                break
            except HostHeld:
                time.sleep(0.002)
        before = int(counter.read_text())
        repository.renew_lease(lease, seconds=100)
        counter.write_text(str(before + 1))
        repository.release_lease(lease)

threads = [threading.Thread(target=count, args=(f"{number}-{which}",)) for which in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
repository.close()
"""


def test_two_processes_never_hold_it_together(repository: Repository, database_url: str, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TAKING_TURNS, database_url, str(counter), str(number)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert said == ["", ""]
    assert counter.read_text() == "20"
    (host,) = repository.list_hosts()
    assert (host.epoch, host.holder) == (20, "")


# What may be done under a lease


UNDER_A_LEASE: dict[str, Callable[[Repository, Lease, str], object]] = {
    "start_action": lambda repository, lease, _: start(repository, lease=lease, order_id="order-1"),
    "create_instance": lambda repository, lease, _: make(repository, lease=lease, uuid="new"),
    "begin_task": lambda repository, lease, uuid: repository.begin_task(uuid, "rebooting", lease=lease),
    "open_session": lambda repository, lease, _: repository.open_session(lease, "session-1"),
}


@pytest.mark.parametrize("what", UNDER_A_LEASE)
def test_under_a_lease_that_is_lost_nothing_begins(repository: Repository, database_url: str, what: str) -> None:
    idle, act = make_idle(repository), UNDER_A_LEASE[what]
    stale = repository.acquire_lease(HOST, "first", seconds=60)
    expire(database_url, HOST)
    current = repository.acquire_lease(HOST, "second", seconds=60)
    strangers = [
        stale,
        Lease(HOST, "second", current.epoch - 1),
        Lease(HOST, "third", current.epoch),
        Lease("compute-9", "second", current.epoch),
    ]
    for lease in strangers:
        with pytest.raises(LeaseLost):
            act(repository, lease, idle.uuid)
    assert repository.get_instance(idle.uuid) == idle
    assert [count(database_url, table) for table in ("instance_actions", "instances", "hypervisor_sessions")] == [
        0,
        1,
        0,
    ]
    # One that expired, but that nobody took, is the holder's own to judge.
    expire(database_url, HOST)
    act(repository, current, idle.uuid)
    with pytest.raises(LeaseLost):
        repository.release_lease(current)
        act(repository, current, idle.uuid)


def test_nobody_takes_a_host_over_while_something_begins_on_it(repository: Repository, database_url: str) -> None:
    lease = repository.acquire_lease(HOST, "first", seconds=60)
    expire(database_url, HOST)
    is_taken = threading.Event()

    def take() -> Lease:
        taken = repository.acquire_lease(HOST, "second", seconds=60)
        is_taken.set()
        return taken

    with ThreadPoolExecutor(1) as pool:

        def begin(session: Session) -> bool:
            check_lease(session, lease)
            taking.append(pool.submit(take))
            return is_taken.wait(0.3)

        taking: list[object] = []
        assert not repository._write(begin)
        assert is_taken.wait(30)
    with pytest.raises(LeaseLost):
        repository._write(begin)


def test_an_action_bears_the_epoch_of_its_lease(repository: Repository) -> None:
    repository.acquire_lease(HOST, "first", seconds=60)
    lease = repository.acquire_lease(HOST, "first", seconds=60)
    start(repository, lease=lease)
    start(repository)
    assert [action.epoch for action in repository.unfinished_actions(HOST)] == [2, 0]


# Sessions


def test_sessions_are_found_by_who_comes_after(repository: Repository) -> None:
    first = repository.acquire_lease(HOST, "first", seconds=60)
    other = repository.acquire_lease("compute-2", "other", seconds=60)
    for lease, session in ((first, "a"), (first, "b"), (other, "c")):
        repository.open_session(lease, session)
    assert repository.sessions_before(first) == []
    second = repository.acquire_lease(HOST, "first", seconds=60)
    repository.open_session(second, "d")
    assert repository.sessions_before(second) == ["a", "b"]
    repository.close_session(HOST, "a")
    repository.close_session(HOST, "c")
    repository.close_session(HOST, "never opened \0")
    third = repository.acquire_lease(HOST, "first", seconds=60)
    assert repository.sessions_before(third) == ["b", "d"]
    later = repository.acquire_lease("compute-2", "other", seconds=60)
    assert repository.sessions_before(later) == ["c"]
