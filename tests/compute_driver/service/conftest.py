"""Keepers of leases: each as if on a machine of its own, on SQLite and, with `--all`, on the servers."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from compute_driver.db import migrate
from compute_driver.db.repository import Repository
from tests.databases import SERVERS, empty_database

from .keeping import Machine, Machines

KINDS = ["sqlite", *(pytest.param(kind, marks=pytest.mark.services) for kind in SERVERS)]


@pytest.fixture(scope="module", params=KINDS)
def database_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database with all tables, which the tests of a module share: each has hosts of its own."""
    with empty_database(request.param, tmp_path_factory.mktemp("database")) as url:
        migrate.upgrade(url)
        yield url


@pytest.fixture
def host() -> str:
    return f"host-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def repository(database_url: str) -> Iterator[Repository]:
    opened = Repository(database_url)
    yield opened
    opened.close()


@pytest.fixture
def machines(repository: Repository, host: str, tmp_path: Path) -> Iterator[Machines]:
    """Gives a keeper that has the machine of that name to itself, or shares it with earlier ones."""
    with Machines(repository, host, tmp_path) as it:
        yield it


@pytest.fixture
def first(machines: Machines) -> Machine:
    """Who has the host."""
    it = machines.at("first")
    assert it.keeper.acquire(it.stop)
    return it
