"""What a guest uses now, from what its host measured last.

Asked for by one GET /rrd_updates of the resident host, whatever the guest has: VM.query_data_source would be a call for
each processor, and /vm_rrd a dump of a year. XenServer measures the rates of devices and not what went through them, so
the counters of devices are unknown.
"""

from __future__ import annotations

import http.client
import json
import math
import re
from contextlib import closing
from typing import Any
from urllib.parse import urlencode

from ...errors import ObjectGone, XenServerUnreachable
from ...resources import DeviceCounters, Diagnostics
from ...states import PowerState
from ..connection.session import XenServer
from ..connection.transport import USER_AGENT
from ..hosts import resources as hosts
from .vms import MIB, VM

_WINDOW = 30
"""Seconds back that are asked for. A measurement is made every 5, and the latest may not be in yet."""

_MAX_BYTES = 4 * 1024 * 1024
"""Of an answer, which holds some thousand numbers."""

_CPU = re.compile(r"cpu(\d{1,4})\Z", re.ASCII)


def diagnose(server: XenServer, vm: VM) -> Diagnostics:
    """What the guest uses now; of one that does not run, what it has. XenServerUnreachable when its host is silent."""
    record = server.call("VM.get_record", vm.ref)
    latest: dict[str, float] = {}
    uptime = None
    if vm.power_state in (PowerState.RUNNING, PowerState.PAUSED):
        now = hosts.clock(server, vm.host)
        uptime = _uptime(server, record, now)
        latest = _latest(server, vm, int(now))
    cpus = sorted((int(match[1]), value) for name, value in latest.items() if (match := _CPU.match(name)))
    memory, free = latest.get("memory"), latest.get("memory_internal_free")
    # The guest's own word is in KiB, and only some have an agent that says it.
    used = None if memory is None or free is None else max(0, int(memory - free * 1024) // MIB)
    return Diagnostics(
        state=vm.power_state.word,
        cpu_usage=tuple(min(1.0, max(0.0, value)) for _, value in cpus),
        memory_maximum=int(record["memory_static_max"]) // MIB,
        memory_used=used,
        disks=tuple(DeviceCounters(name) for name in _disks(server, record)),
        nics=tuple(DeviceCounters(name) for name in _nics(server, record)),
        uptime=uptime,
    )


def _uptime(server: XenServer, record: dict[str, Any], now: float) -> float | None:
    try:
        began = hosts.parse_time(server.call("VM_metrics.get_start_time", record["metrics"]))
    except ObjectGone:
        return None
    # XenServer's word for never.
    return None if not began else max(0.0, now - began)


def _disks(server: XenServer, record: dict[str, Any]) -> list[str]:
    vbds = [server.call("VBD.get_record", ref) for ref in record["VBDs"]]
    return sorted(str(vbd["device"] or vbd["userdevice"]) for vbd in vbds if vbd["type"] == "Disk")


def _nics(server: XenServer, record: dict[str, Any]) -> list[str]:
    devices = [str(server.call("VIF.get_device", ref)) for ref in record["VIFs"]]
    return sorted(devices, key=lambda device: (len(device), device))


def _latest(server: XenServer, vm: VM, now: int) -> dict[str, float]:
    """The latest known value of each of the guest's data sources."""
    address = str(server.call("host.get_address", vm.host))
    query = {"start": now - _WINDOW, "cf": "AVERAGE", "interval": 5, "json": "true", "vm_uuid": vm.uuid}
    with server.session() as session, closing(server.connect(address)) as connection:
        try:
            # As a cookie, since URLs get into logs.
            headers = {"Cookie": f"session_id={session.ref}", "User-Agent": USER_AGENT, "Accept": "application/json"}
            connection.request("GET", f"/rrd_updates?{urlencode(query)}", headers=headers)
            response = connection.getresponse()
            untrusted_body = response.read(_MAX_BYTES)
        except (OSError, http.client.HTTPException):
            raise XenServerUnreachable(address, "it did not tell what it measured") from None
    if response.status != 200:
        raise XenServerUnreachable(address, f"it answered with HTTP status {response.status}")
    try:
        return parse_updates(untrusted_body, vm.uuid)
    except ValueError:
        raise XenServerUnreachable(address, "what it measured cannot be read") from None


def parse_updates(untrusted_body: bytes, vm_uuid: str) -> dict[str, float]:
    """The latest number of each data source of a VM in rrd_updates' JSON; ValueError when it is none.

    Numbers are strings there since 2024, and bare before that, then also NaN; what is not known is left out.
    """
    try:
        export = json.loads(untrusted_body)
        legend, rows = export["meta"]["legend"], export["data"]
        # Newest first, but nothing says so.
        rows = sorted(rows, key=lambda row: float(row["t"]), reverse=True)
        latest: dict[str, float] = {}
        for row in rows:
            for entry, untrusted_value in zip(legend, row["values"]):
                function, kind, uuid, name = entry.split(":", 3)
                value = float(untrusted_value)
                if (function, kind, uuid) == ("AVERAGE", "vm", vm_uuid) and math.isfinite(value):
                    latest.setdefault(name, value)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError):
        raise ValueError("no export of measurements") from None
    return latest
