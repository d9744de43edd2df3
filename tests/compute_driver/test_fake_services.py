"""Fake drivers as services have them: several of one hypervisor, fenced, listening, and waiting for each other."""

from __future__ import annotations

import threading

import pytest

from agent_protocol.outcomes import Unknown, Unsuccessful
from compute_driver.fake.driver import FakeDriver
from compute_driver.fake.nodes import Node
from compute_driver.fencing import LeaseLost
from compute_driver.states import PowerState
from tests.contract.driver.fences import RecordingFence
from tests.contract.driver.wanted import FIRST, WITH_AGENT, Steps, Wanted

from .test_fake import LOST, STEPS


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver(nodes=[Node("one"), Node("two")])


def made(driver: FakeDriver) -> Wanted:
    """A new guest."""
    instance = Wanted()
    driver.spawn(instance, image=WITH_AGENT, admin_password=FIRST, progress=Steps())
    driver.steering.clear_calls()
    return instance


@pytest.fixture
def guest(driver: FakeDriver) -> Wanted:
    return made(driver)


def test_a_driver_beside_another_has_the_same_guests_and_its_own_knobs(driver: FakeDriver, guest: Wanted) -> None:
    other = FakeDriver(beside=driver)
    driver.steering.clear_calls()
    other.pause(guest)
    assert driver.guest(guest).state is PowerState.PAUSED
    assert other.get_available_nodes() == driver.get_available_nodes() == ["one", "two"]
    assert (driver.steering.verbs, other.steering.verbs) == (["get_available_nodes"], ["pause", "get_available_nodes"])
    other.destroy(guest)
    assert driver.guests == []


def test_the_fence_is_asked_before_a_verb_and_in_each_step_and_not_for_questions(driver: FakeDriver) -> None:
    fence, steps = RecordingFence(), Steps()
    other, instance = FakeDriver(fence=fence, beside=driver), Wanted()
    other.get_info(made(driver))
    other.get_available_resource("one")
    assert (fence.checks, fence.sessions) == (0, [])
    other.spawn(instance, image=WITH_AGENT, admin_password=FIRST, progress=steps)
    # Once more for the session that is opened first.
    assert fence.checks == 1 + 1 + len(steps.names)
    assert other.sessions == set(fence.sessions)
    other.close()
    assert (other.sessions, fence.ended) == (set(), fence.sessions)


@pytest.mark.parametrize("verb", STEPS)
def test_what_was_half_done_when_the_lease_went_is_not_undone(driver: FakeDriver, guest: Wanted, verb: str) -> None:
    fence, (step, call) = RecordingFence(), STEPS[verb]
    other = FakeDriver(fence=fence, beside=driver)
    errors: list[Unsuccessful] = []

    def act() -> None:
        try:
            call(other, guest)
        except Unsuccessful as error:
            errors.append(error)

    with other.steering.blocked(step) as gate:
        thread = threading.Thread(target=act)
        thread.start()
        gate.await_arrival()
        fence.holds = False
        before = driver.guest(guest)
        gate.release()
        thread.join(30)
    after = driver.guest(guest)
    assert (after.state, after.system, after.rescued, after.kept, after.node) == (
        before.state,
        before.system,
        before.rescued,
        before.kept,
        before.node,
    )
    assert after.state is PowerState.SHUTDOWN
    assert [error.code for error in errors] == ["lease_lost"]


def test_what_was_ended_while_the_fence_was_asked_asks_it_again(driver: FakeDriver, guest: Wanted) -> None:
    fence, errors = RecordingFence(), list[LeaseLost]()
    other = FakeDriver(fence=fence, beside=driver)
    other.pause(guest)

    def unpause() -> None:
        try:
            other.unpause(guest)
        except LeaseLost as error:
            errors.append(error)

    with fence.stopping() as held:
        thread = threading.Thread(target=unpause)
        thread.start()
        assert held.arrived.wait(30)
        driver.end_sessions(fence.sessions)
        fence.holds = False
        held.released.set()
        thread.join(30)
    assert (len(errors), fence.ended) == (1, fence.sessions)
    assert driver.guest(guest).state is PowerState.PAUSED


def test_listeners_wait_while_telling_is_held_back(driver: FakeDriver, guest: Wanted) -> None:
    told, heard = list[str](), threading.Event()

    def hear(uuid: str) -> None:
        told.append(uuid)
        heard.set()

    driver.listen(hear)
    with driver.steering.blocked("tell") as gate:
        driver.pause(guest)
        gate.await_arrival()
        assert told == []
    assert heard.wait(30)
    assert told == [guest.uuid]
    with pytest.raises(ValueError, match="neither"):
        driver.steering.fail("tell", LOST)


def test_what_is_done_to_one_guest_keeps_no_other_waiting(driver: FakeDriver, guest: Wanted) -> None:
    other = made(driver)
    with driver.busy(guest, "snapshot"), driver.busy(guest, "snapshot"):
        driver.await_quiet(other, timeout=0)
        with pytest.raises(Unknown) as caught:
            driver.await_quiet(guest, timeout=0)
    assert (caught.value.code, "snapshot" in caught.value.message) == ("guest_busy", True)
    driver.await_quiet(guest, timeout=0)
