"""Who has how much of a host's memory. All numbers are bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping

from . import errors
from .database import Database

MIB = 1024 * 1024

MOST_VCPUS = 64
"""How many vCPUs a VM can have on XCP-ng 8.3."""

_PAGE_MIB = 4 / 1024


def vm_overhead(record: Mapping[str, object]) -> int:
    """What the hypervisor needs for a VM besides the VM's own memory.

    Source: ocaml/xapi-idl/memory/memory.ml, for HVM: 2 MiB of its own, shadow pages, and 38 pages a vCPU.
    """
    vcpus, static_max = int(str(record["VCPUs_max"])), int(str(record["memory_static_max"]))
    shadow = (256 * vcpus + 2 * (static_max / MIB)) * _PAGE_MIB * float(str(record["HVM_shadow_multiplier"]))
    return (2 + max(1, math.ceil(shadow)) + math.ceil(38 * vcpus * _PAGE_MIB)) * MIB


def vm_need(record: Mapping[str, object]) -> int:
    """What must be free for a VM to start: its dynamic minimum and the overhead."""
    return int(str(record["memory_dynamic_min"])) + vm_overhead(record)


def host_free(database: Database, host: str) -> int:
    """What new domains could have, when all others, those to come included, shrink to their dynamic minimum."""
    record = database.snapshot("host", host)
    total: int = database.get("host_metrics", record["metrics"], "memory_total")
    free = total - int(record["memory_overhead"])
    for vm in {*record["resident_VMs"], *database.find("VM", "scheduled_to_be_resident_on", host)}:
        resident = database.snapshot("VM", vm)
        free -= resident["memory_dynamic_min"] if resident["is_control_domain"] else vm_need(resident)
    return max(0, free)


def check_order(static_min: int, dynamic_min: int, dynamic_max: int, static_max: int) -> None:
    """ApiError MEMORY_CONSTRAINT_VIOLATION_ORDER when the limits are not in ascending order."""
    if not 0 <= static_min <= dynamic_min <= dynamic_max <= static_max:
        raise errors.ApiError("MEMORY_CONSTRAINT_VIOLATION_ORDER")
