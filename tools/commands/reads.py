"""What it costs to read VMs: from what XenServer's events told, and by calls."""

from __future__ import annotations

import random
import statistics
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from compute_driver.xenapi.connection.cache import INSTANCE_KEY
from compute_driver.xenapi.connection.session import Connection, XenServer
from tools.simulator.process import SimulatorProcess

START_TIMEOUT = 60.0
"""Seconds until the first listing must be there."""

_TEXTS = ("PV_bootloader", "PV_kernel", "PV_ramdisk", "PV_args", "PV_bootloader_args", "PV_legacy_args", "PCI_bus")


def measure_reads(vms: int, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each kind of read in a simulated pool of so many VMs: least, median, 99th percentile, most."""
    with SimulatorProcess(["--no-agent"]) as simulator:
        server = XenServer(Connection(simulator.url, simulator.username, simulator.password))
        instances = [str(uuid.uuid4()) for _ in range(vms)]
        with ThreadPoolExecutor(4) as threads:
            refs = list(threads.map(lambda instance: server.call("VM.create", _record(instance)), instances))
        began = time.perf_counter()
        if not server.events.await_change(lambda view: set(refs) <= set(view.records("VM")), START_TIMEOUT):
            raise TimeoutError("XenServer's events did not tell of all VMs")
        listing = time.perf_counter() - began
        reads = _reads(server, instances, refs)
        figures = {
            name: _figures([_timed(read) for _ in range(count * rounds)]) for name, (read, count) in reads.items()
        }
        figures["first listing of the whole pool"] = _figures([listing])
        server.close()
        return figures


def _reads(server: XenServer, instances: list[str], refs: list[str]) -> dict[str, tuple[Callable[[], Any], int]]:
    """What is timed, by name, and how often in each round."""
    events = server.events
    # Not for secrets.
    chance = random.Random(0)  # noqa: S311

    def one_from_events() -> None:
        found = events.vm_of(chance.choice(instances))
        assert found is not None
        assert events.record("VM_metrics", found.row["metrics"])

    def one_by_calls() -> None:
        record = server.call("VM.get_record", chance.choice(refs))
        assert server.call("VM_metrics.get_record", record["metrics"])

    def all_from_events() -> None:
        rows = events.records("VM").values()
        found = [
            (row["other_config"].get(INSTANCE_KEY), row["power_state"]) for row in rows if not row["is_control_domain"]
        ]
        assert len(found) >= len(refs)

    def all_by_calls() -> None:
        assert len(server.call("VM.get_all_records")) >= len(refs)

    def one_change() -> None:
        ref, told = chance.choice(refs), str(uuid.uuid4())
        server.call("VM.set_name_description", ref, told)
        assert events.await_change(lambda view: view.records("VM")[ref]["name_description"] == told, START_TIMEOUT)

    return {
        "one VM and its metrics, from events": (one_from_events, 100),
        "one VM and its metrics, by VM.get_record": (one_by_calls, 10),
        "state of all instances, from events": (all_from_events, 10),
        "all VMs, by VM.get_all_records": (all_by_calls, 1),
        "barrier": (events.barrier, 1),
        "a change, from its call until events told of it": (one_change, 5),
    }


def _record(instance: str) -> dict[str, Any]:
    memory = str(16 * 1024 * 1024)
    return {
        "name_label": f"instance-{instance}",
        "name_description": "",
        "user_version": "1",
        "is_a_template": False,
        "affinity": "OpaqueRef:NULL",
        **dict.fromkeys(("memory_static_max", "memory_dynamic_max", "memory_dynamic_min", "memory_static_min"), memory),
        "VCPUs_max": "1",
        "VCPUs_at_startup": "1",
        "VCPUs_params": {},
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "restart",
        "actions_after_crash": "restart",
        **dict.fromkeys(_TEXTS, ""),
        "HVM_boot_policy": "BIOS order",
        "HVM_boot_params": {"order": "cd"},
        "platform": {"acpi": "1", "apic": "true", "pae": "true", "nx": "true", "viridian": "true"},
        "recommendations": "",
        "other_config": {INSTANCE_KEY: instance},
    }


def _timed(read: Callable[[], Any]) -> float:
    began = time.perf_counter()
    read()
    return time.perf_counter() - began


def _figures(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    milliseconds = {
        "least": ordered[0],
        "median": statistics.median(ordered),
        "p99": ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
        "most": ordered[-1],
    }
    return {"runs": len(ordered), **{name: round(1000 * value, 4) for name, value in milliseconds.items()}}
