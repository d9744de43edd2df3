"""Which operation is allowed on a VM and its devices now, and what is said when it is not.

Source: ocaml/xapi/xapi_vm_lifecycle.ml, xapi_vif_helpers.ml and xapi_vbd_helpers.ml, with their order of checks.
"""

from __future__ import annotations

from typing import Any

from . import errors
from .database import Database

_ALL = ("Halted", "Paused", "Suspended", "Running")
_LIVE = ("Paused", "Suspended", "Running")

POWER_STATES: dict[str, tuple[str, ...]] = {
    "snapshot": _ALL,
    "clone": ("Halted",),
    "copy": ("Halted",),
    "create_template": ("Halted", "Suspended"),
    "revert": _ALL,
    "checkpoint": _LIVE,
    "snapshot_with_quiesce": ("Running",),
    "provision": ("Halted",),
    "start": ("Halted",),
    "start_on": ("Halted",),
    "pause": ("Running",),
    "unpause": ("Paused",),
    "clean_shutdown": ("Running",),
    "clean_reboot": ("Running",),
    "hard_shutdown": _LIVE,
    "power_state_reset": _ALL,
    "hard_reboot": ("Paused", "Running"),
    "suspend": ("Running",),
    "csvm": ("Suspended",),
    "resume": ("Suspended",),
    "resume_on": ("Suspended",),
    "pool_migrate": ("Running",),
    "migrate_send": ("Halted", "Suspended", "Running"),
    "get_boot_record": _LIVE,
    "send_sysrq": ("Running",),
    "send_trigger": ("Running",),
    "query_services": _ALL,
    "shutdown": _LIVE,
    "call_plugin": ("Running",),
    "changing_memory_live": ("Running",),
    "awaiting_memory_live": ("Running",),
    "changing_dynamic_range": ("Halted", "Running"),
    "changing_static_range": ("Halted",),
    "changing_memory_limits": ("Halted",),
    "changing_shadow_memory": ("Halted",),
    "changing_shadow_memory_live": ("Running",),
    "changing_VCPUs": ("Halted",),
    "changing_VCPUs_live": ("Running",),
    "changing_NVRAM": ("Halted",),
    "assert_operation_valid": _ALL,
    "data_source_op": ("Running",),
    "update_allowed_operations": _ALL,
    "make_into_template": ("Halted",),
    "import": (),
    "export": ("Halted", "Suspended"),
    "metadata_export": _ALL,
    "reverting": _ALL,
    "destroy": ("Halted", "Suspended"),
    "create_vtpm": ("Halted",),
    "sysprep": ("Running",),
}
"""In which power states an operation is allowed, in the order in which an error names them."""

_UNLISTED = frozenset(
    [
        "create_template",
        "power_state_reset",
        "csvm",
        "get_boot_record",
        "send_sysrq",
        "send_trigger",
        "query_services",
        "shutdown",
        "call_plugin",
        "changing_memory_live",
        "awaiting_memory_live",
        "changing_memory_limits",
        "changing_shadow_memory_live",
        "changing_VCPUs",
        "assert_operation_valid",
        "data_source_op",
        "update_allowed_operations",
        "import",
        "metadata_export",
        "reverting",
        "snapshot_with_quiesce",
    ]
)
"""Operations that are never in `allowed_operations`, allowed or not."""

_CONTROL_DOMAIN_MAY_RUN = ("changing_VCPUs", "changing_static_range", "changing_memory_limits")
_FOR_CONTROL_DOMAIN = frozenset(
    [
        "changing_VCPUs",
        "changing_static_range",
        "changing_memory_limits",
        "changing_dynamic_range",
        "data_source_op",
        "changing_memory_live",
        "awaiting_memory_live",
        "metadata_export",
        "update_allowed_operations",
        "assert_operation_valid",
    ]
)
_FOR_TEMPLATES = frozenset(
    [
        "changing_dynamic_range",
        "changing_static_range",
        "changing_memory_limits",
        "changing_shadow_memory",
        "changing_VCPUs",
        "changing_NVRAM",
        "clone",
        "copy",
        "export",
        "metadata_export",
        "provision",
        "destroy",
        "migrate_send",
        "create_vtpm",
        "update_allowed_operations",
        "assert_operation_valid",
    ]
)
_FOR_SNAPSHOTS = frozenset(
    [
        "revert",
        "clone",
        "copy",
        "export",
        "destroy",
        "hard_shutdown",
        "metadata_export",
        "create_vtpm",
        "update_allowed_operations",
        "assert_operation_valid",
    ]
)
_COPIES = frozenset({"clone", "copy", "export"})
_SNAPSHOTS = frozenset({"snapshot", "checkpoint"})
_HARD = frozenset({"hard_shutdown", "hard_reboot"})

