"""What a host of the pool has and uses, what a placement service is told of it, and how long it has been up.

Storage that several hosts are connected with is counted once over all of them: each has an equal share of it. So a pool
of n hosts never offers the same GiB n times; a disk that is larger than a share has to be placed by hand.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from agent_protocol.outcomes import Outcome, Unreachable, Unsuccessful, Unsupported

from ...errors import StorageNotFound, XenServerUnreachable
from ...resources import InventoryItem, NodeResources, NodeState
from ..agents.plugin_versions import PluginVersions
from ..connection.batches import Row
from ..connection.cache import INSTANCE_KEY
from ..connection.session import XenServer
from ..guests.vms import MIB, NULL
from ..parts import Parts
from ..storage import repositories
from . import nodes

GIB = 1024**3

HYPERVISOR_TYPE = "XenServer"
"""Nova's word for XenServer and XCP-ng alike."""

BOOT_TIME = "boot_time"
"""Key in host.other_config: seconds since 1970, by the host's own clock (dbsync_slave.ml)."""

_VERSION = re.compile(r"(\d{1,4})(?:\.(\d{1,3}))?(?:\.(\d{1,3}))?")
_TIME = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.\d+)?Z?\Z", re.ASCII)


@dataclass(frozen=True)
class _Storage:
    """A host's share of the repository that root disks are made in. Bytes; others: used by what is no instance's."""

    total: int = 0
    free: int = 0
    others: int = 0


def resources(parts: Parts, node: str) -> NodeResources:
    """What a node has and uses. Memory that is used is all that XenServer would not give to another guest."""
    server, ref = parts.server, nodes.find(parts.server, node)
    record = server.events.record("host", ref)
    memory = _memory(server, record)
    free = _count(server.call("host.compute_free_memory", ref))
    storage = _storage(parts, ref)
    cpu_info = record["cpu_info"]
    return NodeResources(
        hypervisor_hostname=node,
        hypervisor_type=HYPERVISOR_TYPE,
        hypervisor_version=version(record["software_version"].get("product_version", "")),
        vcpus=_count(cpu_info.get("cpu_count")),
        vcpus_used=sum(_count(vm["VCPUs_at_startup"]) for vm in _guests(server, record)),
        memory_mb=memory // MIB,
        memory_mb_used=math.ceil(max(0, memory - free) / MIB),
        local_gb=storage.total // GIB,
        local_gb_used=math.ceil((storage.total - storage.free) / GIB),
        cpu_info=_described(cpu_info),
        host_ip=_address(server, record),
    )


def state(server: XenServer, versions: PluginVersions, node: str) -> NodeState:
    """Whether a node can be used now, asked anew. What is wrong with its plugin is in the answer."""
    ref = nodes.find(server, node)
    record = server.call("host.get_record", ref)
    live = bool(server.call("host_metrics.get_live", record["metrics"]))
    told, error = "", None
    try:
        if not live:
            raise Unreachable("node_down", f"XenServer does not see the node {node}")
        found = versions.ask(ref)
        told = found.version
        found.require()
    except Unsuccessful as problem:
        error = problem
    return NodeState(
        hypervisor_hostname=node,
        enabled=bool(record["enabled"]),
        live=live,
        helper=Outcome.SUCCEEDED if error is None else error.outcome,
        helper_version=told,
        code="" if error is None else error.code,
        message="" if error is None else error.message,
    )


