"""VBDs: disks and drives of VMs."""

from __future__ import annotations

from typing import Any

from .. import errors, lifecycle, power, vdis
from ..domain import disk_name, disk_position
from ..generic import constructor_fields
from ..model import NULL_REF
from ..state import Context
from ..storage import assert_attachable, free_vbd_devices
from .table import call

_WRONG_TYPES = ("redo_log", "metadata", "ha_statefile", "cbt_metadata")
"""VDIs that no VM may have as a disk."""


def _position(userdevice: str) -> int:
    try:
        return disk_position(userdevice)
    except ValueError:
        raise errors.ApiError("INVALID_DEVICE", userdevice) from None


@call("VBD.create")
def vbd_create(context: Context, args: dict[str, Any]) -> str:
    """A disk or a drive for a VM, not yet attached."""
    database = context.database
    fields = constructor_fields(context.state.model, "VBD", args)
    vm, vdi, is_cd = fields["VM"], fields["VDI"], fields["type"] == "CD"
    database.record("VM", vm)
    fields.update(device="", currently_attached=False)
    if fields["empty"]:
        if not is_cd:
            raise errors.ApiError("VBD_NOT_REMOVABLE_MEDIA", "in constructor")
        fields["VDI"] = NULL_REF
    else:
        disk = database.record("VDI", vdi)
        if disk["type"] in _WRONG_TYPES:
            raise errors.ApiError("VDI_INCOMPATIBLE_TYPE", vdi, disk["type"].capitalize())
        if disk["read_only"] and fields["mode"] == "RW" and not is_cd:
            raise errors.ApiError("VDI_READONLY", vdi)
    if is_cd and fields["mode"] != "RO":
        raise errors.ApiError("VBD_CDS_MUST_BE_READONLY")
    with context.state.turn(vm):
        free = free_vbd_devices(database, vm)
        if fields["userdevice"] == "autodetect":
            fields["userdevice"] = free[0]
        if str(_position(fields["userdevice"])) not in free:
            raise errors.ApiError("DEVICE_ALREADY_EXISTS", fields["userdevice"])
        vbd = database.create("VBD", **fields)
    power.update_allowed_operations(database, vm)
    return vbd


@call("VBD.destroy")
def vbd_destroy(context: Context, self: str) -> None:
    """Remove a VBD that is not attached."""
    if context.database.get("VBD", self, "currently_attached"):
        raise errors.operation_not_allowed("VBD still attached")
    context.database.destroy("VBD", self)


@call("VBD.assert_attachable")
def vbd_assert_attachable(context: Context, self: str) -> None:
    """Nothing, or the error that VBD.plug would end in because of another VBD."""
    context.database.record("VBD", self)
    assert_attachable(context.database, self)


@call("VBD.plug")
def vbd_plug(context: Context, self: str) -> None:
    """Attach a disk to a running VM."""
    database, vm = context.database, context.database.get("VBD", self, "VM")
    with context.state.turn(vm):
        record = power.assert_pluggable(database, "VBD", self, attached=False)
        device = disk_name(_position(database.get("VBD", self, "userdevice")))
        if record["is_control_domain"]:
            device = vdis.dom0_device(context.state, database.get("VBD", self, "VDI"))
        with database.exclusively():
            assert_attachable(database, self)
            database.set("VBD", self, currently_attached=True, device=device)
        if not record["is_control_domain"]:
            context.state.domains_of(vm).add_device(record["domid"], lifecycle.disk(context.state, self))
        _update_allowed_operations(context, self)


@call("VBD.unplug", "VBD.unplug_force")
def vbd_unplug(context: Context, self: str) -> None:
    """Detach a disk from a running VM."""
    database, vm = context.database, context.database.get("VBD", self, "VM")
    with context.state.turn(vm):
        record = power.assert_pluggable(database, "VBD", self, attached=True)
        if not database.get("VBD", self, "unpluggable"):
            raise errors.ApiError("VBD_NOT_UNPLUGGABLE", self)
        if not record["is_control_domain"]:
            context.state.domains_of(vm).remove_device(record["domid"], lifecycle.disk(context.state, self))
        database.set("VBD", self, currently_attached=False)
        _update_allowed_operations(context, self)


def _update_allowed_operations(context: Context, vbd: str) -> None:
    record = context.database.record("VBD", vbd)
    power.update_allowed_operations(context.database, record["VM"])
    if context.database.exists("VDI", record["VDI"]):
        vdis.update_vdi_operations(context.state, record["VDI"])


@call("VBD.insert")
def vbd_insert(context: Context, vbd: str, vdi: str) -> None:
    """Put a disc into an empty drive."""
    record = context.database.record("VBD", vbd)
    context.database.record("VDI", vdi)
    if record["type"] != "CD":
        raise errors.ApiError("VBD_NOT_REMOVABLE_MEDIA", vbd)
    if not record["empty"]:
        raise errors.ApiError("VBD_NOT_EMPTY", vbd)
    context.database.set("VBD", vbd, VDI=vdi, empty=False)
    power.update_allowed_operations(context.database, record["VM"])


@call("VBD.eject")
def vbd_eject(context: Context, vbd: str) -> None:
    """Take the disc out of a drive."""
    record = context.database.record("VBD", vbd)
    if record["type"] != "CD":
        raise errors.ApiError("VBD_NOT_REMOVABLE_MEDIA", vbd)
    if record["empty"]:
        raise errors.ApiError("VBD_IS_EMPTY", vbd)
    context.database.set("VBD", vbd, VDI=NULL_REF, empty=True)
    power.update_allowed_operations(context.database, record["VM"])
