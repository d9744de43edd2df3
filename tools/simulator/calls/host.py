"""Hosts: placement, memory, and the door to dom0's plugins."""

from __future__ import annotations

import datetime
import json
import re
from typing import Any

from .. import errors, host_power, memory, values
from ..generic import generic_calls
from ..state import Context
from .table import call
from .vm_guest import data_source

_MAX_HOSTNAME = 255
_HOSTNAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?\Z")


@call("host.call_plugin")
def call_plugin(context: Context, host: str, plugin: str, fn: str, args: dict[str, str]) -> str:
    """Run a dom0 plugin on that host."""
    return context.state.plugins(host).call(context.session, plugin, fn, args)


@call("host.compute_free_memory")
def compute_free_memory(context: Context, host: str) -> int:
    """Bytes that new domains could have, when all others shrink to their dynamic minimum."""
    return memory.host_free(context.database, host)


@call("host.compute_memory_overhead")
def compute_memory_overhead(context: Context, host: str) -> int:
    """Bytes that the hypervisor itself needs."""
    overhead: int = context.database.get("host", host, "memory_overhead")
    return overhead


@call("host.enable")
def enable(context: Context, host: str) -> None:
    """Let VMs start on it again."""
    context.database.set("host", host, enabled=True)
    host_power.update_allowed_operations(context.database, host)


@call("host.disable")
def disable(context: Context, host: str, auto_enable: bool) -> None:
    """Start no more VMs on it. What `auto_enable` says matters at a host's restart only."""
    del auto_enable
    context.database.set("host", host, enabled=False)
    host_power.update_allowed_operations(context.database, host)


@call("host.get_servertime")
def get_servertime(context: Context, host: str) -> str:
    """The host's clock, in UTC."""
    context.database.record("host", host)
    return values.now()


@call("host.get_server_localtime")
def get_server_localtime(context: Context, host: str) -> str:
    """The host's clock, in its own time zone."""
    context.database.record("host", host)
    return datetime.datetime.now().astimezone().strftime("%Y%m%dT%H:%M:%S")


@call("host.get_management_interface")
def get_management_interface(context: Context, host: str) -> str:
    """The PIF through which the API is reached."""
    database = context.database
    managing: str = next(pif for pif in database.get("host", host, "PIFs") if database.get("PIF", pif, "management"))
    return managing


@call("host.get_uncooperative_resident_VMs")
def get_uncooperative_resident_vms(context: Context, self: str) -> list[str]:
    """The VMs that do not give memory back when they should; xapi never names any now."""
    context.database.record("host", self)
    return []


@call("host.is_in_emergency_mode")
def is_in_emergency_mode(context: Context) -> bool:
    """Whether the host has lost its coordinator."""
    return context.host.is_lost


# What it is called, and what it can do


@call("host.set_hostname_live")
def set_hostname_live(context: Context, host: str, hostname: str) -> None:
    """Give the host another name."""
    if not hostname:
        raise errors.ApiError("HOST_NAME_INVALID", "empty string")
    if len(hostname) > _MAX_HOSTNAME:
        raise errors.ApiError("HOST_NAME_INVALID", f"has more than {_MAX_HOSTNAME} characters")
    if not _HOSTNAME.match(hostname):
        raise errors.ApiError("HOST_NAME_INVALID", "has illegal characters")
    context.database.set("host", host, hostname=hostname)


@call("host.set_power_on_mode")
def set_power_on_mode(context: Context, self: str, power_on_mode: str, power_on_config: dict[str, str]) -> None:
    """Set how the host is switched on from afar."""
    context.database.set("host", self, power_on_mode=power_on_mode, power_on_config=power_on_config)


@call("host.get_sched_gran")
def get_sched_gran(context: Context, self: str) -> str:
    """The unit in which the hypervisor gives out processors."""
    context.database.record("host", self)
    return "cpu"


@call("host.apply_edition")
def apply_edition(context: Context, host: str, edition: str, force: bool) -> None:
    """Choose a licence among those that there are."""
    del force
    if edition not in context.database.get("host", host, "editions"):
        raise errors.ApiError("INVALID_EDITION", edition)
    context.database.set("host", host, edition=edition)


@call("host.list_methods")
def list_methods(context: Context) -> list[str]:
    """The names of all calls that there are."""
    return sorted(generic_calls(context.state.model))


@call("host.has_extension")
def has_extension(context: Context, host: str, name: str) -> bool:
    """Whether dom0 has an extension of the API; a simulated one has none."""
    del name
    context.database.record("host", host)
    return False


@call("host.call_extension")
def call_extension(context: Context, host: str, untrusted_call: str) -> str:
    """Call an extension with a JSON-RPC request; there is none of any name."""
    context.database.record("host", host)
    try:
        name = json.loads(untrusted_call)["method"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise errors.failure("Failed to parse the call") from None
    raise errors.method_unknown(str(name))


@call("host.sync_data")
def sync_data(context: Context, host: str) -> None:
    """Write down all that is only in memory: nothing is."""
    context.database.record("host", host)


@call("host.management_reconfigure")
def management_reconfigure(context: Context, pif: str) -> None:
    """Choose the interface through which the API is reached; only the one that is can be chosen here."""
    record = context.database.record("PIF", pif)
    if record["ip_configuration_mode"] == "None":
        raise errors.ApiError("PIF_HAS_NO_NETWORK_CONFIGURATION", pif)
    if not record["management"]:
        raise errors.not_implemented("host.management_reconfigure")


# Figures


def _figures(context: Context, host: str) -> dict[str, tuple[str, str, float]]:
    database = context.database
    total = database.get("host_metrics", database.get("host", host, "metrics"), "memory_total")
    return {
        "memory_total_kib": ("Total amount of memory in use", "KiB", total / 1024),
        "memory_free_kib": ("Total amount of free memory", "KiB", memory.host_free(database, host) / 1024),
    }


@call("host.get_data_sources")
def get_data_sources(context: Context, host: str) -> list[dict[str, Any]]:
    """The figures that there are."""
    return [data_source(name, *facts) for name, facts in _figures(context, host).items()]


@call("host.query_data_source")
def query_data_source(context: Context, host: str, name: str) -> float:
    """A figure's latest value."""
    figures = _figures(context, host)
    if name not in figures:
        raise errors.internal_error(f'Rrd_interface.Rrdd_error("{name}")')
    return figures[name][2]


@call("host.record_data_source")
def record_data_source(context: Context, host: str, name: str) -> None:
    """Keep a figure's history; all that are there are kept."""
    query_data_source(context, host, name)
