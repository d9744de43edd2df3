"""Virtual machines' memory and processors. All sizes are bytes."""

from __future__ import annotations

from .. import errors, lifecycle, memory, power, values
from ..state import Context
from .table import call


def _set_memory(context: Context, vm: str, operation: str, **changes: int) -> None:
    with lifecycle.operate(context, vm, operation) as record:
        names = ("memory_static_min", "memory_dynamic_min", "memory_dynamic_max", "memory_static_max")
        memory.check_order(*({**record, **changes}[name] for name in names))
        context.database.set("VM", vm, **changes)
        if record["power_state"] == "Running" and not record["is_control_domain"]:
            _balloon(context, vm)


def _balloon(context: Context, vm: str) -> None:
    """Tell a running guest its new range, and let it have the upper end of it."""
    database = context.database
    record = database.record("VM", vm)
    sizes = {"target": "dynamic_max", "dynamic-min": "dynamic_min", "dynamic-max": "dynamic_max"}
    nodes = {f"memory/{name}": str(record[f"memory_{field}"] // 1024) for name, field in sizes.items()}
    context.state.domains_of(vm).tell(record["domid"], nodes)
    target = record["memory_dynamic_max"]
    database.set("VM", vm, memory_target=target)
    database.set("VM_metrics", record["metrics"], memory_actual=target, last_updated=values.now())


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


@call("VM.set_memory_static_range")
def set_memory_static_range(context: Context, self: str, min: int, max: int) -> None:
    """Set both limits, in bytes."""
    _set_memory(context, self, "changing_static_range", memory_static_min=min, memory_static_max=max)


@call("VM.set_memory_dynamic_range")
def set_memory_dynamic_range(context: Context, self: str, min: int, max: int) -> None:
    """Set both limits, in bytes."""
    _set_memory(context, self, "changing_dynamic_range", memory_dynamic_min=min, memory_dynamic_max=max)


@call("VM.set_memory_target_live")
def set_memory_target_live(context: Context, self: str, target: int) -> None:
    """Give a VM exactly this much of its memory, in bytes."""
    _set_memory(context, self, "changing_dynamic_range", memory_dynamic_min=target, memory_dynamic_max=target)


@call("VM.wait_memory_target_live")
def wait_memory_target_live(context: Context, self: str) -> None:
    """Return when the guest has what it should have; here it has it at once."""
    power.assert_allowed(context.database, self, "awaiting_memory_live")


@call("VM.get_cooperative")
def get_cooperative(context: Context, self: str) -> bool:
    """Whether the guest gives memory back when it is told to. xapi says so of every VM."""
    context.database.record("VM", self)
    return True


@call("VM.maximise_memory")
def maximise_memory(context: Context, self: str, total: int, approximate: bool) -> int:
    """The largest static maximum, in bytes, with which the VM needs no more than `total` with all overhead."""
    record = context.database.record("VM", self)
    if approximate:
        # With room for as many vCPUs as a VM can have, so that adding some later is no surprise.
        record["VCPUs_max"] = max(record["VCPUs_max"], memory.MOST_VCPUS)
    low, high = 0, max(0, total) // memory.MIB
    while low < high:
        middle = (low + high + 1) // 2
        size = middle * memory.MIB
        if size + memory.vm_overhead({**record, "memory_static_max": size}) <= total:
            low = middle
        else:
            high = middle - 1
    return low * memory.MIB


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
    with lifecycle.operate(context, self, "changing_VCPUs") as record:
        if value < record["VCPUs_at_startup"]:
            raise errors.invalid_value("VCPUs_max", str(value), "value less than VCPUs_at_startup")
        context.database.set("VM", self, VCPUs_max=value)


@call("VM.set_VCPUs_at_startup")
def set_vcpus_at_startup(context: Context, self: str, value: int) -> None:
    """Set how many vCPUs there are at boot."""
    with lifecycle.operate(context, self, "changing_VCPUs") as record:
        if not 0 < value <= record["VCPUs_max"]:
            raise errors.invalid_value("VCPUs_at_startup", str(value), "value greater than VCPUs_max")
        context.database.set("VM", self, VCPUs_at_startup=value)


@call("VM.set_HVM_shadow_multiplier")
def set_hvm_shadow_multiplier(context: Context, self: str, value: float) -> None:
    """Set the factor for the shadow pages' share of the overhead."""
    with lifecycle.operate(context, self, "changing_shadow_memory"):
        if value < 1.0:
            raise errors.invalid_value("HVM_shadow_multiplier", str(value), "multiplier must be at least 1")
        context.database.set("VM", self, HVM_shadow_multiplier=value)


@call("VM.set_shadow_multiplier_live")
def set_shadow_multiplier_live(context: Context, self: str, multiplier: float) -> None:
    """Set that factor while the VM runs."""
    with lifecycle.operate(context, self, "changing_shadow_memory_live"):
        if multiplier < 1.0:
            raise errors.invalid_value("HVM_shadow_multiplier", str(multiplier), "multiplier must be at least 1")
        context.database.set("VM", self, HVM_shadow_multiplier=multiplier)


@call("VM.set_VCPUs_number_live")
def set_vcpus_number_live(context: Context, self: str, nvcpu: int) -> None:
    """Bring as many of a running VM's vCPUs online."""
    with lifecycle.operate(context, self, "changing_VCPUs_live") as record:
        if not 0 < nvcpu <= record["VCPUs_max"]:
            raise errors.invalid_value("VCPU values must satisfy: 0 < VCPUs ≤ VCPUs_max", str(nvcpu))
        states = {number: "online" if number < nvcpu else "offline" for number in range(record["VCPUs_max"])}
        nodes = {f"cpu/{number}/availability": state for number, state in states.items()}
        context.state.domains_of(self).tell(record["domid"], nodes)
        context.database.set("VM_metrics", record["metrics"], VCPUs_number=nvcpu)
