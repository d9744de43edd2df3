"""What a test can do with the fake driver; its verbs are tried in tests/contract/driver."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from agent_protocol.messages import Password, new_request_id
from agent_protocol.outcomes import Failed, Outcome, Refused, Unknown, Unreachable, Unsuccessful
from agent_protocol.sealed import SealedResult
from compute_driver.driver import ComputeDriver
from compute_driver.errors import InstanceNotFound
from compute_driver.fake.driver import FakeDriver
from compute_driver.fake.nodes import Node
from compute_driver.fake.steering import Call
from compute_driver.files import InjectedFile
from compute_driver.sealing import SealedRequest, read_receipt
from compute_driver.states import PowerState
from compute_driver.volumes import IscsiConnection, Volume
from tests.contract.driver.wanted import AGENTLESS, FILE, FIRST, KEY, SECOND, WITH_AGENT, Steps, Wanted, interface

LOST = Unknown("answer_lost", "nobody knows")


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver(nodes=[Node("one"), Node("two")])


@pytest.fixture
def guest(driver: FakeDriver) -> Wanted:
    instance = Wanted()
    driver.spawn(instance, image=WITH_AGENT, admin_password=FIRST, progress=Steps())
    driver.steering.clear_calls()
    return instance


# Faults


@pytest.mark.parametrize(("after", "state"), [(False, PowerState.RUNNING), (True, PowerState.PAUSED)])
def test_the_next_call_fails_before_or_after_its_effect(
    driver: FakeDriver, guest: Wanted, after: bool, state: PowerState
) -> None:
    driver.steering.fail("pause", LOST, after=after)
    with pytest.raises(Unknown) as caught:
        driver.pause(guest)
    assert caught.value is LOST
    assert driver.guest(guest).state is state
    driver.pause(guest)
    assert driver.guest(guest).state is PowerState.PAUSED


def test_faults_wait_for_one_call_each(driver: FakeDriver, guest: Wanted) -> None:
    errors = [Failed("first", ""), Failed("second", "")]
    for error in errors:
        driver.steering.fail("get_info", error)
    caught = []
    for _ in range(2):
        with pytest.raises(Failed) as each:
            driver.get_info(guest)
        caught.append(each.value)
    assert caught == errors
    assert driver.get_info(guest).state is PowerState.RUNNING


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    "step", ["create_vm", "create_root_disk", "attach_interfaces", "boot", "wait_for_agent", "set_admin_password"]
)
def test_a_spawn_that_fails_in_a_step_leaves_nothing(driver: FakeDriver, step: str, after: bool) -> None:
    instance, steps = Wanted(), Steps()
    driver.steering.fail(step, LOST, after=after)
    with pytest.raises(Unknown):
        driver.spawn(instance, image=WITH_AGENT, admin_password=FIRST, progress=steps)
    assert driver.guests == []
    assert step in steps.names
    was_there = step != "create_vm" or after
    assert ("undo" in steps.names) == was_there
    driver.spawn(instance, image=WITH_AGENT, progress=Steps())


class Recorder(Steps):
    """A Progress that cannot record one step, as when its database is away."""

    def __init__(self, away: str) -> None:
        super().__init__()
        self._away = away

    def step(self, name: str) -> AbstractContextManager[None]:
        if name == self._away:
            raise Unreachable("database_unavailable", "away")
        return super().step(name)


def test_an_undo_that_cannot_be_recorded_is_done_all_the_same(driver: FakeDriver) -> None:
    driver.steering.fail("boot", LOST)
    with pytest.raises(Unknown):
        driver.spawn(Wanted(), image=WITH_AGENT, progress=Recorder("undo"))
    assert driver.guests == []


STEPS: dict[str, tuple[str, Callable[[FakeDriver, Wanted], None]]] = {
    "rescue": ("boot", lambda it, who: it.rescue(who, image=AGENTLESS, rescue_password=None, progress=Steps())),
    "rebuild": ("replace_root_disk", lambda it, who: it.rebuild(who, image=AGENTLESS, progress=Steps())),
    "resize": ("keep_root_disk", lambda it, who: it.migrate_disk_and_power_off(who, progress=Steps())),
    "migration": ("move", lambda it, who: it.migrate_disk_and_power_off(who, node="two", progress=Steps())),
}


@pytest.mark.parametrize("verb", STEPS)
def test_what_fails_on_the_way_leaves_the_guest_as_it_was_and_off(driver: FakeDriver, guest: Wanted, verb: str) -> None:
    step, call = STEPS[verb]
    before, known = driver.guest(guest), driver.trust_agent(guest)
    driver.steering.fail(step, LOST)
    with pytest.raises(Unknown):
        call(driver, guest)
    after = driver.guest(guest)
    assert after.state is PowerState.SHUTDOWN
    assert (after.system, after.rescued, after.kept, after.node) == (before.system, None, None, before.node)
    assert driver.opens(guest, FIRST.value)
    driver.power_on(guest)
    assert driver.trust_agent(guest).identity == known.identity


@pytest.mark.parametrize("name", ["reboto", "", "find"])
def test_what_is_no_verb_and_no_step_is_not_waited_for(driver: FakeDriver, name: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        driver.steering.fail(name, LOST)
    with pytest.raises(ValueError, match="neither"), driver.steering.blocked(name):
        pass


# Gates


def test_a_verb_is_held_back_until_it_is_released(driver: FakeDriver, guest: Wanted) -> None:
    with driver.steering.blocked("pause") as gate:
        thread = threading.Thread(target=driver.pause, args=(guest,))
        thread.start()
        gate.await_arrival()
        # Everything else goes on meanwhile.
        assert driver.get_info(guest).state is PowerState.RUNNING
        driver.set_admin_password(guest, SECOND)
        gate.release()
        thread.join(30)
        assert not thread.is_alive()
    assert driver.guest(guest).state is PowerState.PAUSED


def test_whoever_is_held_back_goes_on_at_the_end_of_the_block(driver: FakeDriver) -> None:
    instance = Wanted()
    wanted = {"image": WITH_AGENT, "progress": Steps()}
    thread = threading.Thread(target=driver.spawn, args=(instance,), kwargs=wanted)
    with driver.steering.blocked("boot") as gate:
        thread.start()
        gate.await_arrival()
        assert driver.guest(instance).state is PowerState.SHUTDOWN
    thread.join(30)
    assert driver.guest(instance).state is PowerState.RUNNING
    driver.reboot(instance, "HARD")


def test_nobody_waits_for_ever(driver: FakeDriver, guest: Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compute_driver.fake.steering.PATIENCE", 0.01)
    with driver.steering.blocked("pause") as gate:
        with pytest.raises(TimeoutError):
            gate.await_arrival(0.01)
        with pytest.raises(TimeoutError):
            driver.pause(guest)
    assert driver.guest(guest).state is PowerState.RUNNING


# The log


def test_every_verb_is_logged_in_its_order(driver: FakeDriver, guest: Wanted) -> None:
    driver.reboot(guest, "SOFT")
    driver.power_off(guest, timeout=3.0)
    with pytest.raises(InstanceNotFound):
        driver.get_info(Wanted("nobody"))
    assert driver.steering.calls == [
        Call("reboot", guest.uuid, {"reboot_type": "SOFT"}),
        Call("power_off", guest.uuid, {"timeout": 3.0}),
        Call("get_info", "nobody", {}),
    ]
    assert driver.steering.verbs == ["reboot", "power_off", "get_info"]


def test_each_verb_of_the_contract_is_steered(driver: FakeDriver) -> None:
    for name in ComputeDriver.__abstractmethods__:
        assert hasattr(getattr(FakeDriver, name), "__wrapped__"), name


def test_no_secret_is_in_the_log_nor_anywhere_in_the_clear(driver: FakeDriver) -> None:
    chap = IscsiConnection("10.0.0.1", "iqn.2026-01.org.example:a", 0, chap_user="ada", chap_password=SECOND)
    instance = Wanted()
    driver.spawn(
        instance,
        image=WITH_AGENT,
        admin_password=FIRST,
        injected_files=[InjectedFile("/etc/secret", b"hunter2")],
        ssh_keys=[KEY],
        volumes=[Volume("volume-1", chap)],
        config_drive={"openstack/latest/user_data": b"hunter2"},
        progress=Steps(),
    )
    driver.change_instance_metadata(instance, {"key": ["+", "hunter2"]})
    (spawned, changed) = driver.steering.calls
    assert spawned.arguments["admin_password"] == "***"
    assert spawned.arguments["injected_files"] == ("/etc/secret",)
    assert spawned.arguments["volumes"] == ("volume-1",)
    assert changed.arguments == {"diff": ("key",)}
    told = repr(driver.steering.calls) + repr(driver.guest(instance).system)
    for secret in (FIRST.value, SECOND.value, "hunter2"):
        assert secret not in told
    kept = driver.guest(instance).system.password
    assert kept is not None
    assert FIRST.value.encode() not in kept.salt + kept.digest
    driver.set_admin_password(instance, FIRST)
    again = driver.guest(instance).system.password
    assert again is not None and again.digest != kept.digest
    assert driver.opens(instance, FIRST.value)


def test_what_a_test_is_shown_is_a_copy(driver: FakeDriver, guest: Wanted) -> None:
    shown = driver.guest(guest)
    shown.state = PowerState.CRASHED
    shown.metadata["key"] = "value"
    shown.system.ssh_keys.append(KEY)
    assert driver.guest(guest).state is PowerState.RUNNING
    assert driver.guest(guest).metadata == {}
    assert driver.guest(guest).system.ssh_keys == []


# What only the fake's guests do


def test_file_systems_freeze_until_they_are_thawed_or_the_guest_goes_down(driver: FakeDriver, guest: Wanted) -> None:
    driver.quiesce(guest, timeout=5.0)
    assert driver.guest(guest).frozen
    driver.unquiesce(guest)
    assert not driver.guest(guest).frozen
    driver.quiesce(guest, timeout=5.0)
    driver.reboot(guest, "HARD")
    assert not driver.guest(guest).frozen


def test_a_guest_without_an_agent_is_silent(driver: FakeDriver) -> None:
    instance = Wanted()
    driver.spawn(instance, image=AGENTLESS, progress=Steps())
    with pytest.raises(Unreachable) as caught:
        driver.set_admin_password(instance, FIRST)
    assert caught.value.code == "agent_silent"
    assert not driver.opens(instance, FIRST.value)


def test_the_end_of_a_long_console_is_told(driver: FakeDriver, guest: Wanted) -> None:
    driver.write_console(guest, b"x" * 200_000 + b"end")
    output = driver.get_console_output(guest)
    assert (len(output), output[-3:]) == (100 * 1024, b"end")


def test_a_static_address_is_told_to_the_agent_once(driver: FakeDriver) -> None:
    port = interface(1, addresses=["192.0.2.7/24"])
    plain, drive, steps = Wanted(), Wanted(), Steps()
    driver.spawn(plain, image=WITH_AGENT, interfaces=[port], progress=steps)
    assert "apply_network" in steps.names
    assert driver.guest(plain).system.network == (port,)
    files = {"openstack/latest/network_data.json": b"{}"}
    driver.spawn(drive, image=WITH_AGENT, interfaces=[port], config_drive=files, progress=Steps())
    assert driver.guest(drive).system.network == ()


def test_a_fresh_system_knows_nothing_of_the_old_one(driver: FakeDriver, guest: Wanted) -> None:
    driver.inject_file(guest, FILE)
    before = driver.guest(guest).system.identity.public
    driver.rescue(guest, image=WITH_AGENT, rescue_password=SECOND, progress=Steps())
    rescue = driver.guest(guest).system
    assert (rescue.files, rescue.identity.public == before) == ({}, False)
    assert not driver.opens(guest, FIRST.value)
    driver.unrescue(guest)
    assert driver.opens(guest, FIRST.value) and driver.guest(guest).system.files == {FILE.path: FILE}
    driver.rebuild(guest, image=WITH_AGENT, progress=Steps())
    assert driver.guest(guest).system.files == {}
    assert not driver.opens(guest, FIRST.value)


# Sealed requests


def sealed(driver: FakeDriver, guest: Wanted, name: str, value: str) -> tuple[SealedResult, str]:
    """How a request ends that is sealed here, and its code outside of the seal."""
    agent = driver.trust_agent(guest)
    request = SealedRequest.seal(agent, agent.guest, name, value, timeout=10.0)
    answer = driver.send_sealed(guest, request.request_id, request.value, request.box)
    assert agent.identity is not None
    receipt = read_receipt(agent.identity, agent.guest, request.request_id, answer.value)
    assert receipt.outcome is answer.outcome
    return request.open(receipt, answer.value, answer.box), answer.code


def test_a_sealed_password_opens(driver: FakeDriver, guest: Wanted) -> None:
    result, code = sealed(driver, guest, "password", '{"value": "second Pass-word 1"}')
    assert (result.outcome, code) == (Outcome.SUCCEEDED, "")
    assert driver.opens(guest, SECOND.value)


@pytest.mark.parametrize(
    ("name", "value", "outcome"),
    [
        ("dance", "", Outcome.UNSUPPORTED),
        ("password", "{}", Outcome.REFUSED),
        ("password", "[]", Outcome.REFUSED),
        ("password", '{"value": "two\\nlines"}', Outcome.REFUSED),
        ("file_put", '{"path": "/x", "content": "?"}', Outcome.REFUSED),
    ],
)
def test_a_sealed_request_that_cannot_be_is_answered(
    driver: FakeDriver, guest: Wanted, name: str, value: str, outcome: Outcome
) -> None:
    result, _ = sealed(driver, guest, name, value)
    assert result.outcome is outcome
    assert driver.opens(guest, FIRST.value)
    assert driver.guest(guest).system.files == {}


def test_keys_come_and_go_sealed(driver: FakeDriver, guest: Wanted) -> None:
    sealed(driver, guest, "ssh_keys", f'{{"add": ["{KEY}"]}}')
    assert driver.guest(guest).system.ssh_keys == [KEY]
    sealed(driver, guest, "ssh_keys", f'{{"remove": ["{KEY}"]}}')
    assert driver.guest(guest).system.ssh_keys == []


def test_what_was_sealed_for_an_earlier_boot_opens_nothing(driver: FakeDriver, guest: Wanted) -> None:
    agent = driver.trust_agent(guest)
    request = SealedRequest.seal(agent, agent.guest, "password", '{"value": "x"}', timeout=10.0)
    driver.reboot(guest, "HARD")
    answer = driver.send_sealed(guest, request.request_id, request.value, request.box)
    assert (answer.outcome, answer.code) == (Outcome.REFUSED, "unknown_key")
    assert driver.opens(guest, FIRST.value)


def test_what_nobody_sealed_is_refused(driver: FakeDriver, guest: Wanted) -> None:
    with pytest.raises(Refused) as caught:
        driver.send_sealed(guest, new_request_id(), '{"name":"password","value":"x"}', "")
    assert caught.value.code == "not_sealed"


# Several hypervisors


@contextmanager
def refused(code: str) -> Iterator[None]:
    with pytest.raises(Unsuccessful) as caught:
        yield
    assert caught.value.code == code


def test_a_guest_goes_to_another_hypervisor_with_all_that_is_its_own(driver: FakeDriver, guest: Wanted) -> None:
    other = FakeDriver(nodes=[Node("three")])
    target = other.check_can_live_migrate_destination(guest, node="three")
    with refused("bad_migration_target"):
        driver.live_migration(guest, target, progress=Steps())
    driver.introduce(other)
    steps = Steps()
    driver.live_migration(guest, target, progress=steps)
    assert steps.names == ["check", "migrate"]
    assert (driver.guests, len(other.guests)) == ([], 1)
    other.post_live_migration_at_destination(guest)
    assert other.opens(guest, FIRST.value)
    moved = other.guest(guest)
    assert (moved.node, moved.state) == ("three", PowerState.RUNNING)


def test_volumes_and_rescued_guests_cannot_leave(driver: FakeDriver, guest: Wanted) -> None:
    other = FakeDriver(nodes=[Node("three")])
    driver.introduce(other)
    volume = Volume("volume-1", IscsiConnection("10.0.0.1", "iqn.2026-01.org.example:a", 0))
    driver.attach_volume(guest, volume)
    target = other.check_can_live_migrate_destination(guest, node="three")
    with refused("volume_in_pool"):
        driver.live_migration(guest, target, progress=Steps())
    driver.detach_volume(guest, volume)
    driver.rescue(guest, image=AGENTLESS, rescue_password=None, progress=Steps())
    with refused("instance_rescued"):
        driver.live_migration(guest, target, progress=Steps())
    assert len(driver.guests) == 1


def test_a_guest_finds_no_place_when_no_node_takes_any(driver: FakeDriver) -> None:
    for name in ("one", "two"):
        driver.set_host_enabled(name, False)
    with refused("node_disabled"):
        driver.spawn(Wanted(), image=AGENTLESS, progress=Steps())
    assert driver.guests == []


def test_devices_have_their_limits(driver: FakeDriver, guest: Wanted) -> None:
    connection = IscsiConnection("10.0.0.1", "iqn.2026-01.org.example:a", 0)
    shared: Any = [Volume(f"volume-{number}", connection) for number in range(16)]
    for volume in shared[:15]:
        driver.attach_volume(guest, volume)
    with refused("no_free_device"):
        driver.attach_volume(guest, shared[15])
    with refused("bad_device"):
        driver.attach_volume(guest, replace(shared[15], device="99"))
    with refused("device_in_use"):
        driver.attach_volume(guest, replace(shared[15], device="0"))
    assert len(driver.guest(guest).volumes) == 15


def test_a_password_is_one_that_may_be_sent() -> None:
    with pytest.raises(Refused):
        Password("")
