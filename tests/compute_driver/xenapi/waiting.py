"""VMs to be made, and waiting until something is so."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .bad_server import DEADLINE


def eventually(condition: Callable[[], Any]) -> Any:
    """What the condition gives as soon as that is something; fails the test when that takes too long."""
    deadline = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
    return found


def vm_record(name: str, **changes: Any) -> dict[str, Any]:
    """What VM.create takes."""
    memory = str(64 * 1024 * 1024)
    texts = ("PV_bootloader", "PV_kernel", "PV_ramdisk", "PV_args", "PV_bootloader_args", "PV_legacy_args", "PCI_bus")
    return {
        "name_label": name,
        "name_description": "",
        "user_version": "1",
        "is_a_template": False,
        "affinity": "OpaqueRef:NULL",
        **dict.fromkeys(("memory_static_max", "memory_dynamic_max", "memory_dynamic_min"), memory),
        "memory_static_min": str(16 * 1024 * 1024),
        "VCPUs_max": "1",
        "VCPUs_at_startup": "1",
        "VCPUs_params": {},
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "restart",
        "actions_after_crash": "restart",
        **dict.fromkeys(texts, ""),
        "HVM_boot_policy": "BIOS order",
        "HVM_boot_params": {"order": "cd"},
        "platform": {},
        "recommendations": "",
        "other_config": {},
        **changes,
    }
