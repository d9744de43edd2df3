"""Disks that are branched off another one: clones, snapshots and, where a repository has no clones, copies.

Such a VDI inherits the marks of its original, which are wrong for it. So the original gets a mark first that only this
branch is made under: whatever happens to the answer, the branch can be told from the original and from all others.
"""

from __future__ import annotations

import logging
import uuid as uuids
from contextlib import suppress
from dataclasses import replace
from typing import Literal

from agent_protocol.outcomes import Unsuccessful

from ...errors import ObjectGone, XenServerFailure
from ...fencing import LeaseLost
from ..connection.session import Flag, XenServer
from ..guests.vms import NULL
from ..turns import Turns
from ..undo import Undo
from . import disks, marks, repositories
from .disks import Disk, NewDisk
from .repositories import Repository

LOG = logging.getLogger(__name__)

COPY_TIMEOUT = 6 * 3600.0
"""Seconds for a full copy: a disk of 2 TiB at 100 MB/s."""

_TURNS = Turns()
"""One branch of a disk at a time: xapi makes them one after the other anyway."""


def clone(
    server: XenServer,
    repository: Repository,
    original: Disk,
    original_name: str,
    new: NewDisk,
    cancelled: Flag | None = None,
) -> Disk:
    """A disk with the original's content, of its size; a full copy only where the repository cannot do otherwise."""
    if repository.can_clone:
        try:
            return _branch(server, "VDI.clone", repository.name, original, original_name, new)
        except XenServerFailure as failure:
            if failure.details[0] != "SR_OPERATION_NOT_SUPPORTED":
                raise
    with Undo() as undo:
        disk = disks.create(server, repository, replace(new, size=original.size))
        undo.add(f"disk {new.name}", lambda: disks.destroy(server, disk.ref))
        repositories.perform(
            server,
            repository.name,
            "VDI.copy",
            original.ref,
            NULL,
            NULL,
            disk.ref,
            timeout=COPY_TIMEOUT,
            cancelled=cancelled,
        )
    return disk


def snapshot(server: XenServer, original: Disk, original_name: str, new: NewDisk) -> Disk:
    """A disk that keeps the content which the original, even that of a running guest, has at this moment."""
    repository_name = str(server.call("SR.get_name_label", original.repository))
    return _branch(server, "VDI.snapshot", repository_name, original, original_name, new)


def _branch(
    server: XenServer,
    method: Literal["VDI.clone", "VDI.snapshot"],
    repository_name: str,
    original: Disk,
    original_name: str,
    new: NewDisk,
) -> Disk:
    key = marks.branch_key(str(uuids.uuid4()))
    with _TURNS.of(original.uuid, repositories.CALL_TIMEOUT), Undo() as undo:
        undo.add(f"disk {new.name}", lambda: _remove_branch(server, original, original_name, key))
        undo.add("the mark of a branch", lambda: _unmark(server, original, key))
        server.call("VDI.add_to_other_config", original.ref, key, marks.now())
        ref = str(repositories.perform(server, repository_name, method, original.ref, {}))
        _unmark(server, original, key)
        undo.add(f"disk {new.name}", lambda: disks.destroy(server, ref))
        return disks.claim(server, ref, new)


def _unmark(server: XenServer, original: Disk, key: str) -> None:
    for _ in range(2):
        # Asked for twice, as a key that stays makes copies by others look like ours.
        try:
            server.call("VDI.remove_from_other_config", original.ref, key)
        except ObjectGone:
            return
        except LeaseLost:
            raise
        except Unsuccessful as error:
            LOG.warning("VDI %s keeps a mark %s: %s", original.uuid, key, error.code)
        else:
            return


def _remove_branch(server: XenServer, original: Disk, name: str, key: str) -> None:
    """Remove what was branched off under the key, and is not another process's branch as well as one could tell."""
    for ref in server.call("VDI.get_by_name_label", name):
        with suppress(ObjectGone):
            record = server.call("VDI.get_record", ref)
            if record["uuid"] != original.uuid and list(marks.branches(record["other_config"])) == [key]:
                disks.destroy(server, ref)
