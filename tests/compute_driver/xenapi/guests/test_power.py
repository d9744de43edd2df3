from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent_protocol.outcomes import Outcome, Refused, Unknown, Unsuccessful, Unsupported
from compute_driver.agents import AgentsInMemory
from compute_driver.errors import XenServerAnswerLost, XenServerFailure
from compute_driver.states import PowerState
from compute_driver.xenapi.connection.session import Connection, XenServer
from compute_driver.xenapi.driver import XenServerDriver
from compute_driver.xenapi.guests import power, vms

from ..conftest import Calls, Objects, Wanted

RUNNING, PAUSED, SUSPENDED, SHUTDOWN = (
    PowerState.RUNNING,
    PowerState.PAUSED,
    PowerState.SUSPENDED,
    PowerState.SHUTDOWN,
)

VERBS: dict[str, Callable[[XenServerDriver, Wanted], None]] = {
    "power_on": XenServerDriver.power_on,
    "power_off": XenServerDriver.power_off,
    "power_off at once": lambda driver, guest: driver.power_off(guest, timeout=0),
    "SOFT": lambda driver, guest: driver.reboot(guest, "SOFT"),
    "HARD": lambda driver, guest: driver.reboot(guest, "HARD"),
    "pause": XenServerDriver.pause,
    "unpause": XenServerDriver.unpause,
    "suspend": XenServerDriver.suspend,
    "resume": XenServerDriver.resume,
}

TABLE: dict[str, dict[PowerState, PowerState | None]] = {
    "power_on": {RUNNING: RUNNING, PAUSED: None, SUSPENDED: None, SHUTDOWN: RUNNING},
    "power_off": {RUNNING: SHUTDOWN, PAUSED: SHUTDOWN, SUSPENDED: SHUTDOWN, SHUTDOWN: SHUTDOWN},
    "power_off at once": {RUNNING: SHUTDOWN, PAUSED: SHUTDOWN, SUSPENDED: SHUTDOWN, SHUTDOWN: SHUTDOWN},
    "SOFT": {RUNNING: RUNNING, PAUSED: None, SUSPENDED: None, SHUTDOWN: None},
    "HARD": {RUNNING: RUNNING, PAUSED: RUNNING, SUSPENDED: RUNNING, SHUTDOWN: RUNNING},
    "pause": {RUNNING: PAUSED, PAUSED: PAUSED, SUSPENDED: None, SHUTDOWN: None},
    "unpause": {RUNNING: RUNNING, PAUSED: RUNNING, SUSPENDED: None, SHUTDOWN: None},
    "suspend": {RUNNING: SUSPENDED, PAUSED: None, SUSPENDED: SUSPENDED, SHUTDOWN: None},
    "resume": {RUNNING: RUNNING, PAUSED: None, SUSPENDED: RUNNING, SHUTDOWN: None},
}
"""What each verb makes of a guest in each state; None where it is refused and nothing happens."""


@pytest.fixture
def driver(connection: Connection, objects: Objects, calls: Calls) -> Iterator[XenServerDriver]:
    it = XenServerDriver(connection, AgentsInMemory(), agent_timeout=5.0, boot_timeout=5.0)
    yield it
    it.close()


def guest(driver: XenServerDriver, state: PowerState = RUNNING) -> Wanted:
    """A guest in that state."""
    instance = Wanted()
    vm = vms.create(driver._server, instance)
    if state is not SHUTDOWN:
        vm = power.start(driver._server, vm)
    if state is PAUSED:
        power.pause(driver._server, vm)
    if state is SUSPENDED:
        power.suspend(driver._server, vm)
    return instance


def domid(driver: XenServerDriver, instance: Wanted) -> int:
    return vms.find(driver._server, instance).domid


