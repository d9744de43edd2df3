"""Moving VMs between hosts and pools, as far as a pool of one host goes: the checks are xapi's, nothing moves."""

from __future__ import annotations

from typing import Any

from .. import errors, lifecycle, placement
from ..state import Context
from .session import new_session
from .table import call

_DESTINATION = ("host", "master", "session_id", "SM", "xenops")
"""What host.migrate_receive gives, and VM.migrate_send needs."""


@call("host.migrate_receive")
def migrate_receive(context: Context, host: str, network: str, options: dict[str, str]) -> dict[str, str]:
    """What another pool needs to send a VM here, with a session of its own."""
    del options
    database = context.database
    address = database.get("host", host, "address")
    pifs = database.get("network", network, "PIFs")
    if not any(database.get("PIF", pif, "host") == host for pif in pifs):
        raise errors.ApiError("HOST_CANNOT_ATTACH_NETWORK", host, network)
    session = new_session(context, "root", "migration")
    return {
        "SM": f"http://{address}/services/SM?session_id={session}",
        "host": host,
        "xenops": f"http://{address}/services/xenops?session_id={session}",
        "session_id": session,
        "master": f"http://{address}/",
    }


@call("VM.pool_migrate")
def pool_migrate(context: Context, vm: str, host: str, options: dict[str, str]) -> None:
    """Move a running VM to another host of the pool."""
    del options
    database = context.database
    database.record("host", host)
    with lifecycle.operate(context, vm, "pool_migrate") as record:
        placement.assert_can_boot(database, vm, host, with_memory=host != record["resident_on"])
        raise _nowhere_to_go(context, vm, record["resident_on"], host)


@call("VM.assert_can_migrate", "VM.assert_can_migrate_sender")
def assert_can_migrate(
    context: Context, vm: str, dest: dict[str, str], live: bool, vdi_map: dict[str, str], *others: Any
) -> None:
    """Nothing, or the error that VM.migrate_send would end in."""
    del others
    record = context.database.record("VM", vm)
    _check_destination(context, vm, record, dest, live, vdi_map)


@call("VM.migrate_send")
def migrate_send(
    context: Context, vm: str, dest: dict[str, str], live: bool, vdi_map: dict[str, str], *others: Any
) -> str:
    """Move a VM with its disks to another SR, host or pool."""
    del others
    with lifecycle.operate(context, vm, "migrate_send") as record:
        _check_destination(context, vm, record, dest, live, vdi_map)
        raise AssertionError("no VM can be sent")


def _check_destination(
    context: Context, vm: str, record: dict[str, Any], dest: dict[str, str], live: bool, vdi_map: dict[str, str]
) -> None:
    database = context.database
    for name in _DESTINATION:
        if name not in dest:
            raise errors.internal_error("Not_found")
    if record["power_state"] == "Running" and not live:
        raise errors.bad_power_state(vm, ("Halted", "Suspended"), record["power_state"])
    if not database.exists("host", dest["host"]):
        raise errors.ApiError("VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED")
    for sr in vdi_map.values():
        database.record("SR", sr)
    if not database.exists("session", dest["session_id"]):
        # Not SESSION_INVALID: the caller would take that for a word about his own.
        raise errors.ApiError("VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED")
    placement.assert_usable(database, dest["host"])
    raise _nowhere_to_go(context, vm, record["resident_on"], dest["host"])


def _nowhere_to_go(context: Context, vm: str, source: str, destination: str) -> errors.ApiError:
    if source == destination:
        text = "a simulated domain cannot be moved within its own host"
    else:
        text = "a simulated pool has one host"
    del context
    return errors.ApiError("VM_MIGRATE_FAILED", vm, source, destination, text)
