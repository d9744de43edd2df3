"""Virtual machines: making them, their power, their memory, what their guests are told."""

from __future__ import annotations

import uuid as uuids
from typing import Any

from .. import errors, lifecycle, memory, power, storage
from ..generic import constructor_fields
from ..model import NULL_REF
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
    _check_order(*sizes, fields["memory_dynamic_max"], fields["memory_static_max"])
    fields["other_config"].setdefault("mac_seed", str(uuids.uuid4()))
    database = context.database
    metrics = database.create("VM_metrics")
    vm = database.create("VM", metrics=metrics, domid=-1, is_control_domain=False, **fields)
    power.update_allowed_operations(database, vm)
    return vm


@call("VM.destroy")
def destroy(context: Context, self: str) -> None:
    """Remove a VM with its VBDs, VIFs and metrics, and its guest's root directory; never its VDIs."""
    database = context.database
    with lifecycle.operate(context.state, self, "destroy") as record:
        if record["is_default_template"]:
            raise errors.ApiError("VM_CANNOT_DELETE_DEFAULT_TEMPLATE", self)
        for cls, field in (("VBD", "VBDs"), ("VIF", "VIFs"), ("console", "consoles")):
            for ref in record[field]:
                database.destroy(cls, ref)
        for cls, field in (("VM_metrics", "metrics"), ("VM_guest_metrics", "guest_metrics"), ("VDI", "suspend_VDI")):
            if database.exists(cls, record[field]):
                database.destroy(cls, record[field])
        database.destroy("VM", self)
        context.state.forget_guest(record["uuid"])


# Power


def _assert_host_can_run(context: Context, host: str) -> None:
    if not context.database.get("host", host, "enabled"):
        raise errors.ApiError("HOST_DISABLED", host)


@call("VM.start")
def start(context: Context, vm: str, start_paused: bool, force: bool) -> None:
    """Boot a VM on whichever host takes it."""
    del force
    with lifecycle.operate(context.state, vm, "start"):
        if not context.database.get("host", context.state.host, "enabled"):
            raise errors.ApiError("NO_HOSTS_AVAILABLE")
        lifecycle.boot(context.state, vm, start_paused)


@call("VM.start_on")
def start_on(context: Context, vm: str, host: str, start_paused: bool, force: bool) -> None:
    """Boot a VM on that host."""
    del force
    with lifecycle.operate(context.state, vm, "start_on"):
        _assert_host_can_run(context, host)
        lifecycle.boot(context.state, vm, start_paused)


@call("VM.clean_shutdown")
def clean_shutdown(context: Context, vm: str) -> None:
    """Let the guest shut down."""
    with lifecycle.operate(context.state, vm, "clean_shutdown") as record:
        context.state.domains.ask(record["domid"], "poweroff")
        lifecycle.halt(context.state, vm, clean=True)


@call("VM.hard_shutdown")
def hard_shutdown(context: Context, vm: str) -> None:
    """Cut the guest's power."""
    with lifecycle.operate(context.state, vm, "hard_shutdown"):
        lifecycle.halt(context.state, vm, clean=False)


@call("VM.shutdown")
def shutdown(context: Context, vm: str) -> None:
    """Let the guest shut down if it runs, cut its power otherwise."""
    with lifecycle.operate(context.state, vm, "shutdown") as record:
        running = record["power_state"] == "Running"
        if running:
            context.state.domains.ask(record["domid"], "poweroff")
        lifecycle.halt(context.state, vm, clean=running)


@call("VM.clean_reboot")
def clean_reboot(context: Context, vm: str) -> None:
    """Let the guest shut down, and boot it again in a new domain."""
    with lifecycle.operate(context.state, vm, "clean_reboot") as record:
        context.state.domains.ask(record["domid"], "reboot")
        lifecycle.halt(context.state, vm, clean=True)
        lifecycle.boot(context.state, vm, paused=False)


@call("VM.hard_reboot")
def hard_reboot(context: Context, vm: str) -> None:
    """Cut the guest's power, and boot it again in a new domain."""
    with lifecycle.operate(context.state, vm, "hard_reboot"):
        lifecycle.halt(context.state, vm, clean=False)
        lifecycle.boot(context.state, vm, paused=False)


@call("VM.pause")
def pause(context: Context, vm: str) -> None:
    """Freeze the guest."""
    with lifecycle.operate(context.state, vm, "pause"):
        lifecycle.pause(context.state, vm)


@call("VM.unpause")
def unpause(context: Context, vm: str) -> None:
    """Let a frozen guest go on."""
    with lifecycle.operate(context.state, vm, "unpause"):
        lifecycle.unpause(context.state, vm)


@call("VM.suspend")
def suspend(context: Context, vm: str) -> None:
    """Put the guest's memory aside and end its domain."""
    with lifecycle.operate(context.state, vm, "suspend"):
        lifecycle.suspend(context.state, vm)


@call("VM.resume")
def resume(context: Context, vm: str, start_paused: bool, force: bool) -> None:
    """Bring a suspended guest back, in a new domain."""
    del force
    with lifecycle.operate(context.state, vm, "resume"):
        lifecycle.resume(context.state, vm, start_paused)


@call("VM.resume_on")
def resume_on(context: Context, vm: str, host: str, start_paused: bool, force: bool) -> None:
    """Bring a suspended guest back on that host, in a new domain."""
    del force
    with lifecycle.operate(context.state, vm, "resume_on"):
        _assert_host_can_run(context, host)
        lifecycle.resume(context.state, vm, start_paused)