@pytest.mark.parametrize("state", [RUNNING, PAUSED, SUSPENDED, SHUTDOWN])
@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_in_each_state(driver: XenServerDriver, calls: Calls, verb: str, state: PowerState) -> None:
    instance = guest(driver, state)
    before = domid(driver, instance)
    calls.methods.clear()
    wanted = TABLE[verb][state]
    if wanted is None:
        with pytest.raises(Refused):
            VERBS[verb](driver, instance)
    else:
        VERBS[verb](driver, instance)
    if wanted is None or (wanted is state and verb not in ("SOFT", "HARD")):
        assert all(".get_" in method for method in calls.methods)
        assert domid(driver, instance) == before
    if verb in ("SOFT", "HARD") and wanted is not None:
        assert domid(driver, instance) > before
    assert driver.get_info(instance).state is (wanted or state)


def test_a_reboot_is_soft_or_hard(driver: XenServerDriver) -> None:
    with pytest.raises(Refused) as caught:
        driver.reboot(Wanted(), "soft")
    assert caught.value.code == "bad_reboot_type"


def test_a_guest_starts_on_the_host_that_was_chosen(driver: XenServerDriver, calls: Calls) -> None:
    vm = vms.find(driver._server, guest(driver, SHUTDOWN))
    (host,) = driver._server.call("host.get_all")
    assert power.start(driver._server, vm, host=host).host == host
    assert "Async.VM.start_on" in calls.methods


Action = Callable[[XenServer, tuple[Any, ...]], Any]


def instead(monkeypatch: pytest.MonkeyPatch, method: str, action: Action) -> list[str]:
    """Have this done in the place of a call; gives the names of all calls, as they come."""
    real, seen = XenServer.call, []

    def call(server: XenServer, name: str, *arguments: Any, timeout: float | None = None) -> Any:
        seen.append(name)
        if name == method:
            return action(server, arguments)
        return real(server, name, *arguments, timeout=timeout)

    monkeypatch.setattr(XenServer, "call", call)
    return seen


def fails(*details: str) -> Action:
    def action(server: XenServer, arguments: tuple[Any, ...]) -> Any:
        raise XenServerFailure(details)

    return action


