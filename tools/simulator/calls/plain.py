"""Setters that xapi writes by hand although they only set a field (after checks that have no subject here)."""

from __future__ import annotations

from ..generic import map_adder, map_remover, set_adder, set_remover, setter
from .table import HANDLERS

_SETTERS = {
    "VM": (
        "HVM_boot_policy",
        "NVRAM",
        "actions_after_crash",
        "bios_strings",
        "domain_type",
        "ha_restart_priority",
        "has_vendor_device",
        "is_default_template",
        "order",
        "other_config",
        "platform",
        "shutdown_delay",
        "start_delay",
    ),
    "VDI": ("name_description", "name_label", "on_boot", "read_only", "sharable"),
    "SR": ("name_description", "name_label", "shared"),
    "VIF": ("ipv4_allowed", "ipv6_allowed", "locking_mode"),
    "VBD": ("mode",),
    "PBD": ("device_config",),
    "network": ("default_locking_mode",),
}
_MAPS = {"VM": ("NVRAM", "other_config", "platform")}
_SETS = {"VIF": ("ipv4_allowed", "ipv6_allowed"), "network": ("purpose",)}

for _cls, _fields in _SETTERS.items():
    for _field in _fields:
        HANDLERS[f"{_cls}.set_{_field}"] = setter(_cls, _field)
for _cls, _fields in _MAPS.items():
    for _field in _fields:
        HANDLERS[f"{_cls}.add_to_{_field}"] = map_adder(_cls, _field)
        HANDLERS[f"{_cls}.remove_from_{_field}"] = map_remover(_cls, _field)
for _cls, _fields in _SETS.items():
    for _field in _fields:
        HANDLERS[f"{_cls}.add_{_field}"] = set_adder(_cls, _field)
        HANDLERS[f"{_cls}.remove_{_field}"] = set_remover(_cls, _field)