_FEATURES: dict[str, tuple[str, ...]] = {
    "clean_shutdown": ("feature-shutdown", "feature-poweroff"),
    "clean_reboot": ("feature-shutdown", "feature-reboot"),
    "changing_VCPUs_live": ("feature-vcpu-hotplug",),
    "suspend": ("feature-suspend",),
    "checkpoint": ("feature-suspend",),
    "pool_migrate": ("feature-suspend",),
    "migrate_send": ("feature-suspend",),
    "sysprep": ("feature-sysprep",),
}
"""What a running guest must have announced, one of these, in VM_guest_metrics.other."""

_MOVES_MEMORY = ("suspend", "checkpoint", "pool_migrate", "migrate_send")


def refusal(database: Database, vm: str, record: dict[str, Any], operation: str) -> errors.ApiError | None:
    """Why a VM does not allow an operation now; None when it does."""
    if operation in record["blocked_operations"]:
        return errors.ApiError("OPERATION_BLOCKED", vm, record["blocked_operations"][operation])
    expected = POWER_STATES[operation]
    if record["is_control_domain"] and operation in _CONTROL_DOMAIN_MAY_RUN:
        expected = ("Halted", "Running")
    if operation in ("clone", "copy") and record["is_a_snapshot"]:
        expected = ("Halted", "Suspended")
    if record["power_state"] not in expected:
        return errors.bad_power_state(vm, expected, record["power_state"])
    current = record["current_operations"]
    if current and not _is_concurrent(operation, set(current.values())):
        task, other = next(iter(current.items()))
        return errors.ApiError("OTHER_OPERATION_IN_PROGRESS", "VM", vm, other, task)
    return _wrong_kind(vm, record, operation) or _lacks(database, vm, record, operation)


def _is_concurrent(operation: str, others: set[str]) -> bool:
    for group in (_COPIES, _SNAPSHOTS, {"get_boot_record"}):
        if operation in group and others <= group:
            return True
    if operation == "hard_shutdown":
        return "hard_shutdown" not in others
    if operation == "hard_reboot":
        return not others & _HARD
    return others == {"migrate_send"} and operation in ("clean_shutdown", "clean_reboot", "start", "start_on")


def _wrong_kind(vm: str, record: dict[str, Any], operation: str) -> errors.ApiError | None:
    if record["is_a_snapshot"]:
        if operation not in _FOR_SNAPSHOTS:
            return errors.ApiError("VM_IS_SNAPSHOT", vm, operation)
    elif record["is_a_template"]:
        is_default = record["is_default_template"] and operation in ("destroy", "migrate_send")
        if operation not in _FOR_TEMPLATES or is_default:
            return errors.ApiError("VM_IS_TEMPLATE", vm, operation)
    if operation == "provision" and not record["is_a_template"]:
        return errors.ApiError("ONLY_PROVISION_TEMPLATE")
    if operation == "revert" and not record["is_a_snapshot"]:
        return errors.ApiError("ONLY_REVERT_SNAPSHOT")
    if record["is_control_domain"] and operation not in _FOR_CONTROL_DOMAIN:
        return errors.operation_not_allowed("This operation is not allowed on dom0")
    return None


