"""What the repository hands out: plain, frozen values, and their form for the bus.

`to_dict()` gives names and values that any message bus carries; moments become ISO 8601 text in UTC with
microseconds, such as `2026-03-01T12:00:00.000000+00:00`.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any

from agent_protocol.outcomes import Outcome


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

    deleted: 0 while it exists, else its id. task_state: None when nothing is being done to it.
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


@dataclasses.dataclass(frozen=True)
class Action(_Record):
    """Something that was asked of an instance, or one step of it. In flight while finished_at is None.

    instance_uuid: None when no instance is known by the name in `target`. user: who asked. host: the service that
    did it. seconds: by a monotonic clock, so it may differ from finished_at - started_at.
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
