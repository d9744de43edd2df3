"""Waits until XenServer does nothing to a guest any more, whoever asked for it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from agent_protocol.outcomes import Unknown

from ...driver import Instance
from ...errors import ObjectGone
from ..connection.batches import Row
from ..connection.cache import INSTANCE_KEY
from ..connection.predecessors import Predecessors
from ..connection.session import XenServer

LOOK = 1.0
"""Seconds between two looks while XenServer's events are not told."""

_CLASSES = ("VM", "VBD", "VIF", "VDI")
"""Those whose objects belong to one guest, and show what is being done to them."""


def await_quiet(server: XenServer, predecessors: Predecessors, instance: Instance, timeout: float) -> None:
    """Return once nothing is under way for the instance; Unknown (`guest_busy`) after `timeout` seconds.

    Errors as of XenServer.call() when it cannot be asked.
    """
    deadline = time.monotonic() + timeout
    server.events.barrier()
    while True:
        view = server.events.usable()
        doing = _under_way(server, predecessors, instance.uuid)
        if not doing:
            return
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise Unknown("guest_busy", f"XenServer is still busy with the guest: {', '.join(sorted(doing))}")
        server.events.await_other(view, min(remaining, LOOK))


def _under_way(server: XenServer, predecessors: Predecessors, uuid: str) -> set[str]:
    """The names of what is being done."""
    doing = {str(name) for row in _parts(server, uuid) for name in row["current_operations"].values()}
    calls = predecessors.calls()
    if calls:
        # Those that are about any guest's objects are seen there: at this one's, or they are none of its business.
        seen = {task for cls in _CLASSES for row in server.events.records(cls).values() for task in _tasks(row)}
        doing |= {name for task, name in calls.items() if task not in seen}
    return doing


def _tasks(row: Row) -> Mapping[str, str]:
    operations: Mapping[str, str] = row["current_operations"]
    return operations


def _parts(server: XenServer, uuid: str) -> Iterator[Row]:
    """The guest's VM, its devices and its disks, be they attached or not."""
    found = server.events.vm_of(uuid)
    if found is None:
        return
    yield found.row
    disks = {ref for ref, row in server.events.records("VDI").items() if row["other_config"].get(INSTANCE_KEY) == uuid}
    for ref in found.row["VBDs"]:
        for row in _record(server, "VBD", ref):
            yield row
            disks.add(row["VDI"])
    for ref in found.row["VIFs"]:
        yield from _record(server, "VIF", ref)
    for ref in disks - {"OpaqueRef:NULL"}:
        yield from _record(server, "VDI", ref)


def _record(server: XenServer, cls: str, ref: str) -> Iterator[Row]:
    try:
        yield server.events.record(cls, ref)
    except ObjectGone:
        # It went meanwhile.
        pass
