"""What a guest's agent does, and what else is said to a guest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from agent_protocol.outcomes import Outcome
from compute_driver.driver import ComputeDriver
from compute_driver.files import InjectedFile
from compute_driver.sealing import SealedRequest
from compute_driver.states import PowerState

from .environments import Environment
from .wanted import FILE, FIRST, KEY, OTHER_KEY, SECOND, THIRD, Wanted, code, interface

ORDERS: dict[str, Callable[[ComputeDriver, Wanted], object]] = {
    "set_admin_password": lambda it, who: it.set_admin_password(who, THIRD),
    "inject_file": lambda it, who: it.inject_file(who, InjectedFile("/etc/refused", b"")),
    "add_ssh_keys": lambda it, who: it.add_ssh_keys(who, [OTHER_KEY]),
    "inject_network_info": lambda it, who: it.inject_network_info(who, [interface(1)]),
    "reset_network": lambda it, who: it.reset_network(who),
    "quiesce": lambda it, who: it.quiesce(who, timeout=5.0),
    "unquiesce": lambda it, who: it.unquiesce(who),
    "trust_agent": lambda it, who: it.trust_agent(who),
    "send_sealed": lambda it, who: it.send_sealed(who, "id", "value", ""),
    "get_console_output": lambda it, who: it.get_console_output(who),
    "get_vnc_console": lambda it, who: it.get_vnc_console(who),
}
"""What needs a guest that runs."""


def test_a_password_opens_and_the_one_before_does_not(
    environment: Environment, driver: ComputeDriver, guest: Wanted
) -> None:
    for new, old in ((SECOND, FIRST), (FIRST, SECOND), (FIRST, SECOND)):
        driver.set_admin_password(guest, new)
        assert environment.opens(guest, new.value)
        assert not environment.opens(guest, old.value)


def test_a_file_is_there_and_replaced(environment: Environment, driver: ComputeDriver, guest: Wanted) -> None:
    path = "/srv/a file"
    assert environment.file(guest, path) is None
    driver.inject_file(guest, InjectedFile(path, b"one", 0o644))
    assert environment.file(guest, path) == (b"one", 0o644)
    large = bytes(range(256)) * 512
    driver.inject_file(guest, InjectedFile(path, large, 0o600))
    assert environment.file(guest, path) == (large, 0o600)


def test_a_new_file_without_a_mode_is_the_superusers(
    environment: Environment, driver: ComputeDriver, guest: Wanted
) -> None:
    driver.inject_file(guest, InjectedFile("/srv/private", b""))
    assert environment.file(guest, "/srv/private") == (b"", 0o600)


def test_keys_are_added_once_and_stay(environment: Environment, driver: ComputeDriver, guest: Wanted) -> None:
    driver.add_ssh_keys(guest, [KEY])
    driver.add_ssh_keys(guest, [KEY, OTHER_KEY])
    driver.add_ssh_keys(guest, [OTHER_KEY])
    assert environment.ssh_keys(guest) == [KEY, OTHER_KEY]


def test_the_network_is_configured_in_place_of_what_was(
    environment: Environment, driver: ComputeDriver, guest: Wanted
) -> None:
    environment.let_configure(guest)
    (mac, *_) = environment.macs(guest)
    port = replace(interface(1, addresses=["192.0.2.7/24"], gateway4="192.0.2.1"), mac=mac)
    driver.inject_network_info(guest, [port])
    assert environment.configures(guest, "192.0.2.7")
    driver.inject_network_info(guest, [replace(interface(1, addresses=["192.0.2.8/24"]), mac=mac)])
    assert environment.configures(guest, "192.0.2.8") and not environment.configures(guest, "192.0.2.7")


def test_an_agent_of_today_must_be_told_its_network(driver: ComputeDriver, guest: Wanted) -> None:
    assert code(lambda: driver.reset_network(guest)) == "network_data_needed"


def test_metadata_is_written_changed_and_removed(
    environment: Environment, driver: ComputeDriver, guest: Wanted
) -> None:
    driver.change_instance_metadata(guest, {"role": ["+", "web"], "tier": ["+", "1"]})
    driver.change_instance_metadata(guest, {"role": ["+", "mail"], "tier": ["-"], "never": ["-"]})
    assert environment.metadata(guest) == {"role": "mail"}
    for bad in (["*", "x"], ["+"], ["+", "a", "b"], []):
        diff = {"other": ["+", "x"], "role": bad}
        assert code(lambda diff=diff: driver.change_instance_metadata(guest, diff)) == "bad_metadata"
    assert environment.metadata(guest) == {"role": "mail"}
    driver.change_instance_metadata(guest, {"role": ["-"]})
    assert environment.metadata(guest) == {}


def test_metadata_of_a_guest_that_is_off_is_there(
    environment: Environment, driver: ComputeDriver, guest: Wanted
) -> None:
    driver.power_off(guest, timeout=0)
    driver.change_instance_metadata(guest, {"role": ["+", "web"]})
    assert environment.metadata(guest) == {"role": "web"}
    driver.change_instance_metadata(guest, {"role": ["-"]})


def test_another_agent_gets_nothing_until_it_is_trusted(
    environment: Environment, driver: ComputeDriver, guest: Wanted
) -> None:
    before = environment.memory.recall(guest.uuid)
    assert before is not None
    environment.replace_agent(guest)
    assert code(lambda: driver.set_admin_password(guest, THIRD)) == "identity_changed"
    assert not environment.opens(guest, THIRD.value)
    assert environment.memory.recall(guest.uuid) == before
    trusted = driver.trust_agent(guest)
    assert trusted.identity not in (None, before.identity)
    assert environment.memory.recall(guest.uuid) == trusted
    driver.set_admin_password(guest, SECOND)
    assert environment.opens(guest, SECOND.value)


def test_what_its_caller_sealed_is_done_once(environment: Environment, driver: ComputeDriver, guest: Wanted) -> None:
    driver.trust_agent(guest)
    agent = environment.memory.recall(guest.uuid)
    assert agent is not None
    path = "/srv/sealed"
    command = InjectedFile(path, b"by its caller" * 400, 0o600)
    request = SealedRequest.seal(agent, agent.guest, "file_put", command.to_command(), timeout=20.0)
    answer = driver.send_sealed(guest, request.request_id, request.value, request.box)
    assert (answer.outcome, answer.code) == (Outcome.SUCCEEDED, "")
    assert environment.file(guest, path) == (command.content, 0o600)
    driver.inject_file(guest, InjectedFile(path, b"since", 0o600))
    again = driver.send_sealed(guest, request.request_id, request.value, request.box)
    assert again.outcome is not Outcome.SUCCEEDED
    assert environment.file(guest, path) == (b"since", 0o600)
    later = environment.memory.recall(guest.uuid)
    assert later is not None and later.key != agent.key and later.identity == agent.identity


def test_file_systems_are_frozen_and_thawed_where_there_are_any(
    environment: Environment, driver: ComputeDriver, guest: Wanted
) -> None:
    assert code(lambda: driver.quiesce(guest, timeout=0.5)) == "bad_timeout"
    if not environment.can_freeze:
        assert code(lambda: driver.quiesce(guest, timeout=5.0)) == "nothing_runs"
        assert code(lambda: driver.unquiesce(guest)) == "nothing_runs"
        return
    assert code(lambda: driver.unquiesce(guest)) == "not_frozen"
    driver.quiesce(guest, timeout=5.0)
    driver.unquiesce(guest)
    assert code(lambda: driver.unquiesce(guest)) == "not_frozen"


def test_the_console_is_that_of_the_present_boot(
    environment: Environment, driver: ComputeDriver, guest: Wanted
) -> None:
    driver.reboot(guest, "HARD")
    output = driver.get_console_output(guest)
    assert b"boots" in output
    assert output.endswith(b"\r\n")


def test_a_screen_is_found_and_its_token_kept_secret(driver: ComputeDriver, guest: Wanted) -> None:
    one, two = driver.get_vnc_console(guest), driver.get_vnc_console(guest)
    assert one.host == "127.0.0.1" and one.port > 0
    assert one.internal_access_path == two.internal_access_path
    assert one.internal_access_path.startswith("/console?uuid=")
    assert one.token and one.token != two.token
    assert one.token not in repr(one)


STATES: dict[PowerState, Callable[[ComputeDriver, Wanted], None]] = {
    PowerState.PAUSED: lambda it, who: it.pause(who),
    PowerState.SUSPENDED: lambda it, who: it.suspend(who),
    PowerState.SHUTDOWN: lambda it, who: it.power_off(who, timeout=0),
}


@pytest.fixture(params=STATES, ids=lambda state: state.word)
def state(request: pytest.FixtureRequest, environment: Environment, shared: Wanted) -> PowerState:
    """One in which the guest is, and does not run."""
    wanted: PowerState = request.param
    if environment.state(shared) is not wanted:
        environment.driver.reboot(shared, "HARD")
        STATES[wanted](environment.driver, shared)
    return wanted


@pytest.mark.parametrize("order", ORDERS)
def test_a_guest_that_does_not_run_gets_no_orders(
    environment: Environment, driver: ComputeDriver, shared: Wanted, state: PowerState, order: str
) -> None:
    assert environment.state(shared) is state
    before = environment.memory.recall(shared.uuid)
    assert code(lambda: ORDERS[order](driver, shared)) == "instance_not_running"
    assert environment.memory.recall(shared.uuid) == before
    assert not environment.opens(shared, THIRD.value)
    assert environment.file(shared, "/etc/refused") is None
    assert environment.state(shared) is state


def test_diagnostics_tell_of_the_guest_in_each_state(
    environment: Environment, driver: ComputeDriver, guest: Wanted
) -> None:
    told = driver.get_diagnostics(guest)
    assert (told.state, told.memory_maximum, len(told.disks), len(told.nics)) == ("running", 64, 1, 1)
    assert told.uptime is not None and told.uptime >= 0
    driver.power_off(guest, timeout=0)
    told = driver.get_diagnostics(guest)
    assert (told.state, told.uptime, told.cpu_usage) == ("shutdown", None, ())


def test_instances_are_listed_by_name_and_uuid(driver: ComputeDriver, guest: Wanted) -> None:
    assert driver.list_instance_uuids().count(guest.uuid) == 1
    assert driver.list_instances().count(f"instance-{guest.uuid}") == 1


def test_everything_that_was_told_survives_a_reboot(
    environment: Environment, driver: ComputeDriver, guest: Wanted
) -> None:
    driver.inject_file(guest, FILE)
    driver.set_admin_password(guest, FIRST)
    driver.reboot(guest, "SOFT")
    assert environment.file(guest, FILE.path) == (FILE.content, FILE.mode)
    assert environment.opens(guest, FIRST.value)
    driver.set_admin_password(guest, SECOND)
    assert environment.opens(guest, SECOND.value)
