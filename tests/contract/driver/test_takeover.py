"""One service takes a hypervisor over from another one, which may not know it yet: the old one changes nothing more."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing

import pytest

from agent_protocol.outcomes import Outcome, Unsuccessful
from compute_driver.driver import ComputeDriver
from compute_driver.errors import DatabaseUnavailable
from compute_driver.states import PowerState

from .conftest import Make
from .environments import Environment
from .fences import PATIENCE, RecordingFence
from .wanted import AGENTLESS, FIRST, Steps, Wanted, code, interface


@pytest.fixture
def fence() -> RecordingFence:
    return RecordingFence()


@pytest.fixture
def old(environment: Environment, fence: RecordingFence) -> Iterator[ComputeDriver]:
    """The driver of a service that has the lease, to begin with."""
    with closing(environment.beside(fence)) as it:
        yield it


@pytest.fixture
def heir(environment: Environment) -> Iterator[ComputeDriver]:
    """The driver of the service that takes over."""
    with closing(environment.beside(RecordingFence())) as it:
        yield it


def begin(driver: ComputeDriver, guest: Wanted) -> None:
    """Have it act once, so that it has its sessions."""
    driver.pause(guest)
    driver.unpause(guest)


def test_sessions_are_known_before_they_are_used_and_when_they_have_ended(
    old: ComputeDriver, fence: RecordingFence, make: Make
) -> None:
    guest = make()
    begin(old, guest)
    assert fence.sessions and fence.checks >= 2
    assert {str(uuid.UUID(session)) for session in fence.sessions} == set(fence.sessions)
    old.close()
    assert sorted(fence.ended) == sorted(fence.sessions)


def test_a_session_that_cannot_be_recorded_is_not_used(
    environment: Environment, old: ComputeDriver, fence: RecordingFence, make: Make
) -> None:
    guest = make()
    fence.error = DatabaseUnavailable("away")
    assert code(lambda: old.pause(guest)) == "database_unavailable"
    assert environment.state(guest) is PowerState.RUNNING
    fence.error = None
    old.pause(guest)
    assert environment.state(guest) is PowerState.PAUSED


VERBS: dict[str, Callable[[ComputeDriver, Wanted], object]] = {
    "pause": lambda it, who: it.pause(who),
    "power_off": lambda it, who: it.power_off(who),
    "power_off at once": lambda it, who: it.power_off(who, timeout=0),
    "reboot": lambda it, who: it.reboot(who, "HARD"),
    "suspend": lambda it, who: it.suspend(who),
    "destroy": lambda it, who: it.destroy(who),
    "rebuild": lambda it, who: it.rebuild(who, image=AGENTLESS, progress=Steps()),
    "rescue": lambda it, who: it.rescue(who, image=AGENTLESS, rescue_password=None, progress=Steps()),
    "resize": lambda it, who: it.migrate_disk_and_power_off(who, progress=Steps()),
    "attach_interface": lambda it, who: it.attach_interface(who, interface(9)),
    "set_admin_password": lambda it, who: it.set_admin_password(who, FIRST),
    "metadata": lambda it, who: it.change_instance_metadata(who, {"key": ["+", "value"]}),
    "spawn": lambda it, who: it.spawn(Wanted(), image=AGENTLESS, progress=Steps()),
}


@pytest.mark.parametrize("verb", VERBS)
def test_without_the_lease_nothing_is_changed(
    environment: Environment, old: ComputeDriver, fence: RecordingFence, make: Make, verb: str
) -> None:
    guest = make()
    begin(old, guest)

    def seen() -> tuple[object, ...]:
        told = (environment.life(guest), environment.node(guest), environment.sizes(guest))
        return (environment.state(guest), *told, environment.macs(guest), environment.metadata(guest))

    before, left = seen(), environment.left()
    fence.holds = False
    with pytest.raises(Unsuccessful) as caught:
        VERBS[verb](old, guest)
    assert (caught.value.code, caught.value.outcome) == ("lease_lost", Outcome.UNKNOWN)
    assert (seen(), environment.left()) == (before, left)


class Losing(Steps):
    """A Progress that loses the lease when a step begins."""

    def __init__(self, fence: RecordingFence, step: str) -> None:
        super().__init__()
        self._fence = fence
        self._step = step

    def step(self, name: str) -> AbstractContextManager[None]:
        self._fence.holds = self._fence.holds and name != self._step
        return super().step(name)


def test_what_was_half_done_when_the_lease_went_is_left_to_the_heir(
    environment: Environment, old: ComputeDriver, fence: RecordingFence, heir: ComputeDriver
) -> None:
    before, instance = environment.left(), Wanted()
    assert code(lambda: old.spawn(instance, image=AGENTLESS, progress=Losing(fence, "boot"))) == "lease_lost"
    assert environment.state(instance) is PowerState.SHUTDOWN
    heir.end_sessions(fence.sessions)
    heir.await_quiet(instance, timeout=PATIENCE)
    heir.destroy(instance)
    assert environment.state(instance) is None
    assert environment.left() == before


def test_whose_sessions_were_ended_goes_on_if_the_host_is_still_its_own(
    environment: Environment, old: ComputeDriver, fence: RecordingFence, heir: ComputeDriver, make: Make
) -> None:
    guest = make()
    begin(old, guest)
    before = list(fence.sessions)
    heir.end_sessions(before)
    old.pause(guest)
    assert environment.state(guest) is PowerState.PAUSED
    assert set(fence.sessions) > set(before)
    # Ended ones are fine, and so is one that never was.
    heir.end_sessions([*before, str(uuid.uuid4())])


def test_whose_sessions_were_ended_does_nothing_more_without_the_lease(
    environment: Environment, old: ComputeDriver, fence: RecordingFence, heir: ComputeDriver, make: Make
) -> None:
    guest = make()
    begin(old, guest)
    fence.holds = False
    heir.end_sessions(fence.sessions)
    known = list(fence.sessions)
    assert code(lambda: old.pause(guest)) == "lease_lost"
    assert environment.state(guest) is PowerState.RUNNING
    assert fence.sessions == known


@pytest.mark.parametrize("verb", ["pause", "power_off at once", "reboot"])
def test_who_was_stopped_between_asking_and_acting_changes_nothing_any_more(
    environment: Environment, old: ComputeDriver, fence: RecordingFence, heir: ComputeDriver, make: Make, verb: str
) -> None:
    guest = make()
    begin(old, guest)
    life, codes = environment.life(guest), []
    with fence.stopping() as held:
        thread = threading.Thread(target=lambda: codes.append(code(lambda: VERBS[verb](old, guest))))
        thread.start()
        assert held.arrived.wait(PATIENCE)
        heir.end_sessions(fence.sessions)
        heir.await_quiet(guest, timeout=PATIENCE)
        fence.holds = False
        held.released.set()
        thread.join(PATIENCE)
    assert codes == ["lease_lost"]
    assert (environment.state(guest), environment.life(guest)) == (PowerState.RUNNING, life)
