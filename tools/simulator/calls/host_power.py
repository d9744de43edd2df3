"""Hosts on and off, and their VMs out of the way before that. Source: ocaml/xapi/xapi_host.ml."""

from __future__ import annotations

from .. import errors, hosts, lifecycle, placement, power
from ..model import NULL_REF
from ..state import Context
from .table import call


def _guests(context: Context, host: str) -> list[str]:
    database = context.database
    vms = database.get("host", host, "resident_VMs")
    return [vm for vm in vms if not database.get("VM", vm, "is_control_domain")]


def _assert_can_go(context: Context, host: str) -> None:
    if context.database.get("host", host, "enabled"):
        raise errors.ApiError("HOST_NOT_DISABLED")
    guests = _guests(context, host)
    if guests:
        raise errors.ApiError("HOST_IN_USE", host, "VM", guests[0])
    context.state.live_host(host)
    if host == context.state.coordinator:
        # It could not answer any more: nor could anybody else here, as the database lives in the same process.
        raise errors.not_implemented("host.reboot, host.shutdown of the pool coordinator")


@call("host.shutdown")
def shutdown(context: Context, host: str) -> None:
    """Switch a host off that is disabled and empty; the coordinator of a simulated pool cannot go: NOT_IMPLEMENTED."""
    _assert_can_go(context, host)
    hosts.shut_down_host(context.state, host)


@call("host.reboot")
def reboot(context: Context, host: str) -> None:
    """As host.shutdown, but it comes back at once, and is enabled then."""
    _assert_can_go(context, host)
    hosts.shut_down_host(context.state, host)
    hosts.start_host(context.state, host)


@call("host.power_on")
def power_on(context: Context, host: str) -> None:
    """Switch a host on, if it was said how that is done from afar."""
    record = context.database.record("host", host)
    if context.state.hosts[host].is_up:
        raise errors.ApiError("HOST_IS_LIVE", host)
    if not record["power_on_mode"]:
        raise errors.ApiError("HOST_POWER_ON_MODE_DISABLED")
    hosts.start_host(context.state, host)


def _assert_dead(context: Context, host: str) -> None:
    context.database.record("host", host)
    if context.state.hosts[host].is_up:
        raise errors.ApiError("HOST_IS_LIVE", host)


@call("host.declare_dead")
def declare_dead(context: Context, host: str) -> None:
    """Say that a host has no power: what was recorded as running there is halted."""
    _assert_dead(context, host)
    hosts.halt_residents(context.state, host)


@call("host.destroy")
def destroy(context: Context, self: str) -> None:
    """Forget a host that has no power; the pool's coordinator cannot forget itself."""
    context.database.record("host", self)
    if self == context.state.coordinator:
        raise errors.ApiError("HOST_CANNOT_DESTROY_SELF", self)
    _assert_dead(context, self)
    if _guests(context, self):
        raise errors.ApiError("HOST_HAS_RESIDENT_VMS", self)
    hosts.remove_host(context.state, self)


# Evacuation


def _destination(context: Context, vm: str, host: str) -> str:
    """Where a VM of that host can be moved to. ApiError when nowhere."""
    database = context.database
    error = power.refusal(database, vm, database.record("VM", vm), "pool_migrate")
    if error is not None:
        raise error
    refused = errors.ApiError("NO_HOSTS_AVAILABLE", vm)
    for other in database.refs("host"):
        if other == host:
            continue
        try:
            placement.assert_can_boot(database, vm, other)
        except errors.ApiError as reason:
            if reason.code not in ("HOST_DISABLED", "HOST_NOT_LIVE"):
                refused = reason
        else:
            return other
    raise refused


@call("host.get_vms_which_prevent_evacuation")
def get_vms_which_prevent_evacuation(context: Context, self: str) -> dict[str, list[str]]:
    """The VMs that could not be moved elsewhere, each with the error."""
    obstacles = {}
    for vm in _guests(context, self):
        try:
            _destination(context, vm, self)
        except errors.ApiError as error:
            obstacles[vm] = error.description
    return obstacles


@call("host.assert_can_evacuate")
def assert_can_evacuate(context: Context, host: str) -> None:
    """Nothing, or the errors of all VMs that could not be moved elsewhere."""
    obstacles = get_vms_which_prevent_evacuation(context, host)
    if obstacles:
        raise errors.ApiError("CANNOT_EVACUATE_HOST", "|".join(",".join(error) for error in obstacles.values()))


@call("host.evacuate")
def evacuate(context: Context, host: str, network: str, evacuate_batch_size: int) -> None:
    """Move all VMs elsewhere, one after the other, each to the first host that has room for it."""
    if network != NULL_REF:
        context.database.record("network", network)
    if evacuate_batch_size < 0:
        raise errors.invalid_value("evacuate_batch_size", str(evacuate_batch_size))
    assert_can_evacuate(context, host)
    for vm in _guests(context, host):
        with lifecycle.operate(context, vm, "pool_migrate") as record:
            if record["resident_on"] == host:
                lifecycle.migrate(context.state, vm, _destination_now(context, vm, host))


def _destination_now(context: Context, vm: str, host: str) -> str:
    # The VM is in the middle of being moved, so the operation itself must not be asked for again.
    others = [other for other in placement.possible_hosts(context.database, vm) if other != host]
    if not others:
        raise errors.ApiError("NO_HOSTS_AVAILABLE", vm)
    return others[0]
