"""What each verb makes of a guest in each state."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from compute_driver.driver import ComputeDriver
from compute_driver.states import PowerState

from .environments import Environment
from .wanted import AGENTLESS, Steps, Wanted, code

RUNNING, PAUSED, SUSPENDED, SHUTDOWN = (
    PowerState.RUNNING,
    PowerState.PAUSED,
    PowerState.SUSPENDED,
    PowerState.SHUTDOWN,
)

VERBS: dict[str, Callable[[ComputeDriver, Wanted], None]] = {
    "power_on": lambda driver, guest: driver.power_on(guest),
    "power_off": lambda driver, guest: driver.power_off(guest),
    "power_off at once": lambda driver, guest: driver.power_off(guest, timeout=0),
    "SOFT": lambda driver, guest: driver.reboot(guest, "SOFT"),
    "HARD": lambda driver, guest: driver.reboot(guest, "HARD"),
    "pause": lambda driver, guest: driver.pause(guest),
    "unpause": lambda driver, guest: driver.unpause(guest),
    "suspend": lambda driver, guest: driver.suspend(guest),
    "resume": lambda driver, guest: driver.resume(guest),
}

STATE, NOT_RUNNING = "instance_power_state", "instance_not_running"

TABLE: dict[str, dict[PowerState, PowerState | str]] = {
    "power_on": {RUNNING: RUNNING, PAUSED: STATE, SUSPENDED: STATE, SHUTDOWN: RUNNING},
    "power_off": {RUNNING: SHUTDOWN, PAUSED: SHUTDOWN, SUSPENDED: SHUTDOWN, SHUTDOWN: SHUTDOWN},
    "power_off at once": {RUNNING: SHUTDOWN, PAUSED: SHUTDOWN, SUSPENDED: SHUTDOWN, SHUTDOWN: SHUTDOWN},
    "SOFT": {RUNNING: RUNNING, PAUSED: NOT_RUNNING, SUSPENDED: NOT_RUNNING, SHUTDOWN: NOT_RUNNING},
    "HARD": {RUNNING: RUNNING, PAUSED: RUNNING, SUSPENDED: RUNNING, SHUTDOWN: RUNNING},
    "pause": {RUNNING: PAUSED, PAUSED: PAUSED, SUSPENDED: NOT_RUNNING, SHUTDOWN: NOT_RUNNING},
    "unpause": {RUNNING: RUNNING, PAUSED: RUNNING, SUSPENDED: STATE, SHUTDOWN: STATE},
    "suspend": {RUNNING: SUSPENDED, PAUSED: NOT_RUNNING, SUSPENDED: SUSPENDED, SHUTDOWN: NOT_RUNNING},
    "resume": {RUNNING: RUNNING, PAUSED: STATE, SUSPENDED: RUNNING, SHUTDOWN: STATE},
}
"""The state afterwards, or the code of the refusal, after which nothing is different."""

BOOTS = {
    ("power_on", SHUTDOWN),
    *(("HARD", state) for state in (RUNNING, PAUSED, SUSPENDED, SHUTDOWN)),
    ("SOFT", RUNNING),
}
"""Where the guest begins anew."""


@pytest.fixture(scope="module")
def subject(environment: Environment) -> Iterator[Wanted]:
    instance = Wanted()
    environment.driver.spawn(instance, image=AGENTLESS, progress=Steps())
    yield instance
    environment.driver.destroy(instance)
    assert environment.left() == []


def bring(driver: ComputeDriver, guest: Wanted, state: PowerState) -> None:
    """Whatever state it is in."""
    driver.power_off(guest, timeout=0)
    if state is not SHUTDOWN:
        driver.power_on(guest)
    if state is PAUSED:
        driver.pause(guest)
    if state is SUSPENDED:
        driver.suspend(guest)


@pytest.mark.parametrize("state", [RUNNING, PAUSED, SUSPENDED, SHUTDOWN], ids=lambda state: state.word)
@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_in_each_state(
    environment: Environment, driver: ComputeDriver, subject: Wanted, verb: str, state: PowerState
) -> None:
    bring(driver, subject, state)
    assert environment.state(subject) is state
    before, expected = environment.life(subject), TABLE[verb][state]
    if isinstance(expected, str):
        assert code(lambda: VERBS[verb](driver, subject)) == expected
        assert environment.state(subject) is state
    else:
        VERBS[verb](driver, subject)
        assert environment.state(subject) is expected
    assert driver.get_info(subject).state is environment.state(subject)
    if (verb, state) in BOOTS:
        assert environment.life(subject) != before
    elif environment.state(subject) is state:
        assert environment.life(subject) == before


def test_a_reboot_of_no_known_kind_is_refused(environment: Environment, driver: ComputeDriver, subject: Wanted) -> None:
    bring(driver, subject, RUNNING)
    before = environment.life(subject)
    assert code(lambda: driver.reboot(subject, "soft")) == "bad_reboot_type"
    assert environment.life(subject) == before
