"""VDIs, SRs and PBDs."""

from __future__ import annotations

import hashlib
import uuid as uuids
from typing import Any

from .. import errors, units, vdis
from ..generic import constructor_fields
from ..state import Context
from .table import call

_CHECKED_AT_ONCE = 1024 * 1024

# Virtual disks


@call("VDI.create")
def vdi_create(context: Context, args: dict[str, Any]) -> str:
    """A virtual disk. Its size is rounded up to the SR's unit."""
    fields = constructor_fields(context.state.model, "VDI", args)
    if fields["type"] == "cbt_metadata":
        raise errors.ApiError("VDI_INCOMPATIBLE_TYPE", "", "Cbt_metadata")
    return vdis.create(context.state, fields.pop("SR"), fields.pop("virtual_size"), **fields)


@call("VDI.destroy")
def vdi_destroy(context: Context, self: str) -> None:
    """Remove a virtual disk and the VBDs that are left of it."""
    vdis.destroy(context.state, self)


@call("VDI.clone")
def vdi_clone(context: Context, vdi: str, driver_params: dict[str, str]) -> str:
    """A disk with the same content, which takes no space before one of both changes."""
    return vdis.branch(context.state, vdi, driver_params, snapshot=False)


@call("VDI.snapshot")
def vdi_snapshot(context: Context, vdi: str, driver_params: dict[str, str]) -> str:
    """A disk that keeps the content of this moment."""
    return vdis.branch(context.state, vdi, driver_params, snapshot=True)


@call("VDI.copy")
def vdi_copy(context: Context, vdi: str, sr: str, base_vdi: str, into_vdi: str) -> str:
    """A full copy of a disk, in an SR or in a disk that is there already."""
    return vdis.copy(context.state, vdi, sr, base_vdi, into_vdi)


@call("VDI.resize")
def vdi_resize(context: Context, vdi: str, size: int) -> None:
    """Make an unattached virtual disk larger."""
    vdis.resize(context.state, vdi, size)


@call("VDI.resize_online")
def vdi_resize_online(context: Context, vdi: str, size: int) -> None:
    """None of the SRs here can do this."""
    del size
    vdis.assert_allowed(context.state, vdi, "resize_online")


@call("VDI.checksum")
def vdi_checksum(context: Context, self: str) -> str:
    """The MD5 of a disk's content, in hexadecimal."""
    digest = hashlib.md5(usedforsecurity=False)
    with vdis.attached(context.state, self, "RO") as disk:
        offset = 0
        while data := context.state.disks.read(disk, offset, _CHECKED_AT_ONCE):
            digest.update(data)
            offset += len(data)
    return digest.hexdigest()


@call("VDI.update")
def vdi_update(context: Context, vdi: str) -> None:
    """Bring a disk's record up to date with the SR."""
    record = vdis.assert_allowed(context.state, vdi, "update")
    vdis.refresh(context.state, record["SR"])


@call("VDI.forget")
def vdi_forget(context: Context, vdi: str) -> None:
    """Remove the record; the disk stays in its SR, and SR.scan finds it again."""
    vdis.assert_allowed(context.state, vdi, "forget")
    context.database.destroy("VDI", vdi)


@call("VDI.db_forget")
def vdi_db_forget(context: Context, vdi: str) -> None:
    """Remove the record, whatever the disk is used for."""
    context.database.destroy("VDI", vdi)


@call("VDI.introduce")
def vdi_introduce(
    context: Context,
    uuid: str,
    name_label: str,
    name_description: str,
    SR: str,  # noqa: N803 (the parameter's name in the datamodel)
    type: str,
    sharable: bool,
    read_only: bool,
    other_config: dict[str, str],
    location: str,
    xenstore_data: dict[str, str],
    sm_config: dict[str, str],
    *read_from_the_disk: Any,
) -> str:
    """Record a disk that is in an SR already, or have one managed that was hidden.

    What the SR knows of it itself is not taken from the caller.
    """
    del read_only, sm_config, read_from_the_disk
    database = context.database
    vdis.assert_plugged(context.state, SR)
    _assert_location_is_unique(context, SR, location, besides=uuid)
    disks = context.state.disks
    if location != uuid or not disks.exists(uuid) or uuid not in disks.names(database.get("SR", SR, "uuid")):
        raise vdis.not_available(f"{location} not found")
    known = database.find("VDI", "uuid", uuid)
    vdi = vdis.record_disk(context.state, SR, uuid, known[0] if known else None)
    names = {"name_label": name_label, "name_description": name_description}
    database.set(
        "VDI",
        vdi,
        other_config=other_config,
        xenstore_data=xenstore_data,
        sharable=sharable,
        type=type,
        managed=not disks.is_shared(uuid),
        **{name: value for name, value in names.items() if value},
    )
    return vdi


