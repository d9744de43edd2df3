from __future__ import annotations

import dataclasses
import threading
import time

import pytest

from compute_driver.db.repository import Repository
from compute_driver.errors import DatabaseUnavailable
from compute_driver.fencing import LeaseLost
from compute_driver.service.leases import boot_time
from tests.compute_driver.db.making import expire

from .keeping import Machine, Machines, eventually, is_ours, lost


def row(repository: Repository, host: str) -> tuple[str, int, bool]:
    """Holder, epoch, and whether the lease still lasts."""
    (found,) = [it for it in repository.list_hosts() if it.name == host]
    return found.holder, found.epoch, found.seconds_left > 0


def test_before_it_is_acquired_nothing_is_allowed(machines: Machines) -> None:
    it = machines.at("here")
    lost(it)
    assert it.keeper.state[:2] == (False, 0)


def test_a_free_host_is_acquired_at_once(repository: Repository, host: str, machines: Machines) -> None:
    it = machines.at("here")
    assert it.keeper.acquire(it.stop)
    assert is_ours(it)
    assert dataclasses.astuple(it.keeper.lease) == (host, it.presence.holder, 1)
    assert row(repository, host) == (it.presence.holder, 1, True)
    assert it.keeper.state == (True, 1, 48.0)


def test_a_released_host_is_free_at_once(repository: Repository, host: str, machines: Machines, first: Machine) -> None:
    first.keeper.release()
    lost(first)
    assert row(repository, host) == ("", 1, False)
    second = machines.at("second")
    assert second.keeper.acquire(second.stop)
    assert second.keeper.lease.epoch == 2
    # Again, as a process does whose end is interrupted: it has nothing to give back any more.
    first.keeper.release()
    assert row(repository, host) == (second.presence.holder, 2, True)


def test_who_waits_gets_it_when_it_is_released(machines: Machines, first: Machine) -> None:
    second = machines.at("second")
    with second.acquiring() as said:
        eventually(second.database.answered.is_set)
        assert (said, is_ours(second)) == ([], False)
        first.close()
        eventually(lambda: said)
    assert said == [True]
    assert is_ours(second)


def test_who_waits_can_be_stopped(machines: Machines, first: Machine) -> None:
    second = machines.at("second")
    with second.acquiring() as said:
        second.stop.set()
        eventually(lambda: said)
    assert said == [False]
    assert is_ours(first)
    lost(second)


def test_who_is_to_stop_already_takes_nothing(repository: Repository, host: str, machines: Machines) -> None:
    it = machines.at("here")
    it.stop.set()
    assert not it.keeper.acquire(it.stop)
    assert [found for found in repository.list_hosts() if found.name == host] == []


def test_a_killed_process_is_followed_at_once_on_its_machine(machines: Machines, first: Machine) -> None:
    first.vanish()
    second = machines.at("first")
    assert second.keeper.acquire(second.stop)
    assert second.keeper.lease.epoch == 2


def test_on_its_machine_another_one_waits_however_long_the_lease_is_over(
    database_url: str, host: str, machines: Machines, first: Machine
) -> None:
    expire(database_url, host)
    second = machines.at("first")
    with second.acquiring() as said:
        second.stop.wait(0.1)
        assert said == []
        first.close()
        eventually(lambda: said)
    assert said == [True]


def test_a_killed_process_is_followed_elsewhere_when_its_lease_is_over(
    database_url: str, host: str, machines: Machines, first: Machine
) -> None:
    first.vanish()
    second = machines.at("second")
    with second.acquiring() as said:
        eventually(second.database.answered.is_set)
        assert said == []
        expire(database_url, host)
        eventually(lambda: said)
    assert second.keeper.lease.epoch == 2


def test_it_is_renewed_and_lasts(repository: Repository, host: str, machines: Machines) -> None:
    it = machines.at("here", seconds=0.6)
    assert it.keeper.acquire(it.stop)
    for _ in range(3):
        # Past what was certain, and not yet past the next renewal.
        it.clock.seconds += 0.5
        eventually(lambda: is_ours(it))
    assert it.keeper.lease.epoch == 1
    assert not it.keeper.lost.is_set()


def test_the_holder_stops_before_the_database_says_that_it_is_over(
    repository: Repository, host: str, first: Machine
) -> None:
    first.clock.seconds += 47.9
    assert is_ours(first)
    first.clock.seconds += 0.1
    lost(first)
    assert row(repository, host) == (first.presence.holder, 1, True)
    assert not first.keeper.lost.is_set()
    # What is certain is only that nobody else has it: its own clock may have run fast.
    first.clock.seconds -= 0.1
    assert is_ours(first)


def test_the_time_that_the_database_takes_is_not_counted_twice(machines: Machines) -> None:
    it = machines.at("here")
    slow = it.database._repository.acquire_lease

    def acquire(*arguments: object, **named: object) -> object:
        it.clock.seconds += 40.0
        return slow(*arguments, **named)  # type: ignore[arg-type]

    it.database.acquire_lease = acquire  # type: ignore[attr-defined]
    assert it.keeper.acquire(it.stop)
    assert it.keeper.state == (True, 1, 8.0)


def test_a_renewal_counts_from_before_it_was_asked_for(machines: Machines) -> None:
    it = machines.at("here", seconds=0.6)
    slow, asked = it.database._repository.renew_lease, threading.Event()

    def renew(*arguments: object, **named: object) -> None:
        it.clock.seconds += 100.0
        slow(*arguments, **named)  # type: ignore[arg-type]
        asked.set()

    it.database.renew_lease = renew  # type: ignore[attr-defined]
    assert it.keeper.acquire(it.stop)
    assert asked.wait(30)
    lost(it)


