"""Hosts: placement, memory, and the door to dom0's plugins."""

from __future__ import annotations

import datetime

from .. import memory, values
from ..state import Context
from .table import call


@call("host.call_plugin")
def call_plugin(context: Context, host: str, plugin: str, fn: str, args: dict[str, str]) -> str:
    """Run a dom0 plugin on that host."""
    context.database.record("host", host)
    return context.state.plugins.call(context.session, plugin, fn, args)


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


@call("host.disable")
def disable(context: Context, host: str, auto_enable: bool) -> None:
    """Start no more VMs on it. What `auto_enable` says matters at a host's restart only."""
    del auto_enable
    context.database.set("host", host, enabled=False)


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
