"""Storage repositories: which one disks are made in, and what it can do."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from agent_protocol.outcomes import Unknown, Unsuccessful

from ...errors import ObjectGone, StorageFull, StorageNotFound, XenServerFailure
from ..connection.session import Flag, XenServer
from ..guests.vms import NULL

CALL_TIMEOUT = 600.0
"""Seconds for what a storage manager does without moving a disk's content; it may wait for others, or for a medium."""

SETTLE_TIMEOUT = 60.0
"""Seconds that a call may go on whose answer was lost, before we look for what it made all the same."""

_FULL = frozenset({"SR_BACKEND_FAILURE_44", "SR_FULL"})
"""SRNoSpace in the storage manager's XE_SR_ERRORCODES.xml, and xapi's own."""


@dataclass(frozen=True)
class Repository:
    """A storage repository as it was a moment ago. free: bytes; can_clone: whether it has copy-on-write clones."""

    ref: str
    uuid: str
    name: str
    free: int
    can_clone: bool

    def assert_room(self, size: int) -> None:
        """StorageFull when `size` bytes certainly do not fit."""
        if size > self.free:
            raise StorageFull(self.name)


def choose(server: XenServer, wanted: str | None = None) -> Repository:
    """The repository that disks are made in: the one with this uuid or name, or else the pool's default one.

    StorageNotFound when there is none, when the name is not unique, or when no disk can be made in it.
    """
    ref = _wanted(server, wanted) if wanted else _default(server)
    try:
        record = server.call("SR.get_record", ref)
    except ObjectGone:
        raise StorageNotFound("the pool's default one does not exist any more") from None
    repository = _repository(ref, record)
    if not _allows(record, "vdi_create"):
        raise StorageNotFound(f"{repository.name} takes no new disks")
    if not any(server.call("PBD.get_currently_attached", pbd) for pbd in record["PBDs"]):
        raise StorageNotFound(f"{repository.name} is connected with no host")
    return repository


def again(server: XenServer, repository: Repository) -> Repository:
    """The same as it is now."""
    return _repository(repository.ref, server.call("SR.get_record", repository.ref))


def _repository(ref: str, untrusted_record: Mapping[str, Any]) -> Repository:
    free = int(untrusted_record["physical_size"]) - int(untrusted_record["physical_utilisation"])
    return Repository(
        ref=ref,
        uuid=str(untrusted_record["uuid"]),
        name=str(untrusted_record["name_label"]),
        free=max(0, free),
        can_clone=_allows(untrusted_record, "vdi_clone"),
    )


def _allows(untrusted_record: Mapping[str, Any], operation: str) -> bool:
    # Before anything happened to a repository the list may be empty, which tells nothing.
    allowed = untrusted_record["allowed_operations"]
    return not allowed or operation in allowed


def _default(server: XenServer) -> str:
    pool = server.call("pool.get_all")[0]
    ref = str(server.call("pool.get_default_SR", pool))
    if ref == NULL:
        raise StorageNotFound("the pool has no default one, and none is configured")
    return ref


def _wanted(server: XenServer, wanted: str) -> str:
    refs = server.call("SR.get_by_name_label", wanted)
    if not refs:
        try:
            return str(server.call("SR.get_by_uuid", wanted))
        except ObjectGone:
            raise StorageNotFound(f"none is called {wanted!r} or has it as its uuid") from None
    if len(refs) > 1:
        raise StorageNotFound(f"several are called {wanted!r}; give the uuid")
    return str(refs[0])


def perform(
    server: XenServer,
    repository_name: str,
    method: str,
    *arguments: Any,
    timeout: float = CALL_TIMEOUT,
    cancelled: Flag | None = None,
) -> Any:
    """A call that a storage manager carries out. As XenServer.run(); StorageFull when there is no room.

    When its answer got lost, or this process is told to stop, this waits until whatever it began is over, so that one
    can look for what it made.
    """
    try:
        return server.run(method, *arguments, timeout=timeout, cancelled=cancelled)
    except XenServerFailure as failure:
        if failure.details[0] in _FULL:
            raise StorageFull(repository_name) from None
        raise
    except BaseException as error:
        if isinstance(error, Unknown) or not isinstance(error, Unsuccessful):
            with suppress(Unsuccessful):
                _settle(server, method)
        raise


def _settle(server: XenServer, method: str) -> None:
    def is_over(untrusted_record: Mapping[str, Any]) -> bool:
        return untrusted_record["status"] not in ("pending", "cancelling")

    deadline = time.monotonic() + SETTLE_TIMEOUT
    for ref, record in server.call("task.get_all_records").items():
        # One of those of this name may be that whose reference we never got.
        if record["name_label"] in (method, f"Async.{method}") and not is_over(record):
            with suppress(ObjectGone):
                server.events.wait_for("task", ref, is_over, max(0.0, deadline - time.monotonic()))