def test_the_loss_is_noticed(database_url: str, host: str, machines: Machines) -> None:
    first = machines.at("first", seconds=0.6)
    assert first.keeper.acquire(first.stop)
    second = machines.at("second")
    assert not first.keeper.lost.is_set()
    with second.acquiring() as said:
        while not said:
            expire(database_url, host)
    assert said == [True]
    assert first.keeper.lost.wait(30)
    # Whatever its own clock says.
    first.clock.seconds -= 1000
    lost(first)
    assert not first.keeper.state[0]
    first.close()
    assert is_ours(second)
    assert second.keeper.lease.epoch == 2


def test_while_the_database_is_away_the_lease_runs_out_and_comes_back(machines: Machines) -> None:
    it = machines.at("here", seconds=0.6)
    assert it.keeper.acquire(it.stop)
    it.database.go()
    assert is_ours(it)
    it.clock.seconds += 0.48
    lost(it)
    assert not it.keeper.lost.is_set()
    it.database.come_back()
    eventually(lambda: is_ours(it))
    assert it.keeper.lease.epoch == 1


def test_an_error_that_nobody_foresaw_does_not_end_the_renewals(machines: Machines) -> None:
    it = machines.at("here", seconds=0.6)
    assert it.keeper.acquire(it.stop)
    it.database.go(RuntimeError("nobody foresaw it"))
    it.clock.seconds += 0.48
    it.database.come_back()
    eventually(lambda: is_ours(it))


def test_while_the_database_is_away_one_waits_for_it(machines: Machines) -> None:
    it = machines.at("here")
    it.database.error = DatabaseUnavailable("away")
    with it.acquiring() as said:
        eventually(it.database.refused.is_set)
        assert said == []
        it.database.error = None
        eventually(lambda: said)
    assert said == [True]


def test_a_lease_that_cannot_be_given_back_runs_out(repository: Repository, host: str, first: Machine) -> None:
    first.database.error = DatabaseUnavailable("away")
    first.keeper.release()
    lost(first)
    assert row(repository, host) == (first.presence.holder, 1, True)


# The sessions of those who had the host before


def test_who_was_alone_has_nothing_to_end(first: Machine) -> None:
    assert first.keeper.lease.epoch == 1
    assert first.ended == []


def test_the_sessions_before_are_ended_once_and_before_anything_is_done(
    repository: Repository, machines: Machines, first: Machine
) -> None:
    for session in ("a", "b", "c"):
        first.keeper.opened(session)
    first.keeper.closed("b")
    first.vanish()
    second = machines.at("first")
    assert second.keeper.acquire(second.stop)
    assert second.ended == []
    second.keeper.opened("d")
    lease = second.keeper.lease
    assert second.ended == [["a", "c"]]
    assert second.keeper.lease == lease
    assert second.ended == [["a", "c"]]
    assert repository.sessions_before(lease) == []
    second.vanish()
    third = machines.at("first")
    assert third.keeper.acquire(third.stop)
    assert third.keeper.lease.epoch == 3
    assert third.ended == [["d"]]


def test_until_they_are_ended_there_is_no_lease_to_act_under(
    repository: Repository, machines: Machines, first: Machine
) -> None:
    first.keeper.opened("a")
    first.vanish()
    second = machines.at("first")
    assert second.keeper.acquire(second.stop)
    second.error = DatabaseUnavailable("or whatever keeps it")
    for times in (1, 2):
        with pytest.raises(DatabaseUnavailable):
            _ = second.keeper.lease
        assert second.ended == [["a"]] * times
    second.error = None
    assert second.keeper.lease.epoch == 2
    assert second.ended == [["a"]] * 3


def test_they_are_ended_even_if_one_who_followed_did_not_come_to_that(machines: Machines, first: Machine) -> None:
    first.keeper.opened("a")
    first.vanish()
    second = machines.at("first")
    assert second.keeper.acquire(second.stop)
    second.vanish()
    third = machines.at("first")
    assert third.keeper.acquire(third.stop)
    assert third.keeper.lease.epoch == 3
    assert third.ended == [["a"]]


def test_of_many_orders_one_ends_them(machines: Machines, first: Machine) -> None:
    first.keeper.opened("a")
    first.vanish()
    second = machines.at("first")
    assert second.keeper.acquire(second.stop)
    epochs: list[int] = []
    threads = [threading.Thread(target=lambda: epochs.append(second.keeper.lease.epoch)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert epochs == [2] * 5
    assert second.ended == [["a"]]


def test_a_session_is_not_used_if_it_cannot_be_recorded(machines: Machines, first: Machine) -> None:
    first.database.error = DatabaseUnavailable("away")
    with pytest.raises(DatabaseUnavailable):
        first.keeper.opened("a")
    # That it has ended need not be known.
    first.keeper.closed("a")


def test_a_session_is_not_used_if_the_host_is_anothers(
    database_url: str, repository: Repository, host: str, machines: Machines, first: Machine
) -> None:
    expire(database_url, host)
    second = machines.at("second")
    assert second.keeper.acquire(second.stop)
    # It has not noticed yet.
    assert is_ours(first)
    with pytest.raises(LeaseLost):
        first.keeper.opened("a")
    assert repository.sessions_before(dataclasses.replace(second.keeper.lease, epoch=99)) == []


def test_the_clock_counts_what_the_machine_slept() -> None:
    # Linux counts from the machine's start, with and without that: CLOCK_BOOTTIME and CLOCK_MONOTONIC.
    assert time.monotonic() <= boot_time() <= time.clock_gettime(time.CLOCK_BOOTTIME)
