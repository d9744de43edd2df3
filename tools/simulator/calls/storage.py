"""VBDs, VDIs, SRs and PBDs. VDIs have records only: there are no bytes behind them."""

from __future__ import annotations

from typing import Any

from .. import errors, lifecycle, power
from ..domain import disk_name, disk_position
from ..generic import constructor_fields
from ..model import NULL_REF
from ..state import Context
from ..storage import assert_attachable, assert_unattached, free_vbd_devices
from .table import call

_WRONG_TYPES = ("redo_log", "metadata", "ha_statefile", "cbt_metadata")
"""VDIs that no VM may have as a disk."""

_ALLOCATION = 4 * 1024 * 1024
"""The ext SR here gives out space in units of this many bytes."""


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


def _assert_running(context: Context, vm: str) -> dict[str, Any]:
    record = context.database.record("VM", vm)
    if record["power_state"] != "Running":
        raise errors.bad_power_state(vm, ("Running",), record["power_state"])
    return record


@call("VBD.plug")
def vbd_plug(context: Context, self: str) -> None:
    """Attach a disk to a running VM."""
    database, vm = context.database, context.database.get("VBD", self, "VM")
    with context.state.turn(vm):
        record = _assert_running(context, vm)
        if database.get("VBD", self, "currently_attached"):
            raise errors.ApiError("DEVICE_ALREADY_ATTACHED", self)
        assert_attachable(database, self)
        position = _position(database.get("VBD", self, "userdevice"))
        if not record["is_control_domain"]:
            context.state.domains.add_device(record["domid"], lifecycle.disk(context.state, self))
        database.set("VBD", self, currently_attached=True, device=disk_name(position))
        power.update_allowed_operations(database, vm)


@call("VBD.unplug", "VBD.unplug_force")
def vbd_unplug(context: Context, self: str) -> None:
    """Detach a disk from a running VM."""
    database, vm = context.database, context.database.get("VBD", self, "VM")
    with context.state.turn(vm):
        record = _assert_running(context, vm)
        if not database.get("VBD", self, "currently_attached"):
            raise errors.ApiError("DEVICE_ALREADY_DETACHED", self)
        if not database.get("VBD", self, "unpluggable"):
            raise errors.ApiError("VBD_NOT_UNPLUGGABLE", self)
        if not record["is_control_domain"]:
            context.state.domains.remove_device(record["domid"], lifecycle.disk(context.state, self))
        database.set("VBD", self, currently_attached=False)
        power.update_allowed_operations(database, vm)


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


def _assert_plugged(context: Context, sr: str) -> None:
    pbds = context.database.get("SR", sr, "PBDs")
    if not any(context.database.get("PBD", pbd, "currently_attached") for pbd in pbds):
        raise errors.ApiError("SR_HAS_NO_PBDS", sr)


def _account(context: Context, sr: str) -> None:
    database = context.database
    sizes = [database.get("VDI", vdi, "virtual_size") for vdi in database.get("SR", sr, "VDIs")]
    database.set("SR", sr, virtual_allocation=sum(sizes), physical_utilisation=sum(sizes))


def _rounded(size: int) -> int:
    return -(-size // _ALLOCATION) * _ALLOCATION


@call("VDI.create")
def vdi_create(context: Context, args: dict[str, Any]) -> str:
    """A virtual disk. Its size is rounded up to the SR's unit."""
    database = context.database
    fields = constructor_fields(context.state.model, "VDI", args)
    sr = database.record("SR", fields["SR"])
    _assert_plugged(context, fields["SR"])
    if fields["virtual_size"] < 0:
        raise errors.ApiError("SR_BACKEND_FAILURE_79", "", "VDI Invalid size", "")
    fields["virtual_size"] = _rounded(fields["virtual_size"])
    if fields["virtual_size"] > sr["physical_size"] - sr["physical_utilisation"]:
        raise errors.ApiError("SR_BACKEND_FAILURE_44", "", "There is insufficient space", "")
    fields.setdefault("sm_config", {}).setdefault("vdi_type", "vhd")
    vdi = database.create("VDI", managed=True, physical_utilisation=fields["virtual_size"], **fields)
    database.set("VDI", vdi, location=database.get("VDI", vdi, "uuid"))
    _account(context, fields["SR"])
    return vdi


@call("VDI.destroy")
def vdi_destroy(context: Context, self: str) -> None:
    """Remove a virtual disk and the VBDs that are left of it."""
    database = context.database
    record = database.record("VDI", self)
    assert_unattached(database, self, "destroy")
    for vbd in record["VBDs"]:
        if database.get("VBD", vbd, "type") == "CD":
            database.set("VBD", vbd, VDI=NULL_REF, empty=True)
        else:
            database.destroy("VBD", vbd)
    database.destroy("VDI", self)
    _account(context, record["SR"])


@call("VDI.resize")
def vdi_resize(context: Context, vdi: str, size: int) -> None:
    """Make an unattached virtual disk larger."""
    record = context.database.record("VDI", vdi)
    assert_unattached(context.database, vdi, "resize")
    _assert_plugged(context, record["SR"])
    if size < record["virtual_size"]:
        raise errors.ApiError("SR_BACKEND_FAILURE_79", "", "VDI Invalid size", "shrinking not allowed")
    context.database.set("VDI", vdi, virtual_size=_rounded(size), physical_utilisation=_rounded(size))
    _account(context, record["SR"])


@call("SR.scan")
def sr_scan(context: Context, sr: str) -> None:
    """Look for virtual disks; here nobody but the API makes any."""
    context.database.record("SR", sr)
    _assert_plugged(context, sr)
    _account(context, sr)


@call("SR.get_supported_types")
def sr_get_supported_types(context: Context) -> list[str]:
    """The types of SR that there are."""
    del context
    return ["ext"]


@call("PBD.create")
def pbd_create(context: Context, args: dict[str, Any]) -> str:
    """Say how a host reaches an SR."""
    database = context.database
    fields = constructor_fields(context.state.model, "PBD", args)
    database.record("host", fields["host"])
    for pbd in database.get("SR", fields["SR"], "PBDs"):
        if database.get("PBD", pbd, "host") == fields["host"]:
            raise errors.ApiError("PBD_EXISTS", fields["SR"], fields["host"], pbd)
    return database.create("PBD", **fields)


@call("PBD.destroy")
def pbd_destroy(context: Context, self: str) -> None:
    """Forget how a host reaches an SR; the PBD must be unplugged."""
    if context.database.get("PBD", self, "currently_attached"):
        raise errors.operation_not_allowed("PBD currently attached")
    context.database.destroy("PBD", self)


@call("PBD.plug")
def pbd_plug(context: Context, self: str) -> None:
    """Connect a host with an SR; nothing happens when it is connected."""
    context.database.set("PBD", self, currently_attached=True)


@call("PBD.unplug")
def pbd_unplug(context: Context, self: str) -> None:
    """Disconnect a host from an SR; nothing happens when it is not connected."""
    database = context.database
    used: list[str] = []
    for vdi in database.get("SR", database.get("PBD", self, "SR"), "VDIs"):
        if any(database.get("VBD", vbd, "currently_attached") for vbd in database.get("VDI", vdi, "VBDs")):
            used.append(vdi)
    if used:
        raise errors.ApiError("VDI_IN_USE", *used)
    database.set("PBD", self, currently_attached=False)
