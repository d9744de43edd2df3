"""The rules of attaching disks, which several calls share. Source: ocaml/xapi/xapi_vbd_helpers.ml."""

from __future__ import annotations

from . import errors
from .database import Database
from .domain import disk_position

VBD_DEVICES = 255
"""How many block devices a VM can have: "0" to "254"."""

VIF_DEVICES = 16
"""How many network interfaces a VM can have: "0" to "15"."""


def free_vbd_devices(database: Database, vm: str) -> list[str]:
    """The numbers that a VM's next VBD can have."""
    used = set()
    for vbd in database.get("VM", vm, "VBDs"):
        try:
            used.add(disk_position(database.get("VBD", vbd, "userdevice")))
        except ValueError:
            # Somebody set the field afterwards; such a VBD takes no number.
            continue
    return [str(number) for number in range(VBD_DEVICES) if number not in used]


def free_vif_devices(database: Database, vm: str) -> list[str]:
    """The numbers that a VM's next VIF can have."""
    used = {database.get("VIF", vif, "device") for vif in database.get("VM", vm, "VIFs")}
    return [str(number) for number in range(VIF_DEVICES) if str(number) not in used]


def assert_attachable(database: Database, vbd: str) -> None:
    """ApiError VDI_IN_USE when another VBD holds this one's disk in a way that excludes it."""
    record = database.record("VBD", vbd)
    vdi = record["VDI"]
    if record["empty"] or not database.exists("VDI", vdi) or database.get("VDI", vdi, "sharable"):
        return
    for other in database.get("VDI", vdi, "VBDs"):
        if other == vbd or not database.get("VBD", other, "currently_attached"):
            continue
        if "RW" in (record["mode"], database.get("VBD", other, "mode")):
            raise errors.ApiError("VDI_IN_USE", vdi)
