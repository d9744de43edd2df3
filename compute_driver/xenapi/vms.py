"""VMs as XenAPI objects: find, create, destroy, power. A guest is a VM whose name_label is `instance-<uuid>`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..driver import Instance
from ..errors import InstanceNotFound, XenServerFailure
from ..states import PowerState
from . import disks, networks
from .session import XenServer

MIB = 1024 * 1024

GUEST_TIMEOUT = 1260.0
"""Seconds for a guest to shut down or restart by itself: xapi gives it 20 minutes, and then answers."""

INSTANCE_KEY = "xenward:instance"
"""Key in VM.other_config that holds the instance's uuid, for whoever looks at the pool with other tools."""

_POWER_STATES = {
    "Running": PowerState.RUNNING,
    "Halted": PowerState.SHUTDOWN,
    "Paused": PowerState.PAUSED,
    "Suspended": PowerState.SUSPENDED,
}


@dataclass(frozen=True)
class VM:
    """A VM as XenServer described it a moment ago.

    instance: uuid of the instance that it is. host: where it runs, `OpaqueRef:NULL` when it does not.
    """

    ref: str
    uuid: str
    instance: str
    power_state: PowerState
    host: str
    vbds: tuple[str, ...]


def name_label(instance: Instance) -> str:
    """The VM's name: unique, unlike the operator's name for the instance, which goes into name_description."""
    return f"instance-{instance.uuid}"


def find(server: XenServer, instance: Instance) -> VM:
    """The instance's VM. InstanceNotFound when XenServer has none."""
    refs = server.call("VM.get_by_name_label", name_label(instance))
    for ref in refs:
        record = server.call("VM.get_record", ref)
        if not record["is_a_snapshot"] and not record["is_a_template"]:
            return _vm(ref, record, instance)
    raise InstanceNotFound(instance.uuid)


def _vm(ref: str, untrusted_record: dict[str, Any], instance: Instance) -> VM:
    return VM(
        ref=ref,
        uuid=str(untrusted_record["uuid"]),
        instance=instance.uuid,
        power_state=_POWER_STATES.get(untrusted_record["power_state"], PowerState.NOSTATE),
        host=str(untrusted_record["resident_on"]),
        vbds=tuple(untrusted_record["VBDs"]),
    )


def create(server: XenServer, instance: Instance) -> VM:
    """A halted VM with an empty root disk and one network interface. When a part fails the VM stays: destroy it."""
    ref = server.call("VM.create", _record(instance))
    disks.create_root(server, ref, instance)
    networks.connect(server, ref)
    return _vm(ref, server.call("VM.get_record", ref), instance)


def _record(instance: Instance) -> dict[str, Any]:
    memory = str(instance.memory_mb * MIB)
    return {
        "name_label": name_label(instance),
        "name_description": instance.display_name,
        "user_version": "1",
        "is_a_template": False,
        "affinity": "OpaqueRef:NULL",
        "memory_static_max": memory,
        "memory_dynamic_max": memory,
        "memory_dynamic_min": memory,
        "memory_static_min": str(16 * MIB),
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
        "HVM_boot_params": {"order": "cd"},
        "platform": {"acpi": "1", "apic": "true", "pae": "true", "nx": "true", "viridian": "true"},
        "PCI_bus": "",
        "recommendations": "",
        "other_config": {INSTANCE_KEY: instance.uuid},
    }


def start(server: XenServer, vm: VM) -> None:
    """Boot a halted VM on a host that XenServer chooses."""
    server.call("VM.start", vm.ref, False, False)


def shut_down(server: XenServer, vm: VM) -> None:
    """Ask the guest to shut down; pull the plug when it cannot be asked or does not comply."""
    try:
        server.call("VM.clean_shutdown", vm.ref, timeout=GUEST_TIMEOUT)
    except XenServerFailure:
        _pull_the_plug(server, vm)


def _pull_the_plug(server: XenServer, vm: VM) -> None:
    try:
        server.call("VM.hard_shutdown", vm.ref)
    except XenServerFailure as failure:
        # VM_BAD_POWER_STATE, <vm>, <expected>, <actual>: it went down by itself meanwhile.
        if failure.details[0] != "VM_BAD_POWER_STATE" or failure.details[-1] != "halted":
            raise


def destroy(server: XenServer, vm: VM) -> None:
    """Power the VM off and remove it with its disks. VM.destroy removes VBDs and VIFs, but never VDIs.

    The disks go first: should this end halfway, the VM still leads to those that are left.
    """
    if vm.power_state is not PowerState.SHUTDOWN:
        _pull_the_plug(server, vm)
    for volume in disks.of_vm(server, vm.vbds):
        server.call("VDI.destroy", volume)
    server.call("VM.destroy", vm.ref)
