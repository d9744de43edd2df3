"""Classes with little behaviour: secrets, groups of VMs, graphics processors (of which a simulated host has none)."""

from __future__ import annotations

from typing import Any

from .. import errors
from ..generic import constructor_fields
from ..state import Context
from .table import call


@call("secret.create")
def secret_create(context: Context, args: dict[str, Any]) -> str:
    """A value that others name by its uuid."""
    return context.database.create("secret", **constructor_fields(context.state.model, "secret", args))


@call("secret.introduce")
def secret_introduce(context: Context, uuid: str, value: str, other_config: dict[str, str]) -> str:
    """A value whose uuid is known."""
    return context.database.create("secret", uuid=uuid, value=value, other_config=other_config)


@call("secret.destroy")
def secret_destroy(context: Context, self: str) -> None:
    """Forget a value."""
    context.database.destroy("secret", self)


@call("VM_group.create")
def vm_group_create(context: Context, args: dict[str, Any]) -> str:
    """A group of VMs that are placed with regard to each other."""
    return context.database.create("VM_group", **constructor_fields(context.state.model, "VM_group", args))


@call("VM_group.destroy")
def vm_group_destroy(context: Context, self: str) -> None:
    """Remove a group; its VMs stay."""
    context.database.destroy("VM_group", self)


@call("GPU_group.create")
def gpu_group_create(context: Context, name_label: str, name_description: str, other_config: dict[str, str]) -> str:
    """A group of processors, of which there are none to put into it."""
    return context.database.create(
        "GPU_group", name_label=name_label, name_description=name_description, other_config=other_config
    )


@call("GPU_group.destroy")
def gpu_group_destroy(context: Context, self: str) -> None:
    """Remove a group."""
    context.database.destroy("GPU_group", self)


@call("GPU_group.get_remaining_capacity")
def gpu_group_get_remaining_capacity(context: Context, self: str, vgpu_type: str) -> int:
    """How many more virtual processors of a type the group can have."""
    context.database.record("GPU_group", self)
    context.database.record("VGPU_type", vgpu_type)
    return 0


@call("GPU_group.update_enabled_VGPU_types", "GPU_group.update_supported_VGPU_types")
def gpu_group_update_types(context: Context, self: str) -> None:
    """Look again for what the group's processors can do; there are none in it."""
    context.database.record("GPU_group", self)


@call("VGPU.create")
def vgpu_create(
    context: Context, vm: str, gpu_group: str, device: str, other_config: dict[str, str], vgpu_type: str
) -> str:
    """A virtual processor for a VM. No group here has any to share."""
    del other_config, vgpu_type
    context.database.record("VM", vm)
    context.database.record("GPU_group", gpu_group)
    if device != "0":
        raise errors.ApiError("INVALID_DEVICE", device)
    raise errors.ApiError("GPU_GROUP_CONTAINS_NO_PGPUS", gpu_group)


@call("VGPU.destroy")
def vgpu_destroy(context: Context, self: str) -> None:
    """Remove a virtual processor."""
    context.database.destroy("VGPU", self)
