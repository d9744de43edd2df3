"""What can be set about a VM only in some state, or to some values. Source: ocaml/xapi/xapi_vm.ml."""

from __future__ import annotations

from .. import errors, lifecycle, power
from ..state import Context
from .table import call

_BIOS_STRINGS = frozenset(
    (
        "bios-vendor",
        "bios-version",
        "system-manufacturer",
        "system-product-name",
        "system-version",
        "system-serial-number",
        "enclosure-asset-tag",
        "baseboard-manufacturer",
        "baseboard-product-name",
        "baseboard-version",
        "baseboard-serial-number",
        "baseboard-asset-tag",
        "baseboard-location-in-chassis",
    )
)
_BIOS_STRING_LIMIT = 512
_RESTART_PRIORITIES = ("restart", "best-effort", "")
_SUSPENDED = ("Suspended",)


def _assert_halted(context: Context, vm: str) -> None:
    actual = context.database.get("VM", vm, "power_state")
    if actual != "Halted":
        raise errors.bad_power_state(vm, ("Halted",), actual)


@call("VM.set_HVM_boot_policy")
def set_hvm_boot_policy(context: Context, self: str, value: str) -> None:
    """Set how an HVM guest boots; an empty policy means a PV guest."""
    context.database.set("VM", self, HVM_boot_policy=value, domain_type="hvm" if value else "pv")


@call("VM.set_domain_type")
def set_domain_type(context: Context, self: str, value: str) -> None:
    """Set what kind of domain a halted VM becomes."""
    _assert_halted(context, self)
    policy = context.database.get("VM", self, "HVM_boot_policy")
    if value == "hvm":
        policy = policy or "BIOS order"
    elif value != "unspecified":
        policy = ""
    context.database.set("VM", self, domain_type=value, HVM_boot_policy=policy)


@call("VM.set_has_vendor_device")
def set_has_vendor_device(context: Context, self: str, value: bool) -> None:
    """Set whether a halted VM has the device for which Windows Update brings drivers."""
    _assert_halted(context, self)
    context.database.set("VM", self, has_vendor_device=value)


@call("VM.set_NVRAM")
def set_nvram(context: Context, self: str, value: dict[str, str]) -> None:
    """Set the non-volatile memory of a halted VM."""
    with lifecycle.operate(context, self, "changing_NVRAM"):
        context.database.set("VM", self, NVRAM=value)


@call("VM.add_to_NVRAM")
def add_to_nvram(context: Context, self: str, key: str, value: str) -> None:
    """Add to the non-volatile memory of a halted VM."""
    with lifecycle.operate(context, self, "changing_NVRAM"):
        context.database.add_to_map("VM", self, "NVRAM", key, value)


@call("VM.remove_from_NVRAM")
def remove_from_nvram(context: Context, self: str, key: str) -> None:
    """Remove from the non-volatile memory of a halted VM."""
    with lifecycle.operate(context, self, "changing_NVRAM"):
        context.database.remove_from_map("VM", self, "NVRAM", key)


@call("VM.set_NVRAM_EFI_variables")
def set_nvram_efi_variables(context: Context, self: str, value: str, update: str) -> None:
    """Keep what a guest's firmware stored, also while the guest runs."""
    del update
    database = context.database
    database.set("VM", self, NVRAM={**database.get("VM", self, "NVRAM"), "EFI-variables": value})


@call("VM.set_bios_strings")
def set_bios_strings(context: Context, self: str, value: dict[str, str]) -> None:
    """Set what a guest reads in its BIOS; only once."""
    if context.database.get("VM", self, "bios_strings"):
        raise errors.ApiError("VM_BIOS_STRINGS_ALREADY_SET")
    for key, text in value.items():
        if key not in _BIOS_STRINGS:
            raise errors.invalid_value(key, "Unknown key")
        if len(text) > _BIOS_STRING_LIMIT:
            raise errors.invalid_value(key, f"{text} has length more than {_BIOS_STRING_LIMIT} characters")
        if not (text.isascii() and text.isprintable() and text == text.strip()):
            raise errors.invalid_value(key, f"{text} has non-printable characters or surrounding whitespace")
    context.database.set("VM", self, bios_strings=value)


@call("VM.copy_bios_strings")
def copy_bios_strings(context: Context, vm: str, host: str) -> None:
    """Let a guest read the host's BIOS strings; only when it has none."""
    if context.database.get("VM", vm, "bios_strings"):
        raise errors.ApiError("VM_BIOS_STRINGS_ALREADY_SET")
    context.database.set("VM", vm, bios_strings=context.database.get("host", host, "bios_strings"))


@call("VM.set_ha_restart_priority")
def set_ha_restart_priority(context: Context, self: str, value: str) -> None:
    """Set what high availability does when the VM fails."""
    if value not in _RESTART_PRIORITIES:
        raise errors.invalid_value("ha_restart_priority", value)
    context.database.set("VM", self, ha_restart_priority=value)


@call("VM.set_ha_always_run")
def set_ha_always_run(context: Context, self: str, value: bool) -> None:
    """The older form of set_ha_restart_priority."""
    context.database.set("VM", self, ha_always_run=value, ha_restart_priority="restart" if value else "")


def _set_natural(context: Context, vm: str, field: str, value: int) -> None:
    if value < 0:
        raise errors.invalid_value(field, str(value))
    context.database.set("VM", vm, **{field: value})


@call("VM.set_order")
def set_order(context: Context, self: str, value: int) -> None:
    """Set when the VM starts in its appliance."""
    _set_natural(context, self, "order", value)


@call("VM.set_start_delay")
def set_start_delay(context: Context, self: str, value: int) -> None:
    """Set for how many seconds the next in the order waits after the start."""
    _set_natural(context, self, "start_delay", value)


@call("VM.set_shutdown_delay")
def set_shutdown_delay(context: Context, self: str, value: int) -> None:
    """Set for how many seconds the next in the order waits after the shutdown."""
    _set_natural(context, self, "shutdown_delay", value)


@call("VM.set_groups")
def set_groups(context: Context, self: str, value: list[str]) -> None:
    """Put a VM into a placement group, or into none."""
    for group in value:
        context.database.record("VM_group", group)
    if len(set(value)) > 1:
        raise errors.operation_not_allowed("Can only add a VM to a single group")
    context.database.set("VM", self, groups=value)


@call("VM.set_suspend_VDI")
def set_suspend_vdi(context: Context, self: str, value: str) -> None:
    """Give a suspended VM another image of its memory."""
    database = context.database
    actual = database.get("VM", self, "power_state")
    if actual not in _SUSPENDED:
        raise errors.bad_power_state(self, _SUSPENDED, actual)
    kind = database.get("VDI", value, "type")
    if kind != "suspend":
        raise errors.ApiError("VDI_INCOMPATIBLE_TYPE", value, kind.capitalize())
    database.set("VM", self, suspend_VDI=value)


@call("VM.set_is_default_template")
def set_is_default_template(context: Context, vm: str, value: bool) -> None:
    """Say whether a template came with the product. It is one, then, that cannot be destroyed."""
    context.database.set("VM", vm, is_default_template=value)
    power.update_allowed_operations(context.database, vm)
