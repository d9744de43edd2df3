"""Making guests: the VM, its devices, its first boot, and what its agent is told. All of it, or nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent_protocol.outcomes import Refused

from ...driver import Instance, Progress
from ...fencing import LeaseLost
from ...images import Image
from ...network import Interface
from ...volumes import Volume
from ..agents.setup import Setup, has_agent
from ..hosts import nodes
from ..network import networks
from ..parts import Parts
from ..storage import config_drive, disks, repositories, root_disks
from ..storage.config_drive import Contents
from ..undo import undo_in_step
from . import metadata, power, removal, vms
from .hardware import Hardware
from .vms import VM

LOG = logging.getLogger(__name__)

_CONFIG_DRIVE = "openstack/latest/"
"""Where the files of a config drive are."""


@dataclass(frozen=True)
class Order:
    """The guest that is to be made. The members are those of ComputeDriver.spawn."""

    instance: Instance
    image: Image | None = None
    setup: Setup = field(default_factory=Setup)
    interfaces: Sequence[Interface] | None = None
    volumes: Sequence[Volume] = ()
    config_drive: Mapping[str, bytes] | None = field(default=None, repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict)
    node: str | None = None
    power_on: bool = True

    @property
    def boots_from_volume(self) -> bool:
        """Whether a volume takes the root disk's place."""
        return self.image is None and any(volume.is_bootable for volume in self.volumes)


@dataclass(frozen=True)
class _Files(Contents):
    """A config drive whose files are given."""

    given: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def files(self) -> dict[str, bytes]:
        return dict(self.given)


def spawn(parts: Parts, order: Order, progress: Progress) -> None:
    """Make the guest. Whatever is raised, nothing is left, but for what the step `undo` says."""
    hardware = Hardware.of(order.image)
    order.setup.check(order.image, power_on=order.power_on)
    drive = None if order.config_drive is None else _contents(order.instance, order.config_drive)
    readable = metadata.as_written(order.metadata)
    host = None if order.node is None else nodes.find(parts.server, order.node)
    if vms.exists(parts.server, order.instance):
        raise Refused("guest_exists", f"XenServer has a VM of instance {order.instance.uuid} already")
    try:
        vm = _assemble(parts, order, hardware, readable, drive, progress)
        if order.power_on:
            with progress.step("boot"):
                vm = power.start(parts.server, vm, host=host)
            if has_agent(order.image):
                order.setup.carry_out(parts.agents, vm, progress)
    except LeaseLost:
        raise
    except BaseException:
        what = f"instance {order.instance.uuid}: its creation"
        undo_in_step(progress, lambda: removal.destroy(parts, order.instance, order.volumes), what)
        raise


def _assemble(
    parts: Parts,
    order: Order,
    hardware: Hardware,
    readable: Mapping[str, str],
    drive: Contents | None,
    progress: Progress,
) -> VM:
    with progress.step("create_vm"):
        vm = vms.create(parts.server, order.instance, hardware, readable)
    if not order.boots_from_volume:
        with progress.step("create_root_disk"):
            disk = root_disks.make(parts, root_disks.wanted(order.instance), order.image)
            disks.attach_root(parts.server, vm.ref, disk)
    with progress.step("attach_interfaces"):
        if order.interfaces is None:
            networks.connect(parts.server, vm.ref)
        for interface in order.interfaces or ():
            parts.interfaces.attach(vm, interface)
    # The one to boot from first: it gets the first device.
    for volume in sorted(order.volumes, key=lambda it: not it.is_bootable):
        with progress.step("attach_volume"):
            parts.volumes.attach(vm, volume)
    if drive is not None:
        with progress.step("config_drive"):
            repository = repositories.choose(parts.server, parts.repository)
            config_drive.attach(parts.server, parts.transfers, repository, vm.ref, drive)
    return vm


def _contents(instance: Instance, files: Mapping[str, bytes]) -> Contents:
    for path in files:
        name = path.removeprefix(_CONFIG_DRIVE)
        if name == path or not name or "/" in name:
            raise Refused("bad_config_drive", f"the files of a config drive are in {_CONFIG_DRIVE}")
    given = {path.removeprefix(_CONFIG_DRIVE): content for path, content in files.items()}
    return _Files(instance, "", given=given)
