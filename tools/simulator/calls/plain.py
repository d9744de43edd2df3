"""Setters that xapi writes by hand although they only set a field (after checks that have no subject here)."""

from __future__ import annotations

from ..generic import map_adder, map_remover, set_adder, set_remover, setter
from .table import HANDLERS

_SETTERS = {
    "VM": ("actions_after_crash", "appliance", "other_config", "platform", "snapshot_schedule"),
    "VDI": ("name_description", "name_label", "on_boot", "read_only", "sharable"),
    "SR": ("name_description", "name_label", "shared"),
    "VIF": ("locking_mode", "trunks"),
    "VBD": ("mode",),
    "PBD": ("device_config",),
    "PIF": ("disallow_unplug", "primary_address_type"),
    "host": ("iscsi_iqn", "multipathing", "numa_affinity_policy", "uefi_certificates"),
    "pool": (
        "custom_uefi_certificates",
        "ext_auth_cache_enabled",
        "ext_auth_cache_expiry",
        "ext_auth_cache_size",
        "ext_auth_max_threads",
        "igmp_snooping_enabled",
        "local_auth_max_threads",
        "telemetry_next_collection",
        "uefi_certificates",
        "update_sync_enabled",
    ),
}
_MAPS = {"VM": ("other_config", "platform")}
_SETS = {"VIF": ("trunks",)}

# A module that has more to say about one of these wins, whichever of the two is imported first.
for _cls, _fields in _SETTERS.items():
    for _field in _fields:
        HANDLERS.setdefault(f"{_cls}.set_{_field}", setter(_cls, _field))
for _cls, _fields in _MAPS.items():
    for _field in _fields:
        HANDLERS.setdefault(f"{_cls}.add_to_{_field}", map_adder(_cls, _field))
        HANDLERS.setdefault(f"{_cls}.remove_from_{_field}", map_remover(_cls, _field))
for _cls, _fields in _SETS.items():
    for _field in _fields:
        HANDLERS.setdefault(f"{_cls}.add_{_field}", set_adder(_cls, _field))
        HANDLERS.setdefault(f"{_cls}.remove_{_field}", set_remover(_cls, _field))
