"""VMs as XenAPI objects: what an instance's VM is made of, and how it is found. It is named `instance-<uuid>`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from agent_protocol.outcomes import Refused, Unsuccessful

from ...driver import Instance
from ...errors import InstanceNotFound, ObjectGone
from ...states import PowerState
from ..connection.cache import INSTANCE_KEY, NAME_PREFIX
from ..connection.session import XenServer
from .hardware import Hardware

MIB = 1024 * 1024

NULL = "OpaqueRef:NULL"

TOLD_TIMEOUT = 2.0
"""Seconds that events may take to tell what was seen already. They take a tenth of one."""

_LEAST_MEMORY = 16 * MIB

_POWER_STATES = {
    "Running": PowerState.RUNNING,
    "Halted": PowerState.SHUTDOWN,
    "Paused": PowerState.PAUSED,
    "Suspended": PowerState.SUSPENDED,
}


@dataclass(frozen=True)
class VM:
    """A VM as XenServer described it a moment ago.

    instance: uuid of the instance that it is. host: where it runs, `OpaqueRef:NULL` when it does not. domid: -1 without
    a domain. operations: what is being done to it, such as `clean_reboot`.
    """

    ref: str
    uuid: str
    instance: str
    power_state: PowerState
    host: str
    vbds: tuple[str, ...]
    domid: int = -1
    other_config: Mapping[str, str] = field(default_factory=dict)
    operations: tuple[str, ...] = ()


def name_label(instance: Instance) -> str:
    """The VM's name: unique, unlike the operator's name for the instance, which goes into name_description."""
    return f"{NAME_PREFIX}{instance.uuid}"


def part_name(instance_uuid: str, part: str) -> str:
    """The name of a disk that belongs to an instance. part: its purpose, or what else tells it from the others."""
    return f"{NAME_PREFIX}{instance_uuid} {part}"


def find(server: XenServer, instance: Instance) -> VM:
    """The instance's VM as it is now. InstanceNotFound when XenServer has none.

    Where it is, the cache of events tells; what it is, XenServer itself.
    """
    found = server.events.vm_of(instance.uuid)
    try:
        if found is not None:
            return described(found.ref, server.call("VM.get_record", found.ref), instance.uuid)
    except ObjectGone:
        pass
    raise InstanceNotFound(instance.uuid)


def told(server: XenServer, instance: Instance) -> VM:
    """The instance's VM as XenServer's events told of it, which costs no call. InstanceNotFound when there is none."""
    found = server.events.vm_of(instance.uuid)
    if found is None:
        raise InstanceNotFound(instance.uuid)
    return described(found.ref, found.row, instance.uuid)


def await_told(server: XenServer, vm: VM) -> VM:
    """The same VM, once told() shows its power state as well. Events that are late keep nobody for long."""

    def is_told(untrusted_row: Mapping[str, Any]) -> bool:
        row = described(vm.ref, untrusted_row, vm.instance)
        return (row.power_state, row.domid) == (vm.power_state, vm.domid)

    with suppress(Unsuccessful):
        server.events.wait_for("VM", vm.ref, is_told, TOLD_TIMEOUT)
    return vm


def await_told_gone(server: XenServer, vm: VM) -> None:
    """Wait until told() does not show the VM any more, which was destroyed; not for long either."""
    if server.events.is_live:
        server.events.await_change(lambda view: view.record("VM", vm.ref) is None, TOLD_TIMEOUT)


def exists(server: XenServer, instance: Instance) -> bool:
    """Whether XenServer has the instance's VM."""
    try:
        find(server, instance)
    except InstanceNotFound:
        return False
    return True


def again(server: XenServer, vm: VM) -> VM:
    """The same VM as it is now."""
    return described(vm.ref, server.call("VM.get_record", vm.ref), vm.instance)


def running(server: XenServer, instance: Instance) -> VM:
    """The instance's VM, when it runs. Refused with `instance_not_running` otherwise."""
    vm = find(server, instance)
    if vm.power_state is not PowerState.RUNNING:
        raise Refused("instance_not_running", f"the guest is {vm.power_state.word}, not running")
    return vm


def _instances(server: XenServer) -> Iterator[Mapping[str, Any]]:
    for record in server.events.records("VM").values():
        if INSTANCE_KEY in record["other_config"] and not (record["is_a_snapshot"] or record["is_a_template"]):
            yield record


def names(server: XenServer) -> list[str]:
    """The names of all VMs that are instances of ours."""
    return sorted(str(record["name_label"]) for record in _instances(server))


def instances(server: XenServer) -> list[str]:
    """The uuids of those instances."""
    return sorted(str(record["other_config"][INSTANCE_KEY]) for record in _instances(server))


def described(ref: str, untrusted_record: Mapping[str, Any], instance: str) -> VM:
    """The VM of that reference and record; instance: its uuid."""
    return VM(
        ref=ref,
        uuid=str(untrusted_record["uuid"]),
        instance=instance,
        power_state=_POWER_STATES.get(untrusted_record["power_state"], PowerState.NOSTATE),
        host=str(untrusted_record["resident_on"]),
        vbds=tuple(untrusted_record["VBDs"]),
        domid=int(untrusted_record["domid"]),
        other_config=dict(untrusted_record["other_config"]),
        operations=tuple(untrusted_record["current_operations"].values()),
    )


def create(
    server: XenServer,
    instance: Instance,
    hardware: Hardware | None = None,
    xenstore_data: Mapping[str, str] | None = None,
) -> VM:
    """A halted VM without any device. An Unknown may have made it all the same: find() then knows.

    xenstore_data: what its guest finds in XenStore whenever it boots.
    """
    ref = str(server.call("VM.create", _record(instance, hardware or Hardware(), xenstore_data or {})))
    return described(ref, server.call("VM.get_record", ref), instance.uuid)


def _record(instance: Instance, hardware: Hardware, xenstore_data: Mapping[str, str]) -> dict[str, Any]:
    memory = str(instance.memory_mb * MIB)
    return {
        "name_label": name_label(instance),
        "name_description": instance.display_name,
        "user_version": "1",
        "is_a_template": False,
        "affinity": NULL,
        # No ballooning: a guest has what its flavour says, for as long as it lives.
        "memory_static_max": memory,
        "memory_dynamic_max": memory,
        "memory_dynamic_min": memory,
        "memory_static_min": str(min(_LEAST_MEMORY, instance.memory_mb * MIB)),
        "VCPUs_max": str(instance.vcpus),
        "VCPUs_at_startup": str(instance.vcpus),
        "VCPUs_params": {},
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "restart",
        "actions_after_crash": "restart",
        # XenServer 8 and later run HVM guests only, so the PV fields stay empty.
        "PV_bootloader": "",
        "PV_kernel": "",
        "PV_ramdisk": "",
        "PV_args": "",
        "PV_bootloader_args": "",
        "PV_legacy_args": "",
        "HVM_boot_policy": "BIOS order",
        "HVM_boot_params": hardware.boot_params(),
        "platform": hardware.platform(instance.vcpus),
        "PCI_bus": "",
        "recommendations": "",
        # Drivers come with the image; this device would have Windows fetch others.
        "has_vendor_device": False,
        "other_config": {INSTANCE_KEY: instance.uuid},
        "xenstore_data": dict(xenstore_data),
    }
