"""Which operation is allowed in which power state, and what is said when it is not.

Source: ocaml/xapi/xapi_vm_lifecycle.ml, with its order of checks.
"""

from __future__ import annotations

from typing import Any

from . import errors
from .database import Database

POWER_STATES: dict[str, tuple[str, ...]] = {
    "start": ("Halted",),
    "start_on": ("Halted",),
    "changing_VCPUs": ("Halted",),
    "changing_static_range": ("Halted",),
    "changing_memory_limits": ("Halted",),
    "changing_shadow_memory": ("Halted",),
    "changing_dynamic_range": ("Halted", "Running"),
    "unpause": ("Paused",),
    "resume": ("Suspended",),
    "resume_on": ("Suspended",),
    "pause": ("Running",),
    "suspend": ("Running",),
    "clean_shutdown": ("Running",),
    "clean_reboot": ("Running",),
    "hard_reboot": ("Paused", "Running"),
    "hard_shutdown": ("Paused", "Suspended", "Running"),
    "shutdown": ("Paused", "Suspended", "Running"),
    "destroy": ("Halted", "Suspended"),
}
"""The operations that the simulator serves; only these are ever in `allowed_operations`."""

_FOR_CONTROL_DOMAIN = ("changing_VCPUs", "changing_static_range", "changing_memory_limits", "changing_dynamic_range")
_NOT_FOR_TEMPLATES = frozenset(POWER_STATES) - {
    "destroy",
    "changing_VCPUs",
    "changing_static_range",
    "changing_memory_limits",
    "changing_shadow_memory",
    "changing_dynamic_range",
}


def refusal(vm: str, record: dict[str, Any], operation: str) -> errors.ApiError | None:
    """Why a VM does not allow an operation now; None when it does."""
    if operation in record["blocked_operations"]:
        return errors.ApiError("OPERATION_BLOCKED", vm, record["blocked_operations"][operation])
    expected = POWER_STATES[operation]
    if record["is_control_domain"] and operation in _FOR_CONTROL_DOMAIN:
        expected = ("Halted", "Running")
    if record["power_state"] not in expected:
        return errors.bad_power_state(vm, expected, record["power_state"])
    if record["is_a_template"] and operation in _NOT_FOR_TEMPLATES:
        return errors.ApiError("VM_IS_TEMPLATE", vm, operation)
    if record["is_a_snapshot"] and operation in _NOT_FOR_TEMPLATES:
        return errors.ApiError("VM_IS_SNAPSHOT", vm, operation)
    if record["is_control_domain"] and operation not in _FOR_CONTROL_DOMAIN:
        return errors.operation_not_allowed("This operation is not allowed on dom0")
    return None


def assert_allowed(database: Database, vm: str, operation: str) -> dict[str, Any]:
    """The VM's record, when it allows the operation now. ApiError with the reason when not."""
    record = database.record("VM", vm)
    error = refusal(vm, record, operation)
    if error is not None:
        raise error
    return record


def update_allowed_operations(database: Database, vm: str) -> None:
    """Recompute `allowed_operations` of a VM, of its VBDs and of its VIFs."""
    record = database.record("VM", vm)
    database.set("VM", vm, allowed_operations=[name for name in POWER_STATES if refusal(vm, record, name) is None])
    running = record["power_state"] == "Running" and not record["is_control_domain"]
    for vbd in record["VBDs"]:
        device = database.record("VBD", vbd)
        operations = _plugging(running, device["currently_attached"])
        if device["type"] == "CD":
            operations = ["insert"] if device["empty"] else ["eject"]
        database.set("VBD", vbd, allowed_operations=operations)
    for vif in record["VIFs"]:
        attached = database.get("VIF", vif, "currently_attached")
        database.set("VIF", vif, allowed_operations=_plugging(running, attached))


def _plugging(running: bool, attached: bool) -> list[str]:
    if not running:
        return ["attach"]
    return ["attach", "unplug"] if attached else ["attach", "plug"]
