"""Moving VMs between the hosts of a pool, and their disks between its repositories; and to other pools.

Source: ocaml/xapi/xapi_vm_migrate.ml, with its order of checks.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from .. import errors, lifecycle, migration, placement, power
from ..between_pools import frames, sender
from ..between_pools.connection import Destination
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
    # A real host always says http; here there is plain HTTP at that address only where HTTPS is not served.
    scheme = "https" if context.state.settings.tls else "http"
    here = f"{scheme}://{database.get('host', host, 'address')}"
    master = f"{scheme}://{database.get('host', context.state.coordinator, 'address')}"
    pifs = database.get("network", network, "PIFs")
    if not any(database.get("PIF", pif, "host") == host for pif in pifs):
        raise errors.ApiError("HOST_CANNOT_ATTACH_NETWORK", host, network)
    placement.assert_usable(database, host)
    session = new_session(context, "root", "migration")
    return {
        "SM": f"{here}/services/SM?session_id={session}",
        "host": host,
        "xenops": f"{here}{frames.PATH}?session_id={session}",
        "session_id": session,
        "master": f"{master}/",
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
    _check_wishes(context, vm, dest, live, options)
    if _is_here(context, dest):
        _plan(context, vm, dest, vdi_map, vif_map)
    else:
        sender.check(context.state, _sending(context, vm, dest, vdi_map, vif_map, options), _destination(dest))


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
    """Move a VM with its disks to other repositories or another host of the pool, or to another pool; or copy it.

    Gives the VM there.
    """
    del others
    with lifecycle.operate(context, vm, "migrate_send"):
        _check_wishes(context, vm, dest, live, options)
        if not _is_here(context, dest):
            sending = _sending(context, vm, dest, vdi_map, vif_map, options)
            return sender.send(context.state, sending, _destination(dest))
        plan = _plan(context, vm, dest, vdi_map, vif_map)
        if options.get("copy") == "true":
            return migration.copy(context, plan)
        migration.move(context.state, plan)
        return vm


def _check_wishes(context: Context, vm: str, dest: dict[str, str], live: bool, options: dict[str, str]) -> None:
    """ApiError when what is wanted cannot be done to the VM as it is, or it is not said where to."""
    record = context.database.snapshot("VM", vm)
    for name in _DESTINATION:
        if name not in dest:
            raise errors.internal_error("Not_found")
    if options.get("copy") == "true" and record["power_state"] != "Halted":
        raise errors.bad_power_state(vm, ("Halted",), record["power_state"])
    if record["power_state"] == "Running" and not live:
        raise errors.bad_power_state(vm, ("Halted", "Suspended"), record["power_state"])


def _is_here(context: Context, dest: dict[str, str]) -> bool:
    """Whether the destination is in this pool."""
    here: str = context.database.get("host", context.state.coordinator, "address")
    return urlsplit(dest["master"]).netloc == here


def _destination(dest: dict[str, str]) -> Destination:
    return Destination((dest["xenops"], dest["master"]), dest["session_id"])


def _sending(
    context: Context,
    vm: str,
    dest: dict[str, str],
    vdi_map: dict[str, str],
    vif_map: dict[str, str],
    options: dict[str, str],
) -> sender.Plan:
    """How the VM leaves this pool, once everything is checked that can be on this side."""
    for vdi in vdi_map:
        context.database.record("VDI", vdi)
    for vif in vif_map:
        context.database.record("VIF", vif)
    is_copy = options.get("copy") == "true"
    return sender.plan(context.state, vm, dest["host"], vdi_map, vif_map, is_copy=is_copy)


def _plan(
    context: Context, vm: str, dest: dict[str, str], vdi_map: dict[str, str], vif_map: dict[str, str]
) -> migration.Plan:
    """What is to be done in this pool, once everything is checked that can be."""
    database, host = context.database, dest["host"]
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
