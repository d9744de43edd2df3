"""Rebuild: the guest gets a new root disk and is set up again; addresses, interfaces and volumes stay.

The old disk stays at the VM, under another number, until the new one is there. What leads back is written into
VM.other_config before the first change.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any

from agent_protocol.outcomes import Refused, Unsuccessful

from ...driver import Instance, Progress
from ...errors import ObjectGone
from ...fencing import LeaseLost
from ...images import Image
from ..agents.setup import Setup, has_agent
from ..connection.cache import INSTANCE_KEY
from ..parts import Parts
from ..storage import disks, root_disks
from ..storage.disks import Disk
from ..storage.marks import PURPOSE_KEY, Purpose
from ..undo import Undo
from . import power, rescue, vms
from .hardware import Hardware
from .vms import VM

LOG = logging.getLogger(__name__)

REBUILD_KEY = "xenward:rebuild"
"""Key in VM.other_config while root disks are exchanged: the old one's VBD and its number, as JSON."""

SHUTDOWN_TIMEOUT = 60.0
"""Seconds that a guest has to shut down: its root disk is given up, but there may be volumes."""


@dataclass(frozen=True)
class _Old:
    """The root disk that goes. vbd, vdi: references."""

    vbd: str
    vdi: str
    record: dict[str, Any]


def rebuild(parts: Parts, instance: Instance, image: Image | None, setup: Setup, progress: Progress) -> None:
    """Give the guest a new root disk and set it up. Until the new one is there every error leaves the old, powered off.

    Refused with `root_disk_is_volume` when the guest boots from a volume, which is never replaced here.
    """
    hardware = Hardware.of(image)
    hardware.platform(instance.vcpus)
    setup.check(image, power_on=True)
    vm = vms.find(parts.server, instance)
    rescue.refuse_rescued(vm)
    with progress.step("power_off"):
        vm = power.shut_down(parts.server, vm, timeout=SHUTDOWN_TIMEOUT)
    with progress.step("replace_root_disk"):
        vm = _recovered(parts, vm)
        old = _old(parts, instance, vm)
        disk = root_disks.make(parts, root_disks.wanted(instance), image)
        with Undo() as undo:
            undo.add(f"disk {disk.uuid}", lambda: disks.destroy(parts.server, disk.ref))
            _exchange(parts, instance, vm, old, disk, hardware, undo)
    try:
        with progress.step("remove_old_disk"):
            _remove(parts, vm, old.vdi)
            for vdi in _former(parts, vm, disk):
                _remove(parts, vm, vdi)
    except LeaseLost:
        raise
    except Unsuccessful as error:
        # Nobody needs it for the guest to go on; it goes with the instance at the latest.
        LOG.error("instance %s: its old root disk is left: %s", instance.uuid, error)
    parts.agents.forget(instance.uuid)
    with progress.step("boot"):
        vm = power.start(parts.server, vm)
    if has_agent(image):
        setup.carry_out(parts.agents, vm, progress)


def _old(parts: Parts, instance: Instance, vm: VM) -> _Old:
    vbd, record = root_disks.find(parts.server, vm)
    if parts.server.call("VDI.get_other_config", record["VDI"]).get(INSTANCE_KEY) != instance.uuid:
        raise Refused("root_disk_is_volume", "the guest boots from a volume, which is not replaced")
    return _Old(vbd, str(record["VDI"]), record)


def _exchange(parts: Parts, instance: Instance, vm: VM, old: _Old, disk: Disk, hardware: Hardware, undo: Undo) -> None:
    server = parts.server
    before = server.call("VM.get_record", vm.ref)
    undo.add("the note of a rebuild", lambda: server.call("VM.remove_from_other_config", vm.ref, REBUILD_KEY))
    note = {"vbd": old.record["uuid"], "device": old.record["userdevice"]}
    server.call("VM.add_to_other_config", vm.ref, REBUILD_KEY, json.dumps(note))
    undo.add("the place of the root disk", lambda: _put_back(parts, old.vbd, old.record["userdevice"]))
    free = server.call("VM.get_allowed_VBD_devices", vm.ref)
    server.call("VBD.set_userdevice", old.vbd, min(free, key=int))
    server.call("VBD.set_bootable", old.vbd, False)
    undo.add("the new root disk", lambda: disks.detach(server, vm.ref, disk.ref))
    disks.attach_root(server, vm.ref, disk)
    undo.add("the firmware", lambda: server.call("VM.set_HVM_boot_params", vm.ref, before["HVM_boot_params"]))
    server.call("VM.set_HVM_boot_params", vm.ref, hardware.boot_params())
    undo.add("the platform", lambda: server.call("VM.set_platform", vm.ref, before["platform"]))
    server.call("VM.set_platform", vm.ref, {**before["platform"], **hardware.platform(instance.vcpus)})
    if before["NVRAM"]:
        # The old system's boot entries.
        undo.add("the firmware's variables", lambda: server.call("VM.set_NVRAM", vm.ref, before["NVRAM"]))
        server.call("VM.set_NVRAM", vm.ref, {})
    # From here on the new disk is the guest's.
    server.call("VM.remove_from_other_config", vm.ref, REBUILD_KEY)


def _former(parts: Parts, vm: VM, new: Disk) -> list[str]:
    """Root disks that the guest had earlier: those of a rebuild that did not come to removing them."""
    own = disks.of_vm(parts.server, vm.instance, vms.again(parts.server, vm).vbds)
    return [it for it in own if it != new.ref and _is_root(parts, it)]


def _remove(parts: Parts, vm: VM, vdi: str) -> None:
    try:
        disks.detach(parts.server, vm.ref, vdi)
        disks.destroy(parts.server, vdi)
    except LeaseLost:
        raise
    except Unsuccessful:
        # An answer may have been lost; what is done already is passed over.
        disks.detach(parts.server, vm.ref, vdi)
        disks.destroy(parts.server, vdi)


def _put_back(parts: Parts, vbd: str, device: str) -> None:
    parts.server.call("VBD.set_userdevice", vbd, device)
    parts.server.call("VBD.set_bootable", vbd, True)


def _recovered(parts: Parts, vm: VM) -> VM:
    """The halted VM after an exchange that was interrupted: the old disk is back, if it is there."""
    if REBUILD_KEY not in vm.other_config:
        return vm
    server = parts.server
    try:
        note = json.loads(vm.other_config[REBUILD_KEY])
        vbd, device = server.call("VBD.get_by_uuid", note["vbd"]), str(note["device"])
    except (ValueError, TypeError, LookupError, RecursionError, ObjectGone):
        # It was let go of, so the new one was in its place already.
        pass
    else:
        own = server.call("VBD.get_VDI", vbd)
        for other in disks.of_vm(server, vm.instance, vm.vbds):
            if other != own and _is_root(parts, other):
                disks.detach(server, vm.ref, other)
                disks.destroy(server, other)
        _put_back(parts, vbd, device)
    server.call("VM.remove_from_other_config", vm.ref, REBUILD_KEY)
    return vms.again(server, vm)


def _is_root(parts: Parts, vdi: str) -> bool:
    return bool(parts.server.call("VDI.get_other_config", vdi).get(PURPOSE_KEY) == Purpose.ROOT)
