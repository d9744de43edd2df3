"""Virtual machines: making and removing them, what they are, where they could run."""

from __future__ import annotations

import json
import uuid as uuids
from typing import Any

from .. import errors, lifecycle, memory, placement, power, storage
from ..generic import constructor_fields
from ..state import Context
from .table import call

_RUNTIME_FIELDS = ("power_state", "suspend_VDI", "last_booted_record", "blocked_operations")
"""Members of the record that VM.create ignores: a new VM is halted."""


@call("VM.create")
def create(context: Context, args: dict[str, Any]) -> str:
    """A new VM, halted. Its devices are not checked before it starts."""
    fields = constructor_fields(context.state.model, "VM", args)
    for name in _RUNTIME_FIELDS:
        fields.pop(name, None)
    sizes = (fields["memory_static_min"], fields["memory_dynamic_min"])
    memory.check_order(*sizes, fields["memory_dynamic_max"], fields["memory_static_max"])
    if fields.get("domain_type", "unspecified") == "unspecified":
        fields["domain_type"] = "hvm" if fields["HVM_boot_policy"] else "pv"
    fields["other_config"].setdefault("mac_seed", str(uuids.uuid4()))
    database = context.database
    metrics = database.create("VM_metrics")
    vm = database.create("VM", metrics=metrics, domid=-1, is_control_domain=False, **fields)
    power.update_allowed_operations(database, vm)
    return vm


@call("VM.destroy")
def destroy(context: Context, self: str) -> None:
    """Remove a VM with its VBDs, VIFs and metrics, and its guest's root directory; never its VDIs."""
    with lifecycle.operate(context, self, "destroy") as record:
        if record["is_default_template"]:
            raise errors.ApiError("VM_CANNOT_DELETE_DEFAULT_TEMPLATE", self)
        lifecycle.remove(context.state, self)


@call("VM.update_allowed_operations")
def update_allowed_operations(context: Context, self: str) -> None:
    """Recompute what is allowed now."""
    power.update_allowed_operations(context.database, self)


@call("VM.assert_operation_valid")
def assert_operation_valid(context: Context, self: str, op: str) -> None:
    """Nothing, or the error that the operation would end in now."""
    power.assert_allowed(context.database, self, op)


@call("VM.set_blocked_operations")
def set_blocked_operations(context: Context, self: str, value: dict[str, str]) -> None:
    """Forbid exactly these operations, each for the reason given."""
    context.database.set("VM", self, blocked_operations=value)
    power.update_allowed_operations(context.database, self)


@call("VM.add_to_blocked_operations")
def add_to_blocked_operations(context: Context, self: str, key: str, value: str) -> None:
    """Forbid an operation, for the reason given."""
    context.database.add_to_map("VM", self, "blocked_operations", key, value)
    power.update_allowed_operations(context.database, self)


@call("VM.remove_from_blocked_operations")
def remove_from_blocked_operations(context: Context, self: str, key: str) -> None:
    """Allow an operation again."""
    context.database.remove_from_map("VM", self, "blocked_operations", key)
    power.update_allowed_operations(context.database, self)


@call("VM.set_is_a_template")
def set_is_a_template(context: Context, self: str, value: bool) -> None:
    """Make a VM a template or the other way round."""
    if value:
        power.assert_allowed(context.database, self, "make_into_template")
    context.database.set("VM", self, is_a_template=value)
    power.update_allowed_operations(context.database, self)


# Devices and hosts


@call("VM.get_allowed_VBD_devices")
def get_allowed_vbd_devices(context: Context, vm: str) -> list[str]:
    """The numbers that the next VBD can have."""
    return storage.free_vbd_devices(context.database, vm)


@call("VM.get_allowed_VIF_devices")
def get_allowed_vif_devices(context: Context, vm: str) -> list[str]:
    """The numbers that the next VIF can have."""
    return storage.free_vif_devices(context.database, vm)


@call("VM.get_possible_hosts")
def get_possible_hosts(context: Context, vm: str) -> list[str]:
    """The hosts that could run it now."""
    context.database.record("VM", vm)
    return [host for host in context.database.refs("host") if _boots(context, vm, host)]


def _boots(context: Context, vm: str, host: str) -> bool:
    # What runs on a host has its memory there already.
    with_memory = context.database.get("VM", vm, "resident_on") != host
    try:
        placement.assert_can_boot(context.database, vm, host, with_memory)
    except errors.ApiError:
        return False
    return True


@call("VM.assert_can_boot_here")
def assert_can_boot_here(context: Context, self: str, host: str) -> None:
    """Nothing, or the error that VM.start_on would end in because of the host."""
    placement.assert_can_boot(context.database, self, host)


@call("VM.assert_agile")
def assert_agile(context: Context, self: str) -> None:
    """Nothing, when every host of the pool could run it."""
    database = context.database
    for vbd in database.get("VM", self, "VBDs"):
        vdi = database.get("VBD", vbd, "VDI")
        if database.exists("VDI", vdi):
            sr = database.get("VDI", vdi, "SR")
            if not database.get("SR", sr, "shared"):
                raise errors.ApiError("HA_CONSTRAINT_VIOLATION_SR_NOT_SHARED", sr)
    hosts = set(database.refs("host"))
    for vif in database.get("VM", self, "VIFs"):
        network = database.get("VIF", vif, "network")
        pifs = database.get("network", network, "PIFs")
        if {database.get("PIF", pif, "host") for pif in pifs} != hosts:
            raise errors.ApiError("HA_CONSTRAINT_VIOLATION_NETWORK_NOT_SHARED", network)


@call("VM.get_boot_record")
def get_boot_record(context: Context, self: str) -> dict[str, Any]:
    """The record as it was when the VM booted; as it is now for one that never did."""
    record = context.database.record("VM", self)
    booted: dict[str, Any] = json.loads(record["last_booted_record"]) if record["last_booted_record"] else record
    return booted


@call("VM.get_secureboot_readiness")
def get_secureboot_readiness(context: Context, self: str) -> str:
    """Whether secure boot would work. ApiError NOT_IMPLEMENTED for a guest that stored EFI variables: nobody here can
    read them."""
    record = context.database.record("VM", self)
    if record["HVM_boot_params"].get("firmware") != "uefi":
        return "not_supported"
    if record["platform"].get("secureboot") not in ("true", "auto"):
        return "disabled"
    if "EFI-variables" not in record["NVRAM"]:
        return "first_boot"
    raise errors.not_implemented("VM.get_secureboot_readiness")
