"""Rescue: the guest boots from a fresh disk, and finds its own root disk as a further one.

It happens in place, on the same VM. What leads back is written into VM.other_config before the first change, so that
unrescue finds the way after any interruption. The agent of the rescue system is another one: who is pinned is kept
there as well (public keys only), and is pinned again afterwards.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from agent_protocol.messages import Password
from agent_protocol.outcomes import Failed, Refused, Unsuccessful

from ...agents import AgentInfo
from ...driver import Instance, Progress
from ...errors import ObjectGone, XenServerFailure
from ...fencing import LeaseLost
from ...images import Image
from ..agents.setup import Setup, has_agent
from ..connection.cache import INSTANCE_KEY
from ..parts import Parts
from ..storage import disks, root_disks
from ..undo import undo_in_step
from . import power, vms
from .removal import RESCUE
from .vms import VM

LOG = logging.getLogger(__name__)

RESCUE_KEY = "xenward:rescue"
"""Key in VM.other_config of a rescued guest: the way back, as JSON."""

SHUTDOWN_TIMEOUT = 60.0
"""Seconds that a guest has to shut down before it is rescued: it is probably not well."""

_ATTEMPTS = 2
"""How often the way back is gone: an answer may be lost on it."""


@dataclass(frozen=True)
class WayBack:
    """What a rescued guest was before. root: uuid of the VBD of its root disk. agent: None when none was known."""

    root: str
    device: str
    bootable: bool
    agent: AgentInfo | None

    def to_text(self) -> str:
        """As it stands in VM.other_config."""
        agent = self.agent.to_dict() if self.agent else None
        return json.dumps({"root": self.root, "device": self.device, "bootable": self.bootable, "agent": agent})

    @classmethod
    def from_text(cls, untrusted_text: str) -> WayBack:
        """From that. Failed (`bad_rescue_note`) when somebody changed it."""
        try:
            it = json.loads(untrusted_text)
            agent = None if it["agent"] is None else AgentInfo.from_dict(it["agent"])
            return cls(str(it["root"]), str(it["device"]), bool(it["bootable"]), agent)
        except (ValueError, TypeError, LookupError, RecursionError, Refused):
            raise Failed("bad_rescue_note", f"what VM.other_config says as {RESCUE_KEY} cannot be read") from None


def is_rescued(vm: VM) -> bool:
    """Whether a guest is rescued, or was on its way there."""
    return RESCUE_KEY in vm.other_config


def refuse_rescued(vm: VM) -> None:
    """Refused (`instance_rescued`) for a guest that is."""
    if is_rescued(vm):
        raise Refused("instance_rescued", "the guest is rescued; unrescue it first")


def rescue(parts: Parts, instance: Instance, image: Image, password: Password | None, progress: Progress) -> None:
    """Boot the guest from a fresh disk of the image. Whatever is raised, it is left as it was, powered off."""
    Setup(admin_password=password).check(image, power_on=True)
    vm = vms.find(parts.server, instance)
    refuse_rescued(vm)
    root, record = root_disks.find(parts.server, vm)
    try:
        with progress.step("power_off"):
            vm = power.shut_down(parts.server, vm, timeout=SHUTDOWN_TIMEOUT)
        with progress.step("create_rescue_disk"):
            _note(parts, vm, record)
            _change_places(parts, instance, image, vm, root)
        parts.agents.forget(instance.uuid)
        with progress.step("boot"):
            vm = power.start(parts.server, vm)
        if has_agent(image):
            with progress.step("wait_for_agent"):
                parts.agents.await_boot(vm)
            if password is not None:
                with progress.step("set_rescue_password"):
                    parts.agents.set_password(vm, password)
    except LeaseLost:
        raise
    except BaseException:
        undo_in_step(progress, lambda: _restored(parts, instance), f"instance {instance.uuid}: its rescue")
        raise


def unrescue(parts: Parts, instance: Instance) -> None:
    """Boot the guest from its own disk again; nothing happens when it is not rescued."""
    vm = vms.find(parts.server, instance)
    if is_rescued(vm):
        power.start(parts.server, _restored(parts, instance))


def _note(parts: Parts, vm: VM, root: Mapping[str, Any]) -> None:
    way = WayBack(str(root["uuid"]), str(root["userdevice"]), bool(root["bootable"]), parts.agents.known(vm))
    parts.server.call("VM.add_to_other_config", vm.ref, RESCUE_KEY, way.to_text())


def _change_places(parts: Parts, instance: Instance, image: Image, vm: VM, root: str) -> None:
    wanted = root_disks.wanted(instance)
    disk = root_disks.make(parts, replace(wanted, name=_name(instance)), image)
    # The second one, unless a volume has that number.
    free = parts.server.call("VM.get_allowed_VBD_devices", vm.ref)
    parts.server.call("VBD.set_userdevice", root, min(free, key=int))
    parts.server.call("VBD.set_bootable", root, False)
    disks.attach_root(parts.server, vm.ref, disk)


def _name(instance: Instance) -> str:
    return vms.part_name(instance.uuid, RESCUE)


def _restored(parts: Parts, instance: Instance) -> VM:
    """The VM as it was before, shut down."""
    for attempt in range(_ATTEMPTS):
        try:
            return _restore(parts, instance)
        except LeaseLost:
            raise
        except Unsuccessful:
            if attempt + 1 == _ATTEMPTS:
                raise
    raise AssertionError("not a single attempt")


def _restore(parts: Parts, instance: Instance) -> VM:
    server = parts.server
    vm = power.shut_down(server, vms.find(server, instance), timeout=0)
    if not is_rescued(vm):
        return vm
    way = WayBack.from_text(vm.other_config[RESCUE_KEY])
    for disk in _rescue_disks(parts, instance):
        disks.detach(server, vm.ref, disk)
        disks.destroy(server, disk)
    try:
        root = server.call("VBD.get_by_uuid", way.root)
    except XenServerFailure as failure:
        if isinstance(failure, ObjectGone):
            raise Failed("root_disk_gone", "somebody took the root disk from the VM while it was rescued") from None
        raise
    server.call("VBD.set_userdevice", root, way.device)
    server.call("VBD.set_bootable", root, way.bootable)
    parts.agents.take_back(vm, way.agent)
    # Last: until then everything can be done once more.
    server.call("VM.remove_from_other_config", vm.ref, RESCUE_KEY)
    return vms.again(server, vm)


def _rescue_disks(parts: Parts, instance: Instance) -> list[str]:
    found = []
    for ref in parts.server.call("VDI.get_by_name_label", _name(instance)):
        with suppress(ObjectGone):
            if parts.server.call("VDI.get_other_config", ref).get(INSTANCE_KEY) == instance.uuid:
                found.append(str(ref))
    return found
