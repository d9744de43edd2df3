"""VDIs that a crash left behind: made by us, and belonging to nobody."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agent_protocol.outcomes import Unsuccessful

from ..connection.session import XenServer
from . import disks, marks, transfer_tasks
from .marks import Purpose

LOG = logging.getLogger(__name__)

GRACE = 3600.0
"""Seconds that a VDI is left alone after it was made, or after its maker showed life: it may just be on its way."""


@dataclass(frozen=True)
class Orphan:
    """A VDI that nobody will ever use. purpose: one of marks.Purpose; instance: a uuid, empty if of none."""

    ref: str
    uuid: str
    name: str
    purpose: str
    instance: str
    size: int


def find(server: XenServer, instances: Collection[str] | None = None, *, grace: float = GRACE) -> list[Orphan]:
    """The VDIs of ours that belong to nobody.

    Those that were never finished, imports and snapshots that nobody works on, and disks of instances that do not
    exist. Never one that any VM has, nor one that others made: a copy of a disk of ours is theirs.

    instances: uuids of all instances of all services that use the pool; None when nobody knows them all: then disks of
    instances are never among them. grace: seconds; see GRACE.
    """
    moment = time.time() - grace
    records = server.call("VDI.get_all_records").items()
    return [_orphan(ref, record) for ref, record in records if _is_orphan(record, instances, moment)]


def _is_orphan(untrusted_record: Mapping[str, Any], instances: Collection[str] | None, moment: float) -> bool:
    if untrusted_record["VBDs"] or not untrusted_record["managed"]:
        return False
    if marks.is_unfinished(untrusted_record):
        return marks.made(untrusted_record) < moment
    if not marks.is_own(untrusted_record) or marks.made(untrusted_record) >= moment:
        return False
    found = untrusted_record["other_config"]
    purpose = found.get(marks.PURPOSE_KEY)
    if purpose == Purpose.IMAGE:
        return found.get(marks.STATE_KEY) != marks.READY and marks.moment(found.get(marks.TIME_KEY)) < moment
    if purpose == Purpose.SNAPSHOT:
        return True
    instance = marks.instance_of(untrusted_record)
    return bool(instance) and instances is not None and instance not in instances


def _orphan(ref: str, untrusted_record: Mapping[str, Any]) -> Orphan:
    return Orphan(
        ref=ref,
        uuid=str(untrusted_record["uuid"]),
        name=str(untrusted_record["name_label"]),
        purpose=str(untrusted_record["other_config"].get(marks.PURPOSE_KEY, "")),
        instance=marks.instance_of(untrusted_record),
        size=int(untrusted_record["virtual_size"]),
    )


def remove(server: XenServer, orphans: Iterable[Orphan]) -> list[Orphan]:
    """Remove them; gives those that are gone. What does not let itself be removed is logged, and found again later."""
    gone = []
    for orphan in orphans:
        try:
            # Somebody may use it by now; a VDI that only hangs at a halted VM would let itself be destroyed.
            if server.call("VDI.get_VBDs", orphan.ref):
                continue
            transfer_tasks.end_left(server, orphan.ref)
            disks.destroy(server, orphan.ref)
        except Unsuccessful as error:
            LOG.warning("VDI %s (%s) was left behind and stays: %s", orphan.uuid, orphan.purpose, error.code)
        else:
            LOG.info("VDI %s (%s) was left behind and is removed", orphan.uuid, orphan.purpose)
            gone.append(orphan)
    return gone
