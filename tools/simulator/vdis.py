"""Virtual disks and what they lie in: records in the database together with the bytes (disks.py).

What the storage repositories here do follows those of VHD files: a clone or snapshot makes a hidden VDI of what both
have in common, and `sm_config:vhd-parent` names it. Sources: ocaml/xapi/xapi_vdi.ml, xapi_sr.ml; the numbers of
SR_BACKEND_FAILURE are those of XE_SR_ERRORCODES.xml in xapi's storage manager.
"""

from __future__ import annotations

import contextlib
import uuid as uuids
from collections.abc import Iterator
from typing import Any

from . import errors
from .disks import BLOCK
from .formats.vhd import MAX_SIZE
from .model import NULL_REF
from .state import State
from .storage import assert_attachable, free_vbd_devices
from .values import now

ALLOCATION = 4 * 1024 * 1024
"""The repositories here give out virtual disks in units of this many bytes."""

REPOSITORY_SIZE = 1024 * 1024**3
"""Bytes of a repository about which nothing else is said."""

DRIVERS = {
    "ext": ("device",),
    "nfs": ("server", "serverpath"),
    "file": ("location",),
    "iscsi": ("target", "targetIQN"),
}
"""The types of repository, and what each must be told in PBD.device_config."""

_MISSING = {"device": 90, "server": 101, "serverpath": 102, "location": 91, "target": 95, "targetIQN": 96}
"""The number of the error for each of them."""

_LIVE = frozenset({"snapshot", "clone", "resize_online", "mirror", "enable_cbt", "disable_cbt", "blocked", "revert"})
"""What may be done to a disk that is attached."""

_VDI_OPERATIONS = ("snapshot", "clone", "copy", "resize", "destroy", "forget", "update")
_SR_OPERATIONS = (
    "scan",
    "destroy",
    "forget",
    "plug",
    "unplug",
    "update",
    "vdi_create",
    "vdi_introduce",
    "vdi_destroy",
    "vdi_resize",
    "vdi_clone",
    "vdi_snapshot",
    "pbd_create",
    "pbd_destroy",
)

_KEPT_BY_CLONES = (
    "name_label",
    "name_description",
    "type",
    "sharable",
    "other_config",
    "xenstore_data",
    "on_boot",
    "allow_caching",
)
KEPT_BY_COPIES = ("name_label", "name_description", "type", "sharable", "other_config", "xenstore_data", "tags")
"""Fields of a disk that its copies have, too."""


def no_space() -> errors.ApiError:
    """The repository is full."""
    return errors.ApiError("SR_BACKEND_FAILURE_44", "", "There is insufficient space", "")


def invalid_size(detail: str) -> errors.ApiError:
    """The repository has no disks of this size."""
    return errors.ApiError("SR_BACKEND_FAILURE_79", "", f"VDI Invalid size [opterr={detail}]", "")


def not_available(detail: str) -> errors.ApiError:
    """The repository has no such disk."""
    return errors.ApiError("SR_BACKEND_FAILURE_46", "", f"The VDI is not available [opterr={detail}]", "")


def io_error() -> errors.ApiError:
    """The disk could not be read or written."""
    return errors.ApiError("VDI_IO_ERROR", "Device I/O errors")


# Checks


def is_plugged(state: State, sr: str) -> bool:
    """Whether any host is connected with the repository."""
    pbds = state.database.get("SR", sr, "PBDs")
    return any(state.database.get("PBD", pbd, "currently_attached") for pbd in pbds)


def assert_plugged(state: State, sr: str) -> None:
    """ApiError SR_HAS_NO_PBDS when no host is connected with the repository, or what it says when it is broken."""
    state.conditions.repositories.check(sr)
    if not is_plugged(state, sr):
        raise errors.ApiError("SR_HAS_NO_PBDS", sr)


def assert_configured(sr_type: str, device_config: dict[str, str]) -> None:
    """ApiError when a PBD does not say what a repository of its type must be told."""
    for name in DRIVERS[sr_type]:
        if name not in device_config:
            number = _MISSING[name]
            raise errors.ApiError(
                f"SR_BACKEND_FAILURE_{number}", "", f"The request is missing the {name} parameter", ""
            )


