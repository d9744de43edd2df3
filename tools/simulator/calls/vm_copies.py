"""Copies of virtual machines: clones, snapshots, checkpoints, and what templates become."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

from .. import copies, errors, lifecycle
from ..model import NULL_REF
from ..state import Context
from .table import call


@call("VM.clone")
def clone(context: Context, vm: str, new_name: str) -> str:
    """A copy whose disks share with the original what does not change."""

    def copy_disk(vdi: str) -> str:
        return str(copies.disk_call(context, "VDI.clone", vdi, {}))

    with lifecycle.operate(context, vm, "clone"):
        return copies.clone_vm(context, vm, new_name, copy_disk)


@call("VM.copy")
def copy(context: Context, vm: str, new_name: str, sr: str) -> str:
    """A copy with full copies of the disks, in an SR or each in its own."""
    database = context.database
    if sr != NULL_REF:
        database.record("SR", sr)

    def copy_disk(vdi: str) -> str:
        target = sr if sr != NULL_REF else database.get("VDI", vdi, "SR")
        return str(copies.disk_call(context, "VDI.copy", vdi, target, NULL_REF, NULL_REF))

    with lifecycle.operate(context, vm, "copy"):
        return copies.clone_vm(context, vm, new_name, copy_disk)


@call("VM.snapshot")
def snapshot(context: Context, vm: str, new_name: str, ignore_vdis: list[str]) -> str:
    """What the VM is now, as it would find itself after a loss of power."""
    with lifecycle.operate(context, vm, "snapshot"):
        return copies.snapshot_vm(context, vm, new_name, ignore_vdis)


@call("VM.checkpoint")
def checkpoint(context: Context, vm: str, new_name: str) -> str:
    """What the VM is now, with its memory. It is suspended for that; a suspended one stays so."""
    state, database = context.state, context.database
    with lifecycle.operate(context, vm, "checkpoint") as record:
        before = record["power_state"]
        if before != "Suspended":
            lifecycle.suspend(state, vm)
        try:
            image = copies.disk_call(context, "VDI.copy", *_image_arguments(context, vm))
            return copies.snapshot_vm(
                context,
                vm,
                new_name,
                [],
                power_state="Suspended",
                suspend_VDI=image,
                snapshot_info={"power-state-at-snapshot": before, "disk-snapshot-type": "crash_consistent"},
            )
        finally:
            if before != "Suspended" and database.get("VM", vm, "power_state") == "Suspended":
                lifecycle.resume(state, vm, record["resident_on"], before == "Paused")


def _image_arguments(context: Context, vm: str) -> tuple[str, str, str, str]:
    image = context.database.get("VM", vm, "suspend_VDI")
    return image, context.database.get("VDI", image, "SR"), NULL_REF, NULL_REF


@call("VM.revert")
def revert(context: Context, snapshot: str) -> None:
    """Make the VM that a snapshot is of what it was then. If it runs, its power is cut."""
    database = context.database
    with lifecycle.operate(context, snapshot, "revert") as record:
        vm = record["snapshot_of"]
        if not database.exists("VM", vm):
            raise errors.ApiError("VM_REVERT_FAILED", vm, snapshot)
        with lifecycle.operate(context, vm, "reverting"):
            if database.get("VM", vm, "power_state") != "Halted":
                lifecycle.halt(context.state, vm, clean=False)
            copies.revert_vm(context, vm, snapshot)


@call("VM.provision")
def provision(context: Context, vm: str) -> None:
    """Make a template an ordinary VM, with the disks that its other_config asks for."""
    database = context.database
    with lifecycle.operate(context, vm, "provision") as record:
        other_config = record["other_config"]
        for userdevice, disk in enumerate(_wanted_disks(other_config.pop("disks", ""))):
            _make_disk(context, vm, str(disk.get("device") or userdevice), disk)
        database.set("VM", vm, is_a_template=False, other_config=other_config)


def _wanted_disks(untrusted_text: str) -> list[dict[str, str]]:
    if not untrusted_text:
        return []
    # No entity is ever expanded: a declaration of one is refused before the parser sees it.
    if "<!" in untrusted_text:
        raise errors.failure("Failed to parse the disks of the template")
    try:
        root = ElementTree.fromstring(untrusted_text)  # noqa: S314
    except ElementTree.ParseError:
        raise errors.failure("Failed to parse the disks of the template") from None
    return [dict(disk.attrib) for disk in root.iter("disk")]


def _make_disk(context: Context, vm: str, userdevice: str, untrusted_disk: dict[str, str]) -> None:
    database = context.database
    sr = untrusted_disk.get("sr", "")
    sr = database.by_uuid("SR", sr) if sr else database.get("pool", context.state.pool, "default_SR")
    vdi: dict[str, Any] = {
        "name_label": untrusted_disk.get("device", userdevice),
        "name_description": "Created by template provisioner",
        "SR": sr,
        "virtual_size": untrusted_disk.get("size", ""),
        "type": untrusted_disk.get("type", "user"),
        "sharable": False,
        "read_only": False,
        "other_config": {},
    }
    # Not by VBD.create, which would wait for the turn that this call has.
    database.create(
        "VBD",
        VM=vm,
        VDI=copies.disk_call(context, "VDI.create", vdi),
        userdevice=userdevice,
        bootable=untrusted_disk.get("bootable") == "true",
        mode="RW",
        type="Disk",
        other_config={"owner": ""},
    )