def inventory(parts: Parts, node: str) -> dict[str, InventoryItem]:
    """What a node offers, by resource class; a class of which it has nothing is left out.

    Of memory, Xen's and dom0's own part is reserved; of storage, what is used by others than instances, such as cached
    images. A guest has at most as many processors as the host. Ratios of allocation are the caller's policy.
    """
    server, ref = parts.server, nodes.find(parts.server, node)
    record = server.events.record("host", ref)
    storage = _storage(parts, ref)
    totals = {
        "VCPU": (_count(record["cpu_info"].get("cpu_count")), 0),
        "MEMORY_MB": (_memory(server, record) // MIB, math.ceil(_reserved_memory(server, record) / MIB)),
        "DISK_GB": (storage.total // GIB, min(storage.total // GIB, math.ceil(storage.others / GIB))),
    }
    return {
        name: InventoryItem(total=total, reserved=min(reserved, total), max_unit=max(1, total - reserved))
        for name, (total, reserved) in totals.items()
        if total > 0
    }


def uptime(server: XenServer, node: str) -> float:
    """Seconds since a node started, by its own clock. Unsupported when its XenServer did not write that down."""
    ref = nodes.find(server, node)
    began = _seconds(server.events.record("host", ref)["other_config"].get(BOOT_TIME, ""))
    if began is None:
        raise Unsupported("boot_time_unknown", f"XenServer does not tell when the node {node} started")
    return max(0.0, clock(server, ref) - began)


def clock(server: XenServer, host: str) -> float:
    """What time it is for a host: seconds since 1970."""
    moment = parse_time(server.call("host.get_servertime", host))
    if moment is None:
        raise XenServerUnreachable(server.connection.address, "its answer cannot be read")
    return moment


def parse_time(untrusted_time: Any) -> float | None:
    """Seconds since 1970 for a time as XenAPI tells it, which is UTC; None when it is none."""
    match = _TIME.match(str(untrusted_time))
    with suppress(ValueError):
        if match is not None:
            numbers = [int(part) for part in match.groups()]
            return datetime.datetime(*numbers, tzinfo=datetime.timezone.utc).timestamp()  # type: ignore[arg-type,misc]
    return None


def version(untrusted_version: str) -> int:
    """A version as a whole number: 8.3.0 is 8003000. 0 for what is none."""
    match = _VERSION.match(untrusted_version)
    if match is None:
        return 0
    major, minor, patch = (int(part or 0) for part in match.groups())
    return major * 1_000_000 + minor * 1_000 + patch


def _memory(server: XenServer, record: Row) -> int:
    return _count(server.events.record("host_metrics", record["metrics"])["memory_total"])


def _reserved_memory(server: XenServer, record: Row) -> int:
    overhead = _count(record["memory_overhead"])
    dom0 = record["control_domain"]
    return overhead + (0 if dom0 == NULL else _count(server.events.record("VM", dom0)["memory_dynamic_min"]))


def _guests(server: XenServer, record: Row) -> list[Row]:
    """The VMs that run on a host, control domains aside."""
    vms = server.events.records("VM")
    return [vms[ref] for ref in record["resident_VMs"] if ref in vms and not vms[ref]["is_control_domain"]]


def _storage(parts: Parts, host: str) -> _Storage:
    """The host's share; nothing when there is no such repository, or the host is not connected with it."""
    server = parts.server
    try:
        repository = repositories.choose(server, parts.repository)
    except StorageNotFound:
        return _Storage()
    pbds = [pbd for pbd in server.events.records("PBD").values() if pbd["SR"] == repository.ref]
    hosts = {str(pbd["host"]) for pbd in pbds if pbd["currently_attached"]}
    if host not in hosts:
        return _Storage()
    record = server.events.record("SR", repository.ref)
    total, used = _count(record["physical_size"]), _count(record["physical_utilisation"])
    ours = sum(
        _count(vdi["physical_utilisation"])
        for vdi in server.events.records("VDI").values()
        if vdi["SR"] == repository.ref and INSTANCE_KEY in vdi["other_config"]
    )
    others = max(0, used - ours)
    return _Storage(total // len(hosts), repository.free // len(hosts), math.ceil(others / len(hosts)))


def _described(untrusted_info: Mapping[str, str]) -> dict[str, Any]:
    """cpu_info in the form that Nova gives it."""
    sockets = max(1, _count(untrusted_info.get("socket_count")))
    threads = max(1, _count(untrusted_info.get("threads_per_core")))
    cores = max(1, _count(untrusted_info.get("cpu_count")) // sockets // threads)
    return {
        "vendor": str(untrusted_info.get("vendor", "")),
        "model": str(untrusted_info.get("modelname", "")),
        "features": str(untrusted_info.get("flags", "")).split(),
        "topology": {"sockets": sockets, "cores": cores, "threads": threads},
    }


def _address(server: XenServer, record: Row) -> str:
    try:
        return str(server.members.other(str(record["address"])).hostname)
    except ValueError:
        return ""


def _count(untrusted_number: Any) -> int:
    """A number of things or bytes as XenAPI tells it; 0 for what is none."""
    text = str(untrusted_number)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _seconds(untrusted_text: str) -> float | None:
    try:
        seconds = float(untrusted_text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None
