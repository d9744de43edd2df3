"""Rows for tests of the repository, made through it, and what it has no method for, by SQL."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import Connection

from compute_driver.db.engine import for_writing, open_engine
from compute_driver.db.records import Instance
from compute_driver.db.repository import Repository
from compute_driver.states import VmState


def make(repository: Repository, **given: Any) -> Instance:
    values: dict[str, Any] = {"uuid": str(uuid.uuid4()), "display_name": "web", "host": "compute-1"}
    return repository.create_instance(**{**values, "memory_mb": 2048, "vcpus": 2, "root_gb": 20, **given})


def make_idle(repository: Repository, **given: Any) -> Instance:
    return repository.end_task(make(repository, **given).uuid, vm_state=VmState.ACTIVE)


def start(repository: Repository, **given: Any) -> int:
    values = {"action": "reboot", "target": "web", "request_id": "req-1", "user": "alice", "host": "compute-1"}
    return repository.start_action(**{**values, **given})


def make_migration(repository: Repository, instance: Instance, **given: Any) -> Any:
    sizes = {f"{age}_{what}": 1 for age in ("old", "new") for what in ("memory_mb", "vcpus", "root_gb")}
    values = {"kind": "resize", "status": "migrating", "source_node": "node-1", "request_id": "req-1", **sizes}
    return repository.create_migration(**{**values, "instance_uuid": instance.uuid, **given})


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """A connection beside the repository, in a transaction of its own."""
    engine = open_engine(url)
    try:
        with for_writing(engine).begin() as connection:
            yield connection
    finally:
        engine.dispose()


def run(url: str, statement: str, **values: Any) -> None:
    with connected(url) as connection:
        connection.execute(text(statement), values)


def count(url: str, table: str) -> int:
    with connected(url) as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


def expire(url: str, host: str) -> None:
    """The lease of the host is over."""
    run(url, "UPDATE hosts SET expires_at = '2001-01-01 00:00:00.000000' WHERE name = :host", host=host)
