"""What passes between a VM's guest and the outside: XenStore, plugins, figures."""

from __future__ import annotations

from typing import Any

from .. import errors, lifecycle, power
from ..state import Context
from .table import call

_GUEST_OPERATIONS = "guest-agent-operation"
_SCRIPT_LIMIT = 1024
"""Bytes that VM.call_plugin lets a script have (ocaml/xapi/xapi_vm.ml)."""


@call("VM.set_xenstore_data")
def set_xenstore_data(context: Context, self: str, value: dict[str, str]) -> None:
    """Set what the guest is told; a running guest sees it at once. The other two setters wait for the next boot."""
    context.database.record("VM", self)
    with context.state.turn(self):
        record = context.database.record("VM", self)
        context.database.set("VM", self, xenstore_data=value)
        if record["power_state"] == "Running" and not record["is_control_domain"]:
            context.state.domains_of(self).publish(record["domid"], value)
            context.state.host_of(self).guests.refresh(record["domid"])


@call("VM.call_host_plugin")
def call_host_plugin(context: Context, vm: str, plugin: str, fn: str, args: dict[str, str]) -> str:
    """Run a dom0 plugin on the host where the VM runs; one at a time for each VM."""
    actual = context.database.get("VM", vm, "power_state")
    if actual != "Running":
        # Capitalised, unlike everywhere else.
        raise errors.ApiError("VM_BAD_POWER_STATE", vm, "Running", actual)
    with lifecycle.operate_at_once(context, vm, "call_plugin"):
        return context.state.hypervisor_of(vm).plugins.call(context.session, plugin, fn, args)


@call("VM.call_plugin")
def call_plugin(context: Context, vm: str, plugin: str, fn: str, args: dict[str, str]) -> str:
    """Ask the guest's agent to do something. Only XenServer's own agent for Windows can: others are refused."""
    database = context.database
    if plugin != _GUEST_OPERATIONS:
        raise errors.ApiError("XENAPI_MISSING_PLUGIN", plugin)
    power.assert_allowed(database, vm, "call_plugin")
    if fn != "run-script":
        text = f"Requested function {fn!r} is not there"
        raise errors.ApiError("XENAPI_PLUGIN_FAILURE", "failed to find fn", text, text)
    if database.get("pool", context.state.pool, "other_config").get("allow_guest_agent_run_script") != "true":
        raise errors.ApiError("FEATURE_RESTRICTED")
    for name in ("username", "password", "script"):
        if name not in args:
            raise errors.ApiError("XENAPI_PLUGIN_FAILURE", f"missing argument {name}", "", f"{name} is required")
    if len(args["script"].encode("utf-8")) > _SCRIPT_LIMIT:
        raise errors.ApiError("XENAPI_PLUGIN_FAILURE", "length restriction", "", "the script is too long")
    raise errors.not_implemented("run-script is not supported on the given VM (or it is still booting)")


# Figures


def _figures(context: Context, vm: str) -> dict[str, tuple[str, str, float]]:
    """Description, unit and value of each data source of a running VM."""
    database = context.database
    record = power.assert_allowed(database, vm, "data_source_op")
    metrics = database.record("VM_metrics", record["metrics"])
    sources = {
        "memory": ("Memory currently allocated to VM", "B", float(metrics["memory_actual"])),
        "memory_target": ("Target of VM balloon driver", "B", float(record["memory_target"])),
    }
    for number in range(metrics["VCPUs_number"]):
        # What a simulated guest does is done by processes of its own: its vCPUs never have anything to do.
        sources[f"cpu{number}"] = (f"CPU{number} usage", "(fraction)", 0.0)
    sources["cpu_usage"] = ("Domain CPU usage", "(fraction)", 0.0)
    return sources


def _source(context: Context, vm: str, name: str) -> tuple[str, str, float]:
    figures = _figures(context, vm)
    if name not in figures:
        raise errors.internal_error(f'Rrd_interface.Rrdd_error("{name}")')
    return figures[name]


@call("VM.get_data_sources")
def get_data_sources(context: Context, self: str) -> list[dict[str, Any]]:
    """The figures that are there while it runs."""
    return [data_source(name, *facts) for name, facts in _figures(context, self).items()]


def data_source(name: str, description: str, unit: str, value: float) -> dict[str, Any]:
    """A record of class data_source."""
    return {
        "name_label": name,
        "name_description": description,
        "enabled": True,
        "standard": True,
        "units": unit,
        "min": 0.0,
        "max": float("inf"),
        "value": value,
    }


@call("VM.query_data_source")
def query_data_source(context: Context, self: str, data_source: str) -> float:
    """A figure's latest value."""
    return _source(context, self, data_source)[2]


@call("VM.record_data_source")
def record_data_source(context: Context, self: str, data_source: str) -> None:
    """Keep a figure's history; all that are there are kept."""
    _source(context, self, data_source)
