"""What is measured of hosts, VMs and repositories, and when.

Nothing here really uses a processor, so loads are made up: they move, and every reader sees the same at the same
moment. Memory, devices and space are those of the database. Names and units are those of xapi's xcp-rrdd.
"""

from __future__ import annotations

import math
import zlib
from typing import Callable, NamedTuple

from . import memory
from .state import State

STEP = 5
"""Seconds between two measurements."""

ARCHIVES = ((5, 120), (60, 120), (3600, 168), (86400, 366))
"""Seconds that a row stands for, and how many rows are kept."""


class DataSource(NamedTuple):
    """Something that is measured. value: gives it for a moment, in seconds since 1970."""

    name: str
    maximum: float
    value: Callable[[float], float]


def _constant(value: float) -> Callable[[float], float]:
    return lambda _: value


def _load(name: str, most: float) -> Callable[[float], float]:
    """Between 5 and 45 per cent of `most`, in a wave of its own for each name."""
    seed = zlib.crc32(name.encode("utf-8"))
    period = 60 + seed % 240
    return lambda moment: most * (0.25 + 0.2 * math.sin(2 * math.pi * (moment + seed % period) / period))


def of_vm(state: State, vm: str) -> list[DataSource]:
    """What is measured of a VM, halted or not. ApiError HANDLE_INVALID when there is none."""
    database = state.database
    record = database.record("VM", vm)
    running = record["power_state"] == "Running"
    sources = []
    for number in range(record["VCPUs_at_startup"]):
        name = f"cpu{number}"
        load = _load(record["uuid"] + name, 1.0) if running else _constant(0.0)
        sources.append(DataSource(name, 1.0, load))
    target = float(record["memory_dynamic_max"] if running else 0)
    sources.append(DataSource("memory", math.inf, _constant(target)))
    sources.append(DataSource("memory_target", math.inf, _constant(target)))
    for vif in record["VIFs"]:
        device = database.get("VIF", vif, "device")
        sources += _rates(record["uuid"], f"vif_{device}", ("rx", "tx"), running)
    for vbd in record["VBDs"]:
        device = database.get("VBD", vbd, "device")
        if device:
            sources += _rates(record["uuid"], f"vbd_{device}", ("read", "write"), running)
    return sources


def _rates(uuid: str, device: str, directions: tuple[str, str], running: bool) -> list[DataSource]:
    names = [f"{device}_{direction}" for direction in directions]
    return [DataSource(name, math.inf, _load(uuid + name, 1e6) if running else _constant(0.0)) for name in names]


def of_host(state: State, host: str) -> list[DataSource]:
    """What is measured of a host. ApiError HANDLE_INVALID when there is none."""
    database = state.database
    record = database.record("host", host)
    count = int(record["cpu_info"].get("cpu_count", "1"))
    loads = [_load(f"{record['uuid']}cpu{number}", 1.0) for number in range(count)]
    sources = [DataSource(f"cpu{number}", 1.0, load) for number, load in enumerate(loads)]
    total = database.get("host_metrics", record["metrics"], "memory_total")
    sources += [
        DataSource("cpu_avg", 1.0, lambda moment: sum(load(moment) for load in loads) / len(loads)),
        DataSource("loadavg", math.inf, _load(record["uuid"] + "loadavg", 2.0)),
        DataSource("memory_total_kib", math.inf, _constant(total / 1024)),
        DataSource("memory_free_kib", math.inf, _constant(memory.host_free(database, host) / 1024)),
    ]
    for pif in record["PIFs"]:
        sources += _rates(record["uuid"], f"pif_{database.get('PIF', pif, 'device')}", ("rx", "tx"), running=True)
    return sources


def of_repository(state: State, sr: str) -> list[DataSource]:
    """What is measured of a storage repository. ApiError HANDLE_INVALID when there is none."""
    record = state.database.record("SR", sr)
    fields = {"size": "physical_size", "physical_utilisation": "physical_utilisation"}
    return [DataSource(name, math.inf, _constant(float(record[field]))) for name, field in fields.items()]


def archive(age: float) -> tuple[int, int]:
    """The finest archive that reaches `age` seconds back: seconds a row, and rows."""
    for interval, rows in ARCHIVES:
        if age <= interval * rows:
            return interval, rows
    return ARCHIVES[-1]
