"""What the repository hands out: plain, frozen values, and their form for the bus.

`to_dict()` gives names and values that any message bus carries; moments become ISO 8601 text in UTC with
microseconds, such as `2026-03-01T12:00:00.000000+00:00`.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any

from agent_protocol.outcomes import Outcome
from compute_driver.volumes import Volume

MIGRATION_KINDS = frozenset({"resize", "migration", "live"})
"""To another size, to another node while it is off, to another node while it runs."""

ENDED_MIGRATIONS = frozenset({"confirmed", "reverted", "completed", "failed"})
"""The statuses after which a migration is not under way any more."""


class _Record:
    """The step from a record to plain data."""

    def to_dict(self) -> dict[str, Any]:
        """Every field under its name, for the bus."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    if isinstance(value, Outcome):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


@dataclasses.dataclass(frozen=True)
class Instance(_Record):
    """One guest. States are Nova's words (see compute_driver.states), power_state Nova's number.

    deleted: 0 while it exists, else its id. task_state: None when nothing is being done to it. node: where it runs
    within the pool, empty while it runs nowhere. task_action: the action that holds the turn, if it said so.
    """

    id: int
    uuid: str
    display_name: str
    host: str
    vm_state: str
    task_state: str | None
    power_state: int
    memory_mb: int
    vcpus: int
    root_gb: int
    image_ref: str
    instance_metadata: dict[str, Any]
    system_metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    launched_at: datetime | None
    terminated_at: datetime | None
    deleted: int
    deleted_at: datetime | None
    node: str = ""
    task_action: int | None = None


@dataclasses.dataclass(frozen=True)
class Action(_Record):
    """Something that was asked of an instance, or one step of it. In flight while finished_at is None.

    instance_uuid: None when no instance is known by the name in `target`. user: who asked. host: the service that
    did it. seconds: by a monotonic clock, so it may differ from finished_at - started_at. order_id: what the caller
    calls his order, None for one that has no name and for steps. epoch: of the lease it was done under, 0 without one.
    """

    id: int
    instance_uuid: str | None
    target: str
    action: str
    step: str | None
    request_id: str
    user: str
    host: str
    started_at: datetime
    finished_at: datetime | None
    outcome: Outcome | None
    code: str
    message: str
    seconds: float | None
    order_id: str | None = None
    epoch: int = 0


@dataclasses.dataclass(frozen=True)
class Fault(_Record):
    """Why an instance went into error."""

    id: int
    instance_uuid: str
    code: str
    message: str
    request_id: str
    created_at: datetime


@dataclasses.dataclass(frozen=True)
class Agent(_Record):
    """The agent inside an instance, as last heard of.

    identity: its pinned public key in base64, None before it was first spoken to through the sealed protocol. key_id,
    key_public: the key to seal the next request to. clock_offset: the agent's clock minus ours, in seconds. guest: the
    hypervisor's own id of the guest.
    """

    instance_uuid: str
    version: str
    features: tuple[str, ...]
    protocol: str
    identity: str | None
    key_id: str | None
    key_public: str | None
    clock_offset: int
    guest: str
    last_seen_at: datetime


@dataclasses.dataclass(frozen=True)
class Lease(_Record):
    """The right to act on a host's hypervisor, as one service got it.

    holder: who has it, unique among all processes that ever ask. epoch: counts the times that the host's lease was
    acquired, so that an earlier lease is known by a lower one.
    """

    host: str
    holder: str
    epoch: int


@dataclasses.dataclass(frozen=True)
class Host(_Record):
    """A host and its lease. holder: empty while nobody has it. seconds_left: until it expires by the database's clock,
    0 when it has.
    """

    name: str
    holder: str
    epoch: int
    expires_at: datetime
    updated_at: datetime
    seconds_left: float


@dataclasses.dataclass(frozen=True)
class Service(_Record):
    """One run of a service process. seconds_silent: since it was last seen, by the database's clock."""

    id: str
    host: str
    topic: str
    version: str
    started_at: datetime
    last_seen_at: datetime
    stopped_at: datetime | None
    seconds_silent: float


@dataclasses.dataclass(frozen=True)
class Migration(_Record):
    """One move of an instance to another node or size.

    kind: one of MIGRATION_KINDS. status: any word; under way until it is one of ENDED_MIGRATIONS. Sizes as an
    instance's: memory in MiB, root disk in GiB.
    """

    id: int
    instance_uuid: str
    kind: str
    status: str
    source_node: str
    dest_node: str
    old_memory_mb: int
    old_vcpus: int
    old_root_gb: int
    new_memory_mb: int
    new_vcpus: int
    new_root_gb: int
    request_id: str
    created_at: datetime
    updated_at: datetime


@dataclasses.dataclass(frozen=True)
class AttachedVolume:
    """A volume as it is attached. device: where the guest has it, empty while that is not known.

    lacks_password: it was attached with a password, which is not kept: who connects it anew asks the cloud for it, as
    `volume` is without the user as well.
    """

    volume: Volume
    device: str
    lacks_password: bool = False