def refusal(state: State, vdi: str, operation: str) -> errors.ApiError | None:
    """Why a virtual disk does not allow an operation now; None when it does."""
    database = state.database
    record = database.record("VDI", vdi)
    if any(other != "copy" for other in record["current_operations"].values()):
        return errors.ApiError("OTHER_OPERATION_IN_PROGRESS", "VDI", vdi)
    if operation == "resize" and not is_plugged(state, record["SR"]):
        return errors.ApiError("SR_HAS_NO_PBDS", record["SR"])
    attached = [vbd for vbd in record["VBDs"] if database.get("VBD", vbd, "currently_attached")]
    if operation == "copy":
        attached = [vbd for vbd in attached if database.get("VBD", vbd, "mode") == "RW"]
    if attached and operation not in _LIVE:
        return errors.ApiError("VDI_IN_USE", vdi, operation)
    if operation == "snapshot" and record["sharable"]:
        return errors.ApiError("VDI_IS_SHARABLE", vdi)
    if operation == "snapshot" and record["on_boot"] == "reset":
        return errors.ApiError("VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION")
    if operation == "resize_online":
        return errors.ApiError("SR_OPERATION_NOT_SUPPORTED", record["SR"])
    return None


def assert_allowed(state: State, vdi: str, operation: str) -> dict[str, Any]:
    """The record of a disk that allows an operation now. ApiError with the reason when it does not.

    Unlike a VM's, a disk's operations do not wait for each other: they are over before one could see them.
    """
    error = refusal(state, vdi, operation)
    if error is not None:
        raise error
    record = state.database.record("VDI", vdi)
    if operation != "forget":
        assert_plugged(state, record["SR"])
        if not record["managed"]:
            raise errors.ApiError("VDI_NOT_MANAGED", vdi)
    return record


# What a repository holds


def refresh(state: State, sr: str, scan: bool = False) -> None:
    """Make the records of a repository and its disks agree with what it holds.

    scan: also record the disks that were forgotten, and remove the records of those that have gone. What disks have in
        common is recorded in any case.
    """
    database, disks = state.database, state.disks
    uuid = database.get("SR", sr, "uuid")
    if disks.capacity(uuid) is None:
        size = database.get("SR", sr, "physical_size")
        disks.set_capacity(uuid, size if size > 0 else REPOSITORY_SIZE)
    with database.exclusively():
        held = set(disks.names(uuid))
        known = {}
        for vdi in database.get("SR", sr, "VDIs"):
            name = database.get("VDI", vdi, "location")
            if name in held:
                known[name] = vdi
            elif scan or not database.get("VDI", vdi, "managed"):
                database.destroy("VDI", vdi)
        for name in held:
            if scan or name in known or disks.is_shared(name):
                record_disk(state, sr, name, known.get(name))
        database.set(
            "SR",
            sr,
            physical_size=disks.capacity(uuid),
            physical_utilisation=disks.repository_utilisation(uuid),
            virtual_allocation=sum(disks.size(name) for name in held if not disks.is_shared(name)),
        )
    update_sr_operations(state, sr)


def record_disk(state: State, sr: str, name: str, vdi: str | None = None) -> str:
    """Bring the record of a disk up to date, or make one; gives its reference."""
    database, disks = state.database, state.disks
    if vdi is None:
        shared = disks.is_shared(name)
        label = "base copy" if shared else ""
        vdi = database.create("VDI", uuid=name, SR=sr, location=name, name_label=label, type="user")
        database.set("VDI", vdi, managed=not shared, read_only=shared, sm_config={"vdi_type": "vhd"})
    config = database.get("VDI", vdi, "sm_config")
    parent = disks.parent(name)
    if parent is not None:
        config["vhd-parent"] = parent
    else:
        config.pop("vhd-parent", None)
    database.set(
        "VDI",
        vdi,
        sm_config=config,
        virtual_size=disks.size(name),
        physical_utilisation=disks.utilisation(name),
    )
    update_vdi_operations(state, vdi)
    return vdi


def update_vdi_operations(state: State, vdi: str) -> None:
    """Recompute a disk's `allowed_operations`."""
    allowed = [name for name in _VDI_OPERATIONS if refusal(state, vdi, name) is None]
    state.database.set("VDI", vdi, allowed_operations=allowed)


