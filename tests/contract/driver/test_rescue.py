"""Another system in a guest: for a while (rescue), or for good (rebuild); and copies of the one that it has."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator

import pytest

from agent_protocol.outcomes import Unreachable
from compute_driver.driver import ComputeDriver
from compute_driver.errors import ImageTooLarge
from compute_driver.images import DiskFormat, Image, NewImage
from compute_driver.states import PowerState
from compute_driver.volumes import Volume

from .conftest import Make
from .environments import Environment
from .wanted import AGENTLESS, FILE, FIRST, LARGE, SECOND, WITH_AGENT, Steps, code, image, interface

MINE = b"what the guest wrote" + bytes(492)


def test_a_rescued_guest_boots_another_disk_and_is_itself_again(
    environment: Environment, driver: ComputeDriver, make: Make
) -> None:
    guest, steps = make(image=WITH_AGENT, admin_password=FIRST), Steps()
    driver.power_off(guest)
    environment.write_disk(guest, MINE)
    driver.power_on(guest)
    known = environment.memory.recall(guest.uuid)
    driver.rescue(guest, image=WITH_AGENT, rescue_password=SECOND, progress=steps)
    assert steps.names == ["power_off", "create_rescue_disk", "boot", "wait_for_agent", "set_rescue_password"]
    assert environment.state(guest) is PowerState.RUNNING
    assert environment.opens(guest, SECOND.value)
    life = environment.life(guest)
    driver.unrescue(guest)
    assert environment.state(guest) is PowerState.RUNNING
    assert environment.life(guest) != life
    assert environment.memory.recall(guest.uuid) == known
    driver.power_off(guest)
    assert environment.read_disk(guest, len(MINE)) == MINE


def test_a_rescued_guest_is_left_alone_by_what_needs_its_own_disk(
    environment: Environment, driver: ComputeDriver, make: Make
) -> None:
    guest = make(power_on=False)
    environment.write_disk(guest, MINE)
    driver.rescue(guest, image=AGENTLESS, rescue_password=None, progress=Steps())
    life = environment.life(guest)
    for call in (
        lambda: driver.rescue(guest, image=AGENTLESS, rescue_password=None, progress=Steps()),
        lambda: driver.rebuild(guest, image=AGENTLESS, progress=Steps()),
        lambda: driver.migrate_disk_and_power_off(guest, progress=Steps()),
    ):
        assert code(call) == "instance_rescued"
    assert environment.life(guest) == life
    driver.power_off(guest, timeout=0)
    assert environment.read_disk(guest, len(MINE)) != MINE
    driver.unrescue(guest)
    driver.power_off(guest, timeout=0)
    assert environment.read_disk(guest, len(MINE)) == MINE


def test_unrescue_of_a_guest_that_is_not_rescued_does_nothing(
    environment: Environment, driver: ComputeDriver, make: Make
) -> None:
    guest = make()
    life = environment.life(guest)
    driver.unrescue(guest)
    assert (environment.state(guest), environment.life(guest)) == (PowerState.RUNNING, life)
    driver.power_off(guest)
    driver.unrescue(guest)
    assert environment.state(guest) is PowerState.SHUTDOWN


def test_a_rescue_that_fails_leaves_the_guest_as_it_was_and_off(
    environment: Environment, driver: ComputeDriver, make: Make
) -> None:
    guest = make(power_on=False)
    environment.write_disk(guest, MINE)
    driver.power_on(guest)
    before, steps = environment.left(), Steps()
    with pytest.raises(ImageTooLarge):
        driver.rescue(guest, image=LARGE, rescue_password=None, progress=steps)
    assert steps.names == ["power_off", "create_rescue_disk", "undo"]
    assert environment.state(guest) is PowerState.SHUTDOWN
    assert environment.read_disk(guest, len(MINE)) == MINE
    assert environment.left() == before
    driver.unrescue(guest)
    assert environment.state(guest) is PowerState.SHUTDOWN


def test_a_rescue_password_needs_an_agent(environment: Environment, driver: ComputeDriver, make: Make) -> None:
    guest = make()
    life = environment.life(guest)
    assert (
        code(lambda: driver.rescue(guest, image=AGENTLESS, rescue_password=FIRST, progress=Steps()))
        == "agent_not_in_image"
    )
    assert environment.life(guest) == life


# Rebuild


def test_a_rebuilt_guest_has_a_new_disk_and_keeps_its_devices(
    environment: Environment, driver: ComputeDriver, volume: Volume, make: Make
) -> None:
    guest, steps = make(volumes=[volume], interfaces=[interface(1)], power_on=False), Steps()
    environment.write_disk(guest, MINE)
    before = environment.left()
    driver.rebuild(guest, image=WITH_AGENT, admin_password=SECOND, injected_files=[FILE], ssh_keys=[], progress=steps)
    assert steps.names == [
        "power_off",
        "replace_root_disk",
        "remove_old_disk",
        "boot",
        "wait_for_agent",
        "set_admin_password",
        "inject_file",
    ]
    assert environment.state(guest) is PowerState.RUNNING
    assert environment.opens(guest, SECOND.value)
    assert environment.file(guest, FILE.path) == (FILE.content, FILE.mode)
    assert environment.volumes(guest) == {volume.id}
    assert environment.macs(guest) == {interface(1).mac}
    assert environment.left() == before
    driver.power_off(guest)
    assert environment.read_disk(guest, len(MINE)) != MINE


def test_a_rebuild_that_fails_leaves_the_old_disk_and_the_guest_off(
    environment: Environment, driver: ComputeDriver, make: Make
) -> None:
    guest = make(power_on=False)
    environment.write_disk(guest, MINE)
    driver.power_on(guest)
    before = environment.left()
    with pytest.raises(ImageTooLarge):
        driver.rebuild(guest, image=LARGE, progress=Steps())
    assert environment.state(guest) is PowerState.SHUTDOWN
    assert environment.read_disk(guest, len(MINE)) == MINE
    assert environment.left() == before


def test_a_rebuild_without_an_agent_takes_no_password(
    environment: Environment, driver: ComputeDriver, make: Make
) -> None:
    guest = make()
    life = environment.life(guest)
    refused = code(lambda: driver.rebuild(guest, image=AGENTLESS, admin_password=FIRST, progress=Steps()))
    assert refused == "agent_not_in_image"
    assert (environment.state(guest), environment.life(guest)) == (PowerState.RUNNING, life)


# Snapshots


class Service:
    """An image service in memory. error: what storing ends with."""

    def __init__(self, error: Exception | None = None) -> None:
        self.images: dict[str, bytes] = {}
        self.error = error

    def get(self, image_ref: str) -> Image:
        return image(image_ref)

    def store(self, new: NewImage, pieces: Iterator[bytes]) -> Image:
        content = b"".join(pieces)
        if self.error is not None:
            raise self.error
        ref = str(uuid.uuid4())
        self.images[ref] = content
        digest = hashlib.sha256(content).hexdigest()
        return Image(ref, new.name, new.disk_format, image("x").source, digest, len(content), new.min_disk_gb)

    def delete(self, image_ref: str) -> None:
        self.images.pop(image_ref, None)


def test_a_snapshot_has_what_is_on_the_disk_and_leaves_only_the_image(
    environment: Environment, driver: ComputeDriver, make: Make
) -> None:
    guest, service, steps = make(power_on=False, sizes=(64, 1, 2)), Service(), Steps()
    environment.write_disk(guest, MINE)
    driver.power_on(guest)
    before, life = environment.left(), environment.life(guest)
    taken = driver.snapshot(guest, service=service, name="a copy", disk_format="vhd", progress=steps)
    assert steps.names == ["snapshot"]
    assert (taken.name, taken.disk_format, taken.min_disk_gb) == ("a copy", DiskFormat.VHD, 2)
    assert MINE[:20] in service.images[taken.id]
    assert (environment.state(guest), environment.life(guest)) == (PowerState.RUNNING, life)
    assert environment.left() == before


def test_a_snapshot_that_nobody_takes_leaves_nothing(
    environment: Environment, driver: ComputeDriver, make: Make
) -> None:
    guest, service = make(power_on=False), Service(Unreachable("image_service_away", "it is away"))
    before = environment.left()
    taken = code(lambda: driver.snapshot(guest, service=service, name="x", disk_format="vhd", progress=Steps()))
    assert taken == "image_service_away"
    assert environment.left() == before
    assert service.images == {}


@pytest.mark.parametrize("disk_format", ["qcow2", "floppy"])
def test_a_snapshot_of_another_format_is_refused(
    environment: Environment, driver: ComputeDriver, make: Make, disk_format: str
) -> None:
    guest, service = make(power_on=False), Service()
    refused = code(lambda: driver.snapshot(guest, service=service, name="x", disk_format=disk_format, progress=Steps()))
    assert refused == "snapshot_format"
    assert service.images == {}
