"""The disk that a guest boots from: made, and found at its VM."""

from __future__ import annotations

from typing import Any

from agent_protocol.outcomes import Refused

from ...driver import Instance
from ...images import Image
from ..connection.session import XenServer
from ..guests.vms import VM
from ..parts import Parts
from . import disks, repositories
from .disks import Disk, NewDisk
from .marks import Purpose

_NAMES = (disks.ROOT_DEVICE, "hda", "xvda", "sda")
"""The first device under all of its names."""


def wanted(instance: Instance) -> NewDisk:
    """An instance's root disk, of the size that its flavour says."""
    return disks.of_instance(instance, Purpose.ROOT, instance.root_gb * disks.GIB)


def make(parts: Parts, new: NewDisk, image: Image | None) -> Disk:
    """A disk with the content of an image, or an empty one. Errors as of ImageCache.root_disk() and disks.create()."""
    repository = repositories.choose(parts.server, parts.repository)
    if image is None:
        return disks.create(parts.server, repository, new)
    return parts.images.root_disk(repository, image, new)


def find(server: XenServer, vm: VM) -> tuple[str, dict[str, Any]]:
    """Reference and record of the VBD that the VM boots from. Refused with `no_root_disk` when it has none."""
    for vbd in vm.vbds:
        record = server.call("VBD.get_record", vbd)
        if record["type"] == "Disk" and record["userdevice"] in _NAMES:
            return vbd, record
    raise Refused("no_root_disk", "the guest has no root disk")