def update_disks_of(state: State, vm: str) -> None:
    """Recompute what is allowed on the disks of a VM."""
    for vbd in state.database.get("VM", vm, "VBDs"):
        vdi = state.database.get("VBD", vbd, "VDI")
        if state.database.exists("VDI", vdi):
            update_vdi_operations(state, vdi)


def update_sr_operations(state: State, sr: str) -> None:
    """Recompute a repository's `allowed_operations`."""
    record = state.database.record("SR", sr)
    refused: set[str] = set()
    if is_plugged(state, sr):
        refused |= {"destroy", "forget"}
    if not record["PBDs"] or any(state.database.get("VDI", vdi, "managed") for vdi in record["VDIs"]):
        refused.add("destroy")
    allowed = [name for name in _SR_OPERATIONS if name not in refused]
    state.database.set("SR", sr, allowed_operations=allowed)


# Disks


def create(state: State, sr: str, virtual_size: int, **fields: Any) -> str:
    """A new disk, empty, its size rounded up to the repository's unit; gives its reference.

    ApiError SR_HAS_NO_PBDS, SR_BACKEND_FAILURE_79 for an impossible size, SR_BACKEND_FAILURE_44 without space for it.
    """
    database = state.database
    record = database.record("SR", sr)
    assert_plugged(state, sr)
    if virtual_size < 0:
        raise invalid_size("VDI size must be between 1 MB and 2088960 MB")
    size = _rounded(max(virtual_size, 1))
    with state.turn(sr):
        # There must be room for the disk, although it takes none as long as it is empty.
        _assert_not_full(state, record["uuid"])
        if size > record["physical_size"] - record["physical_utilisation"]:
            raise no_space()
        if size > MAX_SIZE:
            raise invalid_size("VDI size must be between 1 MB and 2088960 MB")
        name = str(uuids.uuid4())
        state.disks.create(name, record["uuid"], size)
        config = {"vdi_type": "vhd", **fields.pop("sm_config", {})}
        vdi = database.create("VDI", uuid=name, location=name, SR=sr, managed=True, sm_config=config, **fields)
        refresh(state, sr)
    return vdi


def _assert_not_full(state: State, uuid: str) -> None:
    if state.disks.is_full(uuid):
        raise no_space()


def create_like(state: State, vdi: str, sr: str) -> str:
    """A new disk, empty, with the size, the name and the settings of another one. ApiError as of create()."""
    source = state.database.record("VDI", vdi)
    return create(state, sr, source["virtual_size"], **{name: source[name] for name in KEPT_BY_COPIES})


