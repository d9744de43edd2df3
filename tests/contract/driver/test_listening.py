"""What a driver tells by itself: that guests have changed, whoever changed them, also after it was cut off."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from agent_protocol.outcomes import Unknown
from compute_driver.driver import ComputeDriver
from compute_driver.errors import InstanceNotFound
from compute_driver.states import PowerState
from tests.compute_driver.xenapi.waiting import eventually

from .conftest import Make
from .environments import Environment
from .wanted import AGENTLESS, WITH_AGENT, Steps, Wanted

DEADLINE = 20.0
"""Seconds within which whatever has changed must be told."""


class Listener:
    """Asks the driver again whenever it is told that something has changed, as a manager does."""

    def __init__(self, driver: ComputeDriver) -> None:
        self._driver = driver
        self._news: queue.Queue[tuple[str, PowerState | None, str]] = queue.Queue()
        self.threads: set[str] = set()
        self.instances: list[str] = []
        driver.listen(self._changed)

    def _changed(self, uuid: str) -> None:
        self.threads.add(threading.current_thread().name)
        self.instances.append(uuid)
        try:
            info = self._driver.get_info(Wanted(uuid))
        except InstanceNotFound:
            self._news.put((uuid, None, ""))
        else:
            self._news.put((uuid, info.state, info.node))

    def await_news(self, guest: Wanted, state: PowerState | None, node: str | None = None) -> None:
        """Wait until it is told of this guest, and the driver says this of it then. What came before is forgotten."""
        while True:
            try:
                told = self._news.get(timeout=DEADLINE)
            except queue.Empty:
                pytest.fail(f"nobody told that the guest is {state}")
            if told[:2] == (guest.uuid, state) and node in (None, told[2]):
                return


@pytest.fixture
def other(environment: Environment) -> Iterator[ComputeDriver]:
    """Another client of the hypervisor."""
    with closing(environment.beside()) as it:
        yield it


@pytest.fixture
def listener(environment: Environment) -> Iterator[Listener]:
    """To a driver of its own: nobody can be asked to listen no more."""
    with closing(environment.beside()) as driver:
        it = Listener(driver)
        yield it


def test_what_a_guest_does_by_itself_is_told(environment: Environment, listener: Listener, make: Make) -> None:
    guest = make()
    listener.await_news(guest, PowerState.RUNNING)
    environment.shut_down_inside(guest)
    listener.await_news(guest, PowerState.SHUTDOWN, "")
    assert threading.current_thread().name not in listener.threads


def test_what_others_do_is_told(listener: Listener, other: ComputeDriver, make: Make) -> None:
    guest = make()
    other.pause(guest)
    listener.await_news(guest, PowerState.PAUSED)
    other.unpause(guest)
    listener.await_news(guest, PowerState.RUNNING)
    other.power_off(guest, timeout=0)
    listener.await_news(guest, PowerState.SHUTDOWN)


def test_what_appears_and_goes_is_told(listener: Listener, other: ComputeDriver) -> None:
    guest = Wanted()
    other.spawn(guest, image=AGENTLESS, power_on=False, progress=Steps())
    listener.await_news(guest, PowerState.SHUTDOWN, "")
    other.destroy(guest)
    listener.await_news(guest, None)


def test_where_a_guest_runs_is_told(
    environment: Environment, listener: Listener, driver: ComputeDriver, make: Make
) -> None:
    here, there = environment.nodes
    guest = make(node=here)
    listener.await_news(guest, PowerState.RUNNING, here)
    target = driver.check_can_live_migrate_destination(guest, node=there)
    driver.live_migration(guest, target, progress=Steps())
    listener.await_news(guest, PowerState.RUNNING, there)
    assert driver.get_info(guest).node == there == environment.node(guest)


def test_what_changed_while_nothing_could_be_told_is_told_afterwards(
    environment: Environment, driver: ComputeDriver, other: ComputeDriver, make: Make
) -> None:
    stays, changes, goes = make(), make(), make()
    listener = Listener(driver)
    for guest in (stays, changes, goes):
        driver.power_off(guest, timeout=0)
        listener.await_news(guest, PowerState.SHUTDOWN)
    listener.instances.clear()
    with environment.silence():
        other.power_on(changes)
        other.destroy(goes)
        # Whoever asks meanwhile hears the truth, and something else than before the silence and after it.
        other.power_on(stays)
        assert driver.get_info(stays).state is PowerState.RUNNING
        other.power_off(stays, timeout=0)
        assert listener.instances == []
    listener.await_news(changes, PowerState.RUNNING)
    eventually(lambda: {stays.uuid, goes.uuid} <= set(listener.instances))
    assert driver.get_info(stays).state is PowerState.SHUTDOWN


def test_after_a_restart_of_the_hypervisors_service_all_guests_are_told(
    environment: Environment, listener: Listener, make: Make
) -> None:
    guest = make()
    listener.await_news(guest, PowerState.RUNNING)
    environment.restart()
    listener.await_news(guest, PowerState.RUNNING)
    environment.shut_down_inside(guest)
    listener.await_news(guest, PowerState.SHUTDOWN)


def test_who_fails_keeps_nothing_from_others(environment: Environment, other: ComputeDriver, make: Make) -> None:
    called: list[str] = []

    def fail(uuid: str) -> None:
        called.append(uuid)
        raise RuntimeError("of no interest")

    with closing(environment.beside()) as driver:
        driver.listen(fail)
        listener = Listener(driver)
        guests = [make(), make()]
        for guest in guests:
            other.pause(guest)
            listener.await_news(guest, PowerState.PAUSED)
        eventually(lambda: {guest.uuid for guest in guests} <= set(called))


def test_a_driver_that_was_closed_tells_nothing(environment: Environment, other: ComputeDriver, make: Make) -> None:
    guest, driver = make(), environment.beside()
    closed, open_still = Listener(driver), Listener(other)
    other.pause(guest)
    closed.await_news(guest, PowerState.PAUSED)
    driver.close()
    closed.instances.clear()
    other.unpause(guest)
    open_still.await_news(guest, PowerState.RUNNING)
    assert closed.instances == []


def test_a_guest_has_a_node_while_it_runs(environment: Environment, driver: ComputeDriver, make: Make) -> None:
    there = environment.nodes[1]
    guest = make(node=there)
    assert driver.get_info(guest).node == there
    driver.pause(guest)
    assert driver.get_info(guest).node == there
    driver.power_off(guest)
    assert driver.get_info(guest).node == ""


# Until nothing is done to it


def test_a_guest_at_rest_is_quiet_and_so_is_none(driver: ComputeDriver, make: Make) -> None:
    driver.await_quiet(make(), timeout=0)
    driver.await_quiet(Wanted(), timeout=0)


def test_what_another_client_began_is_waited_for(environment: Environment, driver: ComputeDriver, make: Make) -> None:
    guest, neighbour, quiet = make(image=WITH_AGENT), make(), threading.Event()

    def wait() -> None:
        driver.await_quiet(guest, timeout=DEADLINE)
        assert driver.get_info(guest).state is PowerState.SHUTDOWN
        quiet.set()

    thread = threading.Thread(target=wait)
    with environment.slow_shutdown(guest):
        with pytest.raises(Unknown) as caught:
            driver.await_quiet(guest, timeout=0.1)
        assert caught.value.code == "guest_busy"
        assert "clean_shutdown" in caught.value.message
        driver.await_quiet(neighbour, timeout=0)
        thread.start()
        assert not quiet.wait(0.3)
        assert environment.state(guest) is PowerState.RUNNING
    thread.join(DEADLINE)
    assert quiet.is_set()