def _lacks(database: Database, vm: str, record: dict[str, Any], operation: str) -> errors.ApiError | None:
    if operation in _FEATURES and record["power_state"] == "Running":
        announced: dict[str, str] = {}
        if database.exists("VM_guest_metrics", record["guest_metrics"]):
            announced = database.get("VM_guest_metrics", record["guest_metrics"], "other")
        if operation in _MOVES_MEMORY and "data-cant-suspend-reason" in announced:
            return errors.ApiError("VM_NON_SUSPENDABLE", vm, announced["data-cant-suspend-reason"])
        if not any(feature in announced for feature in _FEATURES[operation]):
            return errors.ApiError("VM_LACKS_FEATURE", vm)
    if operation == "create_vtpm" and record["VTPMs"]:
        return errors.ApiError("VTPM_MAX_AMOUNT_REACHED", str(len(record["VTPMs"])))
    if operation in ("suspend", "checkpoint", "snapshot"):
        for vbd in record["VBDs"]:
            vdi = database.get("VBD", vbd, "VDI")
            if database.exists("VDI", vdi) and database.get("VDI", vdi, "on_boot") == "reset":
                return errors.ApiError("VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION")
    if operation == "make_into_template" and database.exists("VM_appliance", record["appliance"]):
        return errors.ApiError("VM_IS_PART_OF_AN_APPLIANCE", vm, record["appliance"])
    if operation == "query_services" and record["other_config"].get("is_system_domain") != "true":
        return errors.ApiError("NOT_SYSTEM_DOMAIN", vm)
    return None


def assert_allowed(database: Database, vm: str, operation: str) -> dict[str, Any]:
    """The VM's record, when it allows the operation now. ApiError with the reason when not."""
    record = database.record("VM", vm)
    error = refusal(database, vm, record, operation)
    if error is not None:
        raise error
    return record


def update_allowed_operations(database: Database, vm: str) -> None:
    """Recompute `allowed_operations` of a VM, of its VBDs and of its VIFs."""
    with database.exclusively():
        _update(database, vm)


def _update(database: Database, vm: str) -> None:
    record = database.record("VM", vm)
    listed = [name for name in POWER_STATES if name not in _UNLISTED]
    allowed = [name for name in listed if refusal(database, vm, record, name) is None]
    database.set("VM", vm, allowed_operations=allowed)
    running = record["power_state"] == "Running" and not record["is_control_domain"]
    for vbd in record["VBDs"]:
        device = database.record("VBD", vbd)
        operations = _plugging(running, device["currently_attached"])
        if device["type"] == "CD":
            # A drive stays where it is while the guest runs; only what lies in it changes.
            operations = ["attach", "insert" if device["empty"] else "eject"]
        elif running:
            operations += ["pause", "unpause"] if device["currently_attached"] else []
        database.set("VBD", vbd, allowed_operations=operations)
    for vif in record["VIFs"]:
        attached = database.get("VIF", vif, "currently_attached")
        # xapi has no separate operation for VIF.unplug_force.
        operations = [name for name in _plugging(running, attached) if name != "unplug_force"]
        database.set("VIF", vif, allowed_operations=operations)


def _plugging(running: bool, attached: bool) -> list[str]:
    if not running:
        return ["attach"]
    return ["attach", "unplug", "unplug_force"] if attached else ["attach", "plug"]


def assert_pluggable(database: Database, cls: str, device: str, attached: bool) -> dict[str, Any]:
    """The record of the VM that a VBD or VIF belongs to, when the device can be plugged, or unplugged if `attached`.

    ApiError VM_BAD_POWER_STATE, DEVICE_ALREADY_ATTACHED, DEVICE_ALREADY_DETACHED, OPERATION_NOT_ALLOWED when the guest
    says that it cannot, VM_MISSING_PV_DRIVERS when it has not said anything and shows no drivers.
    """
    fields = database.record(cls, device)
    vm = fields["VM"]
    record = database.record("VM", vm)
    if record["power_state"] != "Running":
        raise errors.bad_power_state(vm, ("Running",), record["power_state"])
    if fields["currently_attached"] != attached:
        raise errors.ApiError("DEVICE_ALREADY_DETACHED" if attached else "DEVICE_ALREADY_ATTACHED", device)
    if record["is_control_domain"]:
        return record
    says, detected = "unspecified", False
    if database.exists("VM_guest_metrics", record["guest_metrics"]):
        metrics = database.record("VM_guest_metrics", record["guest_metrics"])
        says = metrics[f"can_use_hotplug_{cls.lower()}"]
        detected = metrics["PV_drivers_detected"] or bool(metrics["PV_drivers_version"])
    if says == "no":
        raise errors.operation_not_allowed(f"VM states it does not support {cls} hotplug.")
    if says == "unspecified" and not detected:
        raise errors.ApiError("VM_MISSING_PV_DRIVERS", vm)
    return record