@call("VM.update_allowed_operations")
def update_allowed_operations(context: Context, self: str) -> None:
    """Recompute what is allowed now."""
    power.update_allowed_operations(context.database, self)


@call("VM.assert_operation_valid")
def assert_operation_valid(context: Context, self: str, op: str) -> None:
    """Nothing, or the error that the operation would end in now."""
    if op not in power.POWER_STATES:
        raise errors.operation_not_allowed(f"{op} is not served")
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
    context.database.set("VM", self, is_a_template=value)
    power.update_allowed_operations(context.database, self)


# Memory and processors


def _check_order(static_min: int, dynamic_min: int, dynamic_max: int, static_max: int) -> None:
    if not 0 <= static_min <= dynamic_min <= dynamic_max <= static_max:
        raise errors.ApiError("MEMORY_CONSTRAINT_VIOLATION_ORDER")


def _set_memory(context: Context, vm: str, operation: str, **changes: int) -> None:
    with lifecycle.operate(context.state, vm, operation) as record:
        names = ("memory_static_min", "memory_dynamic_min", "memory_dynamic_max", "memory_static_max")
        _check_order(*({**record, **changes}[name] for name in names))
        context.database.set("VM", vm, **changes)


@call("VM.set_memory_static_min")
def set_memory_static_min(context: Context, self: str, value: int) -> None:
    """Set one limit, in bytes."""
    _set_memory(context, self, "changing_static_range", memory_static_min=value)


@call("VM.set_memory_static_max")
def set_memory_static_max(context: Context, self: str, value: int) -> None:
    """Set one limit, in bytes."""
    _set_memory(context, self, "changing_static_range", memory_static_max=value)


@call("VM.set_memory_dynamic_min")
def set_memory_dynamic_min(context: Context, self: str, value: int) -> None:
    """Set one limit, in bytes."""
    _set_memory(context, self, "changing_dynamic_range", memory_dynamic_min=value)


@call("VM.set_memory_dynamic_max")
def set_memory_dynamic_max(context: Context, self: str, value: int) -> None:
    """Set one limit, in bytes."""
    _set_memory(context, self, "changing_dynamic_range", memory_dynamic_max=value)


@call("VM.set_memory_limits")
def set_memory_limits(
    context: Context, self: str, static_min: int, static_max: int, dynamic_min: int, dynamic_max: int
) -> None:
    """Set all limits, in bytes."""
    _set_memory(
        context,
        self,
        "changing_memory_limits",
        memory_static_min=static_min,
        memory_static_max=static_max,
        memory_dynamic_min=dynamic_min,
        memory_dynamic_max=dynamic_max,
    )


@call("VM.set_memory")
def set_memory(context: Context, self: str, value: int) -> None:
    """Give a VM this much memory, in bytes, no more and no less."""
    _set_memory(
        context,
        self,
        "changing_memory_limits",
        memory_static_max=value,
        memory_dynamic_min=value,
        memory_dynamic_max=value,
    )


@call("VM.compute_memory_overhead")
def compute_memory_overhead(context: Context, vm: str) -> int:
    """Bytes that the hypervisor needs for the VM besides the VM's own."""
    return memory.vm_overhead(context.database.record("VM", vm))


@call("VM.set_VCPUs_max")
def set_vcpus_max(context: Context, self: str, value: int) -> None:
    """Set how many vCPUs there can be."""
    with lifecycle.operate(context.state, self, "changing_VCPUs") as record:
        if value < record["VCPUs_at_startup"]:
            raise errors.invalid_value("VCPUs_max", str(value), "value less than VCPUs_at_startup")
        context.database.set("VM", self, VCPUs_max=value)


@call("VM.set_VCPUs_at_startup")
def set_vcpus_at_startup(context: Context, self: str, value: int) -> None:
    """Set how many vCPUs there are at boot."""
    with lifecycle.operate(context.state, self, "changing_VCPUs") as record:
        if not 0 < value <= record["VCPUs_max"]:
            raise errors.invalid_value("VCPUs_at_startup", str(value), "value greater than VCPUs_max")
        context.database.set("VM", self, VCPUs_at_startup=value)


@call("VM.set_HVM_shadow_multiplier")
def set_hvm_shadow_multiplier(context: Context, self: str, value: float) -> None:
    """Set the factor for the shadow pages' share of the overhead."""
    with lifecycle.operate(context.state, self, "changing_shadow_memory"):
        if value < 1.0:
            raise errors.invalid_value("HVM_shadow_multiplier", str(value), "multiplier must be at least 1")
        context.database.set("VM", self, HVM_shadow_multiplier=value)


# Devices, hosts, XenStore


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
    """The hosts that could run it."""
    record = context.database.record("VM", vm)
    host = context.state.host
    enabled = context.database.get("host", host, "enabled")
    fits = memory.vm_need(record) <= memory.host_free(context.database, host)
    return [host] if enabled and (fits or record["resident_on"] != NULL_REF) else []


@call("VM.set_xenstore_data")
def set_xenstore_data(context: Context, self: str, value: dict[str, str]) -> None:
    """Set what the guest is told; a running guest sees it at once. The other two setters wait for the next boot."""
    context.database.record("VM", self)
    with context.state.turn(self):
        record = context.database.record("VM", self)
        if record["power_state"] == "Running" and not record["is_control_domain"]:
            context.state.domains.publish(record["domid"], value)
        context.database.set("VM", self, xenstore_data=value)
