"""Guests come to be with all that was asked for, or not at all; and go with all that is theirs, but for volumes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from compute_driver.driver import ComputeDriver
from compute_driver.errors import ImageTooLarge, VolumeInUse
from compute_driver.states import PowerState
from compute_driver.volumes import VdiConnection, Volume

from .conftest import Make
from .environments import Environment
from .wanted import AGENTLESS, DRIVE, FILE, FIRST, KEY, LARGE, SECOND, WITH_AGENT, Steps, Wanted, code, interface


def test_a_guest_has_all_that_was_asked_for(
    environment: Environment, driver: ComputeDriver, volume: Volume, make: Make
) -> None:
    steps, port = Steps(), interface(1, dhcp4=True)
    guest = make(
        sizes=(128, 2, 3),
        image=WITH_AGENT,
        admin_password=FIRST,
        injected_files=[FILE],
        ssh_keys=[KEY],
        interfaces=[port],
        volumes=[volume],
        node=environment.nodes[1],
        progress=steps,
    )
    assert steps.names == [
        "create_vm",
        "create_root_disk",
        "attach_interfaces",
        "attach_volume",
        "boot",
        "wait_for_agent",
        "set_admin_password",
        "add_ssh_keys",
        "inject_file",
    ]
    assert environment.state(guest) is PowerState.RUNNING
    assert environment.node(guest) == environment.nodes[1]
    assert environment.sizes(guest) == (128, 2, 3)
    assert environment.opens(guest, FIRST.value) and not environment.opens(guest, SECOND.value)
    assert environment.file(guest, FILE.path) == (FILE.content, FILE.mode)
    assert environment.ssh_keys(guest) == [KEY]
    assert environment.macs(guest) == {port.mac}
    assert environment.volumes(guest) == {volume.id}
    known = environment.memory.recall(guest.uuid)
    assert known is not None and known.identity is not None
    driver.destroy(guest)
    assert environment.state(guest) is None
    assert environment.memory.recall(guest.uuid) is None


def test_a_guest_that_is_not_to_run_is_there_and_off(
    environment: Environment, driver: ComputeDriver, make: Make
) -> None:
    steps = Steps()
    guest = make(power_on=False, config_drive=DRIVE, interfaces=[], progress=steps)
    assert steps.names == ["create_vm", "create_root_disk", "attach_interfaces", "config_drive"]
    assert environment.state(guest) is PowerState.SHUTDOWN
    assert environment.has_config_drive(guest)
    assert environment.macs(guest) == set()


def test_a_guest_has_its_metadata_from_the_beginning(environment: Environment, make: Make) -> None:
    guest = make(power_on=False, metadata={"role": "web", "tier": "1"})
    assert environment.metadata(guest) == {"role": "web", "tier": "1"}
    assert environment.metadata(make(power_on=False)) == {}


def test_an_agentless_guest_is_not_waited_for_and_has_one_interface(environment: Environment, make: Make) -> None:
    steps = Steps()
    guest = make(progress=steps)
    assert steps.names == ["create_vm", "create_root_disk", "attach_interfaces", "boot"]
    assert len(environment.macs(guest)) == 1
    assert environment.node(guest) in environment.nodes


def test_a_guest_is_not_made_twice(environment: Environment, driver: ComputeDriver, make: Make) -> None:
    guest = make()
    life = environment.life(guest)
    assert code(lambda: driver.spawn(guest, image=AGENTLESS, progress=Steps())) == "guest_exists"
    assert (environment.state(guest), environment.life(guest)) == (PowerState.RUNNING, life)


REFUSALS: dict[str, tuple[str, dict[str, Any]]] = {
    "a password without power": ("agent_not_running", {"admin_password": FIRST, "power_on": False}),
    "a key without power": ("agent_not_running", {"ssh_keys": [KEY], "power_on": False}),
    "a file without an agent": ("agent_not_in_image", {"injected_files": [FILE], "image": AGENTLESS}),
    "a config drive of another kind": ("bad_config_drive", {"config_drive": {"elsewhere/x": b""}}),
    "a config drive with folders": ("bad_config_drive", {"config_drive": {"openstack/latest/a/b": b""}}),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_what_cannot_be_is_refused_before_anything_is_made(
    environment: Environment, driver: ComputeDriver, why: str
) -> None:
    expected, wanted = REFUSALS[why]
    guest, steps, before = Wanted(), Steps(), environment.left()
    assert code(lambda: driver.spawn(guest, **{"image": WITH_AGENT, "progress": steps, **wanted})) == expected
    assert steps.names == []
    assert environment.state(guest) is None
    assert environment.left() == before


def test_what_fails_on_the_way_leaves_nothing_but_the_volume(
    environment: Environment, driver: ComputeDriver, volume: Volume, make: Make
) -> None:
    owner = make(volumes=[volume])
    guest, steps, before = Wanted(), Steps(), environment.left()
    with pytest.raises(VolumeInUse):
        driver.spawn(guest, image=AGENTLESS, volumes=[volume], progress=steps)
    assert steps.names[-2:] == ["attach_volume", "undo"]
    assert environment.state(guest) is None
    assert environment.left() == before
    assert environment.volumes(owner) == {volume.id}


def test_an_image_that_is_too_large_leaves_nothing(environment: Environment, driver: ComputeDriver) -> None:
    guest, before = Wanted(), environment.left()
    with pytest.raises(ImageTooLarge):
        driver.spawn(guest, image=LARGE, progress=Steps())
    assert environment.left() == before


def test_a_guest_boots_from_a_volume(
    environment: Environment, driver: ComputeDriver, volume: Volume, make: Make
) -> None:
    assert isinstance(volume.connection, VdiConnection)
    booted = Volume(volume.id, volume.connection, boot_index=0)
    steps = Steps()
    guest = make(image=None, volumes=[booted], power_on=False, progress=steps)
    assert "create_root_disk" not in steps.names
    assert environment.volumes(guest) == {volume.id}
    assert code(lambda: driver.rebuild(guest, image=AGENTLESS, progress=Steps())) == "root_disk_is_volume"
    assert environment.volumes(guest) == {volume.id}


STATES: dict[str, Callable[[ComputeDriver, Wanted], None]] = {
    "running": lambda it, who: None,
    "paused": lambda it, who: it.pause(who),
    "suspended": lambda it, who: it.suspend(who),
    "shutdown": lambda it, who: it.power_off(who),
    "rescued": lambda it, who: it.rescue(who, image=AGENTLESS, rescue_password=None, progress=Steps()),
    "resized": lambda it, who: it.migrate_disk_and_power_off(who, progress=Steps()),
}


@pytest.mark.parametrize("state", STATES)
def test_a_guest_goes_in_whatever_state_it_is_and_the_volume_stays(
    environment: Environment, driver: ComputeDriver, volume: Volume, state: str
) -> None:
    guest, before = Wanted(), environment.left()
    driver.spawn(guest, image=AGENTLESS, volumes=[volume], config_drive=DRIVE, progress=Steps())
    STATES[state](driver, guest)
    driver.destroy(guest, volumes=[volume])
    assert environment.state(guest) is None
    assert environment.left() == before
    assert environment.has_volume(volume)
    driver.destroy(guest, volumes=[volume])


def test_cleanup_leaves_the_guest_alone(environment: Environment, driver: ComputeDriver, make: Make) -> None:
    guest = make()
    life, sizes = environment.life(guest), environment.sizes(guest)
    driver.cleanup(guest)
    assert (environment.state(guest), environment.life(guest)) == (PowerState.RUNNING, life)
    assert environment.sizes(guest) == sizes
    driver.reboot(guest, "HARD")
