"""Moving VMs between the hosts of a pool, and their disks between its repositories.

Source: ocaml/xapi/xapi_vm_migrate.ml, with its order of checks.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from .. import errors, lifecycle, migration, placement, power
from ..state import Context
from .session import new_session
from .table import call

_DESTINATION = ("host", "master", "session_id", "SM", "xenops")
"""What host.migrate_receive gives, and VM.migrate_send needs."""


@call("host.migrate_receive")
def migrate_receive(context: Context, host: str, network: str, options: dict[str, str]) -> dict[str, str]:
    """What the sender of a VM needs to send it here, with a session of its own."""
    del options
    database = context.database
    address = database.get("host", host, "address")
    master = database.get("host", context.state.coordinator, "address")
    pifs = database.get("network", network, "PIFs")
    if not any(database.get("PIF", pif, "host") == host for pif in pifs):
        raise errors.ApiError("HOST_CANNOT_ATTACH_NETWORK", host, network)
    placement.assert_usable(database, host)
    session = new_session(context, "root", "migration")
    return {
        "SM": f"http://{address}/services/SM?session_id={session}",
        "host": host,
        "xenops": f"http://{address}/services/xenops?session_id={session}",
        "session_id": session,
        "master": f"http://{master}/",
    }


@call("VM.pool_migrate")
def pool_migrate(context: Context, vm: str, host: str, options: dict[str, str]) -> None:
    """Move a running VM to another host of the pool, or into a new domain on its own host."""
    del options
    database = context.database
    database.record("host", host)
    with lifecycle.operate(context, vm, "pool_migrate") as record:
        placement.assert_can_boot(database, vm, host, with_memory=host != record["resident_on"])
        lifecycle.migrate(context.state, vm, host)


@call("VM.assert_can_migrate")
def assert_can_migrate(
    context: Context,
    vm: str,
    dest: dict[str, str],
    live: bool,
    vdi_map: dict[str, str],
    vif_map: dict[str, str],
    options: dict[str, str],
    vgpu_map: dict[str, str],
) -> None:
    """Nothing, or the error that VM.migrate_send would end in."""
    del vgpu_map
    power.assert_allowed(context.database, vm, "migrate_send")
    _plan(context, vm, dest, live, vdi_map, vif_map, options)


@call("VM.assert_can_migrate_sender")
def assert_can_migrate_sender(
    context: Context,
    vm: str,
    dest: dict[str, str],
    live: bool,
    vdi_map: dict[str, str],
    vif_map: dict[str, str],
    vgpu_map: dict[str, str],
    options: dict[str, str],
) -> None:
    """The same, asked by the host that would send."""
    assert_can_migrate(context, vm, dest, live, vdi_map, vif_map, options, vgpu_map)


@call("VM.migrate_send")
def migrate_send(
    context: Context,
    vm: str,
    dest: dict[str, str],
    live: bool,
    vdi_map: dict[str, str],
    vif_map: dict[str, str],
    options: dict[str, str],
    *others: Any,
) -> str:
    """Move a VM with its disks to other repositories or another host of the pool, or copy it; gives the VM there.

    To another pool nothing can be sent: VM_MIGRATE_FAILED.
    """
    del others
    with lifecycle.operate(context, vm, "migrate_send"):
        plan = _plan(context, vm, dest, live, vdi_map, vif_map, options)
        if options.get("copy") == "true":
            return migration.copy(context, plan)
        migration.move(context.state, plan)
        return vm


def _plan(
    context: Context,
    vm: str,
    dest: dict[str, str],
    live: bool,
    vdi_map: dict[str, str],
    vif_map: dict[str, str],
    options: dict[str, str],
) -> migration.Plan:
    """What is to be done, once everything is checked that can be."""
    database = context.database
    record = database.record("VM", vm)
    for name in _DESTINATION:
        if name not in dest:
            raise errors.internal_error("Not_found")
    is_copy = options.get("copy") == "true"
    if is_copy and record["power_state"] != "Halted":
        raise errors.bad_power_state(vm, ("Halted",), record["power_state"])
    if record["power_state"] == "Running" and not live:
        raise errors.bad_power_state(vm, ("Halted", "Suspended"), record["power_state"])
    host = dest["host"]
    if urlsplit(dest["master"]).netloc != database.get("host", context.state.coordinator, "address"):
        text = "a simulated VM cannot be sent to another pool"
        raise errors.ApiError("VM_MIGRATE_FAILED", vm, record["resident_on"], host, text)
    if not database.exists("host", host) or not database.exists("session", dest["session_id"]):
        # Not SESSION_INVALID: the caller would take that for a word about his own.
        raise errors.ApiError("VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED")
    for vdi, sr in vdi_map.items():
        database.record("VDI", vdi)
        database.record("SR", sr)
    for vif, network in vif_map.items():
        database.record("VIF", vif)
        database.record("network", network)
    placement.assert_usable(database, host)
    return migration.plan(context.state, vm, host, vdi_map, vif_map)
