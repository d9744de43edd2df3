"""Processes that each give a few orders hold a host together; a service wants it for itself."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest

from agent_protocol.outcomes import Busy
from compute_driver.db.repository import Repository
from compute_driver.errors import DatabaseUnavailable, HostHeld
from tests.compute_driver.db.making import expire

from .keeping import Machine, Machines, eventually, is_ours, lost


class Taking:
    """Counts how often somebody took over. hold(): who does that is kept at it."""

    def __init__(self) -> None:
        self.times = 0
        self.begun = threading.Event()
        self._go_on = threading.Event()
        self._go_on.set()

    def __call__(self) -> None:
        self.times += 1
        self.begun.set()
        assert self._go_on.wait(10)

    def hold(self) -> None:
        self._go_on.clear()

    def let_go(self) -> None:
        self._go_on.set()


@pytest.fixture
def taking() -> Taking:
    return Taking()


def sharing(machines: Machines, taking: Taking, name: str = "here") -> Machine:
    it = machines.at(name)
    it.keeper.share(taking)
    return it


def test_the_first_takes_over_and_the_others_join(machines: Machines, taking: Taking) -> None:
    one = sharing(machines, taking)
    assert one.keeper.lease.epoch == 1
    two, three = (sharing(machines, taking) for _ in range(2))
    assert [it.keeper.lease.epoch for it in (two, three)] == [1, 1]
    assert is_ours(one) and is_ours(two)
    assert taking.times == 1
    assert (one.ended, two.ended) == ([], [])


def test_the_host_is_free_when_the_last_has_ended(
    repository: Repository, host: str, machines: Machines, taking: Taking
) -> None:
    one, two = (sharing(machines, taking) for _ in range(2))
    one.close()
    assert is_ours(two)
    assert [it.holder for it in repository.list_hosts() if it.name == host] == [two.presence.holder]
    two.close()
    assert [it.holder for it in repository.list_hosts() if it.name == host] == [""]
    three = sharing(machines, taking)
    assert (three.keeper.lease.epoch, taking.times) == (2, 2)


def test_one_that_is_killed_beside_others_is_put_right_by_the_next_first(machines: Machines, taking: Taking) -> None:
    one, two = (sharing(machines, taking) for _ in range(2))
    one.keeper.opened("a")
    one.vanish()
    assert sharing(machines, taking).ended == []
    # It was the first that came; the others live on.
    assert is_ours(two) and taking.times == 1


def test_one_that_is_killed_alone_is_put_right_by_the_next(machines: Machines, taking: Taking) -> None:
    one = sharing(machines, taking)
    one.keeper.opened("a")
    one.vanish()
    two = sharing(machines, taking)
    assert (two.keeper.lease.epoch, taking.times) == (2, 2)
    assert two.ended == [["a"]]


def test_nobody_joins_before_the_first_has_taken_over(machines: Machines, taking: Taking) -> None:
    taking.hold()
    one, two = machines.at("here"), machines.at("here")
    threads = [threading.Thread(target=it.keeper.share, args=(taking,)) for it in (one, two)]
    threads[0].start()
    assert taking.begun.wait(10)
    threads[1].start()
    threads[1].join(0.2)
    assert is_ours(one)
    lost(two)
    taking.let_go()
    for thread in threads:
        thread.join(10)
    assert is_ours(two)
    assert taking.times == 1


def test_who_waits_for_one_that_dies_while_it_takes_over_takes_over(machines: Machines, taking: Taking) -> None:
    taking.hold()
    one, two = machines.at("here"), machines.at("here")

    def be_killed() -> None:
        # It is only as if: its thread lives on, and finds its files closed.
        with suppress(ValueError):
            one.keeper.share(taking)

    threads = [threading.Thread(target=be_killed), threading.Thread(target=two.keeper.share, args=(taking,))]
    threads[0].start()
    assert taking.begun.wait(10)
    taking.begun.clear()
    threads[1].start()
    one.vanish()
    assert taking.begun.wait(10)
    taking.let_go()
    for thread in threads:
        thread.join(10)
    assert (two.keeper.lease.epoch, taking.times) == (2, 2)


def test_who_waits_while_the_last_gives_it_back_takes_over(machines: Machines, taking: Taking) -> None:
    one, two = sharing(machines, taking), machines.at("here")
    # Given back, and its process has not ended yet.
    one.keeper.release()
    thread = threading.Thread(target=two.keeper.share, args=(taking,))
    thread.start()
    thread.join(0.2)
    one.presence.close()
    thread.join(10)
    assert (two.keeper.lease.epoch, taking.times) == (2, 2)


def test_who_waits_for_a_service_that_is_killed_takes_over(machines: Machines, taking: Taking, first: Machine) -> None:
    first.keeper.opened("a")
    it = machines.at("first")
    thread = threading.Thread(target=it.keeper.share, args=(taking,))
    thread.start()
    thread.join(0.2)
    assert taking.times == 0
    first.vanish()
    thread.join(10)
    assert (it.keeper.lease.epoch, taking.times) == (2, 1)
    assert it.ended == [["a"]]


def test_beside_a_service_it_is_held(
    machines: Machines, taking: Taking, first: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compute_driver.service.leases._JOIN_TIMEOUT", 0.1)
    for name in ("first", "elsewhere"):
        with pytest.raises(Busy) as caught:
            sharing(machines, taking, name)
        assert caught.value.code == "host_held"
    assert taking.times == 0
    assert is_ours(first)


def test_a_service_waits_until_they_have_ended(machines: Machines, taking: Taking) -> None:
    one, service = sharing(machines, taking), machines.at("here")
    with service.acquiring() as said:
        service.stop.wait(0.1)
        assert (said, is_ours(service)) == ([], False)
        one.close()
        eventually(lambda: said)
    assert service.keeper.lease.epoch == 2


def test_they_do_not_join_what_another_machine_has_taken(
    database_url: str, host: str, machines: Machines, taking: Taking
) -> None:
    one = sharing(machines, taking)
    expire(database_url, host)
    elsewhere = machines.at("elsewhere")
    assert elsewhere.keeper.acquire(elsewhere.stop)
    with pytest.raises(HostHeld) as caught:
        sharing(machines, taking)
    assert caught.value.holder == elsewhere.presence.holder
    one.close()
    assert is_ours(elsewhere)


def test_whose_database_is_away_lets_the_next_one_try(machines: Machines, taking: Taking) -> None:
    it = machines.at("here")
    it.database.error = DatabaseUnavailable("away")
    with pytest.raises(DatabaseUnavailable):
        it.keeper.share(taking)
    it.close()
    assert sharing(machines, taking).keeper.lease.epoch == 1


def test_many_that_come_and_go_never_miss_each_other(machines: Machines, taking: Taking) -> None:
    """Each has the lease when it has come in, however the others come and go; and none came in unprepared."""
    failures: list[BaseException] = []
    together = threading.Barrier(4)

    def come_and_go() -> None:
        try:
            together.wait(10)
            for _ in range(8):
                it = machines.at("here")
                it.keeper.share(taking)
                assert is_ours(it)
                it.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    last = sharing(machines, taking)
    assert last.keeper.lease.epoch == taking.times
