"""Volumes and interfaces come and go while the guest runs or is off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from compute_driver.driver import ComputeDriver
from compute_driver.errors import VolumeInUse
from compute_driver.volumes import Volume

from .conftest import Make
from .environments import Environment
from .wanted import Wanted, code, interface


@pytest.mark.parametrize("power_on", [True, False], ids=["running", "off"])
def test_a_volume_comes_once_and_goes_once(
    environment: Environment, driver: ComputeDriver, volume: Volume, make: Make, power_on: bool
) -> None:
    guest = make(power_on=power_on)
    device = driver.attach_volume(guest, volume)
    assert device
    assert driver.attach_volume(guest, volume) == device
    assert environment.volumes(guest) == {volume.id}
    driver.detach_volume(guest, volume)
    assert environment.volumes(guest) == set()
    driver.detach_volume(guest, volume)
    assert environment.has_volume(volume)
    assert driver.attach_volume(guest, volume) == device


def test_a_volume_has_the_device_that_was_asked_for(
    environment: Environment, driver: ComputeDriver, volume: Volume, make: Make
) -> None:
    guest = make()
    assert driver.attach_volume(guest, replace(volume, device="xvdf")) == "xvdf"
    other = environment.new_volume()
    assert code(lambda: driver.attach_volume(guest, replace(other, device="/dev/xvdf"))) == "device_in_use"
    assert environment.volumes(guest) == {volume.id}
    environment.remove_volume(other)


def test_a_volume_is_one_guests_alone(
    environment: Environment, driver: ComputeDriver, volume: Volume, make: Make
) -> None:
    first, second = make(), make()
    driver.attach_volume(first, volume)
    with pytest.raises(VolumeInUse):
        driver.attach_volume(second, volume)
    assert (environment.volumes(first), environment.volumes(second)) == ({volume.id}, set())
    driver.detach_volume(second, volume)
    assert environment.volumes(first) == {volume.id}
    driver.detach_volume(first, volume)
    driver.attach_volume(second, volume)
    assert environment.volumes(second) == {volume.id}


@pytest.mark.parametrize("power_on", [True, False], ids=["running", "off"])
def test_an_interface_comes_once_and_goes_once(
    environment: Environment, driver: ComputeDriver, make: Make, power_on: bool
) -> None:
    guest, port = make(power_on=power_on, interfaces=[interface(1)]), interface(2)
    driver.attach_interface(guest, port)
    driver.attach_interface(guest, port)
    assert environment.macs(guest) == {interface(1).mac, port.mac}
    driver.detach_interface(guest, port)
    assert environment.macs(guest) == {interface(1).mac}
    driver.detach_interface(guest, port)
    assert environment.macs(guest) == {interface(1).mac}


def test_a_port_has_one_mac_address(environment: Environment, driver: ComputeDriver, make: Make) -> None:
    guest = make(interfaces=[interface(1)])
    other = replace(interface(1), mac=interface(2).mac)
    assert code(lambda: driver.attach_interface(guest, other)) == "port_attached"
    assert environment.macs(guest) == {interface(1).mac}


STATES: dict[str, Callable[[ComputeDriver, Wanted], None]] = {
    "paused": lambda it, who: it.pause(who),
    "suspended": lambda it, who: it.suspend(who),
}


@pytest.mark.parametrize("state", STATES)
def test_nothing_is_plugged_while_a_guest_stands_still(
    environment: Environment, driver: ComputeDriver, volume: Volume, make: Make, state: str
) -> None:
    guest = make(interfaces=[interface(1)])
    other = environment.new_volume()
    driver.attach_volume(guest, volume)
    STATES[state](driver, guest)
    calls: list[Callable[[], object]] = [
        lambda: driver.attach_volume(guest, other),
        lambda: driver.detach_volume(guest, volume),
        lambda: driver.attach_interface(guest, interface(2)),
        lambda: driver.detach_interface(guest, interface(1)),
    ]
    for call in calls:
        assert code(call) == "instance_not_settled"
    # What is not there is not taken away.
    driver.detach_volume(guest, other)
    driver.detach_interface(guest, interface(2))
    assert environment.volumes(guest) == {volume.id}
    assert environment.macs(guest) == {interface(1).mac}
    environment.remove_volume(other)