@pytest.mark.parametrize("code", ["VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT", "VM_LACKS_FEATURE", "VM_SHUTDOWN_TIMEOUT"])
def test_a_guest_that_does_not_comply_loses_its_power(
    driver: XenServerDriver, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    instance = guest(driver)
    seen = instead(monkeypatch, "Async.VM.clean_shutdown", fails(code, "OpaqueRef:vm"))
    driver.power_off(instance)
    assert "Async.VM.hard_shutdown" in seen
    assert driver.get_info(instance).state is SHUTDOWN


def test_a_guest_is_asked_first_and_not_forced_when_it_complies(driver: XenServerDriver, calls: Calls) -> None:
    instance = guest(driver)
    calls.methods.clear()
    driver.power_off(instance, timeout=30)
    assert "Async.VM.clean_shutdown" in calls.methods
    assert "Async.VM.hard_shutdown" not in calls.methods


def test_a_guest_that_is_not_to_be_asked_is_not(driver: XenServerDriver, calls: Calls) -> None:
    instance = guest(driver)
    calls.methods.clear()
    driver.power_off(instance, timeout=0)
    assert "Async.VM.clean_shutdown" not in calls.methods


@pytest.mark.parametrize("method", ["clean_shutdown", "hard_shutdown"])
def test_a_guest_that_goes_down_by_itself_meanwhile_is_off(
    driver: XenServerDriver, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    instance = guest(driver)

    def action(server: XenServer, arguments: tuple[Any, ...]) -> Any:
        server.call("VM.hard_shutdown", *arguments)
        raise XenServerFailure(["VM_BAD_POWER_STATE", arguments[0], "running", "halted"])

    seen = instead(monkeypatch, f"Async.VM.{method}", action)
    driver.power_off(instance, timeout=None if method == "clean_shutdown" else 0)
    assert f"Async.VM.{method}" in seen
    assert driver.get_info(instance).state is SHUTDOWN


def test_a_hard_reboot_brings_back_a_guest_that_goes_down_meanwhile(
    driver: XenServerDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = guest(driver)

    def action(server: XenServer, arguments: tuple[Any, ...]) -> Any:
        server.call("VM.hard_shutdown", *arguments)
        raise XenServerFailure(["VM_BAD_POWER_STATE", arguments[0], "running", "halted"])

    instead(monkeypatch, "Async.VM.hard_reboot", action)
    driver.reboot(instance, "HARD")
    assert driver.get_info(instance).state is RUNNING


@pytest.mark.parametrize(
    ("code", "kind", "told"),
    [
        ("VM_LACKS_FEATURE", Unsupported, "guest_cannot_be_asked"),
        ("VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT", Refused, "guest_did_not_comply"),
        ("VM_SHUTDOWN_TIMEOUT", Unknown, "guest_not_down_in_time"),
        ("VM_BAD_POWER_STATE", Refused, "instance_power_state"),
        ("SR_BACKEND_FAILURE_47", XenServerFailure, "xenserver_sr_backend_failure_47"),
    ],
)
def test_a_soft_reboot_tells_what_the_guest_did(
    driver: XenServerDriver, monkeypatch: pytest.MonkeyPatch, code: str, kind: type[Unsuccessful], told: str
) -> None:
    instance = guest(driver)
    before = domid(driver, instance)
    seen = instead(monkeypatch, "Async.VM.clean_reboot", fails(code, "OpaqueRef:vm", "x"))
    with pytest.raises(kind) as caught:
        driver.reboot(instance, "SOFT")
    assert caught.value.code == told
    assert domid(driver, instance) == before
    assert "Async.VM.hard_reboot" not in seen


def test_a_guest_that_cannot_be_suspended_is_unsupported(
    driver: XenServerDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = guest(driver)
    instead(monkeypatch, "Async.VM.suspend", fails("VM_NON_SUSPENDABLE", "OpaqueRef:vm", "why"))
    with pytest.raises(Unsupported):
        driver.suspend(instance)
    assert driver.get_info(instance).state is RUNNING


LOSSES = [
    ("power_on", "VM.start", SHUTDOWN, RUNNING),
    ("power_off", "VM.clean_shutdown", RUNNING, SHUTDOWN),
    ("power_off at once", "VM.hard_shutdown", RUNNING, SHUTDOWN),
    ("SOFT", "VM.clean_reboot", RUNNING, RUNNING),
    ("HARD", "VM.hard_reboot", RUNNING, RUNNING),
    ("pause", "VM.pause", RUNNING, PAUSED),
    ("unpause", "VM.unpause", PAUSED, RUNNING),
    ("suspend", "VM.suspend", RUNNING, SUSPENDED),
    ("resume", "VM.resume", SUSPENDED, RUNNING),
]


@pytest.mark.parametrize(("verb", "method", "state", "wanted"), LOSSES, ids=lambda it: str(it))
def test_a_lost_answer_is_success_when_the_effect_is_there(
    driver: XenServerDriver,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    method: str,
    state: PowerState,
    wanted: PowerState,
) -> None:
    instance = guest(driver, state)
    before = domid(driver, instance)

    def action(server: XenServer, arguments: tuple[Any, ...]) -> Any:
        real(server, method, *arguments)
        raise XenServerAnswerLost(method)

    real = XenServer.call
    instead(monkeypatch, f"Async.{method}", action)
    VERBS[verb](driver, instance)
    assert driver.get_info(instance).state is wanted
    if verb in ("SOFT", "HARD"):
        assert domid(driver, instance) > before


def test_a_lost_answer_without_the_effect_stays_unknown(
    driver: XenServerDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = guest(driver)
    monkeypatch.setattr(power, "SETTLE_TIMEOUT", 0.1)

    def action(server: XenServer, arguments: tuple[Any, ...]) -> Any:
        raise XenServerAnswerLost("VM.pause")

    instead(monkeypatch, "Async.VM.pause", action)
    with pytest.raises(Unknown) as caught:
        driver.pause(instance)
    assert caught.value.code == "xenserver_answer_lost"
    assert driver.get_info(instance).state is RUNNING


def test_success_without_the_effect_is_not_believed(driver: XenServerDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    instance = guest(driver)
    monkeypatch.setattr(XenServer, "run", lambda *arguments, **named: "")
    with pytest.raises(Unsuccessful) as caught:
        driver.pause(instance)
    assert (caught.value.outcome, caught.value.code) == (Outcome.FAILED, "power_state_changed")