@call("VDI.db_introduce", "VDI.pool_introduce")
def vdi_db_introduce(
    context: Context,
    uuid: str,
    name_label: str,
    name_description: str,
    SR: str,  # noqa: N803
    type: str,
    sharable: bool,
    read_only: bool,
    other_config: dict[str, str],
    location: str,
    xenstore_data: dict[str, str],
    sm_config: dict[str, str],
    managed: bool,
    virtual_size: int,
    physical_utilisation: int,
    metadata_of_pool: str,
    is_a_snapshot: bool,
    snapshot_time: str,
    snapshot_of: str,
    cbt_enabled: bool,
) -> str:
    """Make a record only. Nobody looks whether there is such a disk."""
    _assert_location_is_unique(context, SR, location)
    try:
        uuids.UUID(uuid)
    except ValueError:
        raise errors.uuid_invalid("VDI", uuid) from None
    vdi = context.database.create(
        "VDI",
        uuid=uuid,
        name_label=name_label,
        name_description=name_description,
        SR=SR,
        type=type,
        sharable=sharable,
        read_only=read_only,
        other_config=other_config,
        location=location,
        xenstore_data=xenstore_data,
        sm_config=sm_config,
        managed=managed,
        virtual_size=virtual_size,
        physical_utilisation=physical_utilisation,
        metadata_of_pool=metadata_of_pool,
        is_a_snapshot=is_a_snapshot,
        snapshot_time=snapshot_time,
        snapshot_of=snapshot_of,
        cbt_enabled=cbt_enabled,
    )
    vdis.update_vdi_operations(context.state, vdi)
    return vdi


def _assert_location_is_unique(context: Context, sr: str, location: str, besides: str = "") -> None:
    for vdi in context.database.get("SR", sr, "VDIs"):
        record = context.database.record("VDI", vdi)
        if record["location"] == location and record["uuid"] != besides:
            raise errors.ApiError("LOCATION_NOT_UNIQUE", sr, location)


# Storage repositories


@call("SR.create")
def sr_create(
    context: Context,
    host: str,
    device_config: dict[str, str],
    physical_size: int,
    name_label: str,
    name_description: str,
    type: str,
    content_type: str,
    shared: bool,
    sm_config: dict[str, str],
) -> str:
    """A new, empty SR, connected with the host, or with all hosts if it is shared.

    physical_size: of the medium, in bytes, which a real SR finds out by itself; if it is 0, 1 TiB.
    """
    database, sr_type = context.database, type.lower()
    database.record("host", host)
    if sr_type not in vdis.DRIVERS:
        raise errors.ApiError("SR_UNKNOWN_DRIVER", sr_type)
    vdis.assert_configured(sr_type, device_config)
    sr = database.create(
        "SR",
        name_label=name_label,
        name_description=name_description,
        type=sr_type,
        content_type=content_type,
        shared=shared,
        sm_config=sm_config,
        physical_size=physical_size,
    )
    for each in database.refs("host") if shared else [host]:
        pbd_plug(context, database.create("PBD", host=each, SR=sr, device_config=device_config))
    return sr


@call("SR.introduce")
def sr_introduce(
    context: Context,
    uuid: str,
    name_label: str,
    name_description: str,
    type: str,
    content_type: str,
    shared: bool,
    sm_config: dict[str, str],
) -> str:
    """Record an SR that exists already. What is in it is seen when a PBD is plugged."""
    database = context.database
    if database.find("SR", "uuid", uuid):
        raise errors.ApiError("SR_UUID_EXISTS", uuid)
    sr = database.create(
        "SR",
        uuid=uuid or str(uuids.uuid4()),
        name_label=name_label,
        name_description=name_description,
        type=type.lower(),
        content_type=content_type,
        shared=shared,
        sm_config=sm_config,
        physical_size=-1,
        physical_utilisation=-1,
    )
    vdis.update_sr_operations(context.state, sr)
    return sr


def _assert_no_pbd_is_plugged(context: Context, sr: str) -> None:
    if vdis.is_plugged(context.state, sr):
        raise errors.ApiError("SR_HAS_PBD", sr)


def _remove_records(context: Context, sr: str) -> None:
    database = context.database
    for pbd in database.get("SR", sr, "PBDs"):
        pbd_destroy(context, pbd)
    for vdi in database.get("SR", sr, "VDIs"):
        database.destroy("VDI", vdi)
    database.destroy("SR", sr)