def _rounded(size: int) -> int:
    return -(-size // ALLOCATION) * ALLOCATION


def branch(state: State, vdi: str, driver_params: dict[str, str], snapshot: bool) -> str:
    """A clone or a snapshot: another disk with the same content, which shares it until one of them changes."""
    database = state.database
    source = assert_allowed(state, vdi, "snapshot" if snapshot else "clone")
    fields = {name: source[name] for name in _KEPT_BY_CLONES}
    fields["sm_config"] = {"vdi_type": "vhd", **driver_params}
    if snapshot:
        fields.update(is_a_snapshot=True, snapshot_time=now())
    with state.turn(source["SR"]):
        _assert_not_full(state, database.get("SR", source["SR"], "uuid"))
        shared, name = str(uuids.uuid4()), str(uuids.uuid4())
        state.disks.branch(source["location"], shared, name)
        other = database.create("VDI", uuid=name, location=name, SR=source["SR"], managed=True, **fields)
        if snapshot:
            database.set("VDI", other, snapshot_of=vdi)
        refresh(state, source["SR"])
    return other


def copy(state: State, vdi: str, sr: str, base: str, into: str) -> str:
    """A full copy of a disk, into a new one in `sr` or into the one that is given; gives the copy's reference.

    base: when it is a disk, only what differs from it is copied. ApiError VDI_READONLY, VDI_TOO_SMALL, VDI_IN_USE,
    what create() raises, VDI_IO_ERROR when the repository becomes full on the way.
    """
    database = state.database
    source = assert_allowed(state, vdi, "copy")
    made = not database.exists("VDI", into)
    if made:
        into = create_like(state, vdi, sr)
    try:
        destination = database.record("VDI", into)
        if destination["read_only"]:
            raise errors.ApiError("VDI_READONLY", into)
        if destination["virtual_size"] < source["virtual_size"]:
            raise errors.ApiError("VDI_TOO_SMALL", into, str(source["virtual_size"]))
        origin = database.get("VDI", base, "location") if database.exists("VDI", base) else None
        with attached(state, vdi, "RO"), attached(state, into, "RW") as target:
            same = state.disks.allocated(target, BLOCK) if origin is None else []
            for number in sorted({*state.disks.allocated(source["location"], BLOCK, origin), *same}):
                data = state.disks.read(source["location"], number * BLOCK, BLOCK)
                write(state, into, number * BLOCK, data)
    except BaseException:
        if made:
            destroy(state, into)
        raise
    return into


def destroy(state: State, vdi: str) -> None:
    """Remove a disk with its bytes, and the VBDs that are left of it. ApiError when it is not allowed now."""
    database = state.database
    record = assert_allowed(state, vdi, "destroy")
    with state.turn(record["SR"]):
        with database.exclusively():
            for vbd in assert_allowed(state, vdi, "destroy")["VBDs"]:
                if database.get("VBD", vbd, "type") == "CD":
                    database.set("VBD", vbd, VDI=NULL_REF, empty=True)
                else:
                    database.destroy("VBD", vbd)
            for vm in database.find("VM", "suspend_VDI", vdi):
                database.set("VM", vm, suspend_VDI=NULL_REF)
            database.destroy("VDI", vdi)
        # It may take a while until what the disk shared is where it belongs now.
        if state.disks.exists(record["location"]):
            state.disks.remove(record["location"])
        refresh(state, record["SR"])


def resize(state: State, vdi: str, size: int) -> None:
    """Make a disk larger; what is new is empty. ApiError when it is not allowed now, or would become smaller."""
    record = assert_allowed(state, vdi, "resize")
    if size < record["virtual_size"]:
        raise invalid_size("shrinking not allowed")
    if _rounded(size) > MAX_SIZE:
        raise invalid_size("VDI size must be between 1 MB and 2088960 MB")
    with state.turn(record["SR"]):
        _assert_not_full(state, state.database.get("SR", record["SR"], "uuid"))
        state.disks.resize(record["location"], _rounded(size))
        refresh(state, record["SR"])


# Bytes


def dom0_device(state: State, vdi: str) -> str:
    """The name of the block device that an attached disk is in dom0, below /dev."""
    record = state.database.record("VDI", vdi)
    return f"sm/backend/{state.database.get('SR', record['SR'], 'uuid')}/{record['location']}"


@contextlib.contextmanager
def attached(state: State, vdi: str, mode: str) -> Iterator[str]:
    """Have a disk attached to dom0 meanwhile, as everything that reads or writes it does; gives its name in disks.py.

    mode: RO or RW. ApiError VDI_IN_USE when others have it attached, SR_HAS_NO_PBDS, SR_BACKEND_FAILURE_46 when there
    are no bytes behind it.
    """
    database = state.database
    vm = database.get("host", state.coordinator, "control_domain")
    record = database.record("VDI", vdi)
    assert_plugged(state, record["SR"])
    if not state.disks.exists(record["location"]):
        raise not_available(f"{record['location']} not found")
    with database.exclusively():
        vbd = database.create(
            "VBD",
            VM=vm,
            VDI=vdi,
            userdevice=free_vbd_devices(database, vm)[0],
            device=dom0_device(state, vdi),
            mode=mode,
            type="Disk",
        )
        try:
            assert_attachable(database, vbd)
        except errors.ApiError:
            database.destroy("VBD", vbd)
            raise
        database.set("VBD", vbd, currently_attached=True)
        update_vdi_operations(state, vdi)
    try:
        yield record["location"]
    finally:
        database.destroy("VBD", vbd)
        with contextlib.suppress(errors.ApiError):
            refresh(state, record["SR"])


def write(state: State, vdi: str, offset: int, data: bytes) -> None:
    """Change bytes of an attached disk. ApiError VDI_IO_ERROR beyond its end, or when its repository is full."""
    try:
        state.disks.write(state.database.get("VDI", vdi, "location"), offset, data)
    except (ValueError, OSError) as error:
        raise io_error() from error