@call("SR.forget")
def sr_forget(context: Context, sr: str) -> None:
    """Remove the records of an SR, its PBDs and its disks; what is in it stays."""
    _assert_no_pbd_is_plugged(context, sr)
    _remove_records(context, sr)


@call("SR.destroy")
def sr_destroy(context: Context, sr: str) -> None:
    """Remove an SR without disks, for good."""
    database = context.database
    _assert_no_pbd_is_plugged(context, sr)
    record = database.record("SR", sr)
    if not record["PBDs"]:
        raise errors.ApiError("SR_HAS_NO_PBDS", sr)
    if any(database.get("VDI", vdi, "managed") for vdi in record["VDIs"]):
        raise errors.ApiError("SR_NOT_EMPTY")
    if record["other_config"].get("indestructible") == "true":
        raise errors.ApiError("SR_INDESTRUCTIBLE", sr)
    context.state.disks.remove_repository(record["uuid"])
    _remove_records(context, sr)


@call("SR.scan")
def sr_scan(context: Context, sr: str) -> None:
    """Look for virtual disks that were forgotten, or have gone."""
    vdis.assert_plugged(context.state, sr)
    vdis.refresh(context.state, sr, scan=True)
    units.describe(context.state, sr)


@call("SR.update")
def sr_update(context: Context, sr: str) -> None:
    """Bring the record's sizes up to date."""
    vdis.assert_plugged(context.state, sr)
    vdis.refresh(context.state, sr)


@call("SR.get_supported_types")
def sr_get_supported_types(context: Context) -> list[str]:
    """The types of SR that there are."""
    del context
    return list(vdis.DRIVERS)


# PBDs


@call("PBD.create")
def pbd_create(context: Context, args: dict[str, Any]) -> str:
    """Say how a host reaches an SR."""
    database = context.database
    fields = constructor_fields(context.state.model, "PBD", args)
    host, sr = fields["host"], fields["SR"]
    database.record("host", host)
    pbds = database.get("SR", sr, "PBDs")
    for pbd in pbds:
        if database.get("PBD", pbd, "host") == host:
            raise errors.ApiError("PBD_EXISTS", sr, host, pbd)
    if pbds and not database.get("SR", sr, "shared"):
        raise errors.ApiError("SR_NOT_SHARABLE", sr, host)
    fields["currently_attached"] = False
    return database.create("PBD", **fields)


@call("PBD.destroy")
def pbd_destroy(context: Context, self: str) -> None:
    """Forget how a host reaches an SR; the PBD must be unplugged."""
    if context.database.get("PBD", self, "currently_attached"):
        raise errors.operation_not_allowed("PBD currently attached")
    config = context.database.get("PBD", self, "device_config")
    context.database.destroy("PBD", self)
    units.destroy_secrets(context.state, config)


@call("PBD.plug")
def pbd_plug(context: Context, self: str) -> None:
    """Connect a host with an SR, and see what is in it; nothing happens when it is connected."""
    database = context.database
    record = database.record("PBD", self)
    if record["currently_attached"]:
        return
    sr_type = database.get("SR", record["SR"], "type")
    if sr_type not in vdis.DRIVERS:
        raise errors.ApiError("SR_UNKNOWN_DRIVER", sr_type)
    vdis.assert_configured(sr_type, record["device_config"])
    units.assert_secrets(context.state, record["device_config"])
    database.set("PBD", self, currently_attached=True)
    vdis.refresh(context.state, record["SR"], scan=True)
    units.describe(context.state, record["SR"])


@call("PBD.unplug")
def pbd_unplug(context: Context, self: str) -> None:
    """Disconnect a host from an SR; nothing happens when it is not connected."""
    database, sr = context.database, context.database.get("PBD", self, "SR")
    with database.exclusively():
        host = database.get("PBD", self, "host")
        used = [vdi for vdi in database.get("SR", sr, "VDIs") if _is_used_on(context, vdi, host)]
        if used:
            raise errors.ApiError("VDI_IN_USE", *used)
        database.set("PBD", self, currently_attached=False)
        vdis.update_sr_operations(context.state, sr)


def _is_used_on(context: Context, vdi: str, host: str) -> bool:
    # Those of other hosts go through other PBDs (get_active_vdis_by_pbd in xapi_pbd.ml).
    database = context.database
    for vbd in database.get("VDI", vdi, "VBDs"):
        record = database.record("VBD", vbd)
        if record["currently_attached"] and database.get("VM", record["VM"], "resident_on") == host:
            return True
    return False
