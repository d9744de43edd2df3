"""One fixture makes every test of the repository run on each database: SQLite always, servers with `--all`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from compute_driver.db import migrate
from compute_driver.db.repository import Repository
from tests.databases import SERVERS, empty_database


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "database_url" in metafunc.fixturenames:
        servers = [pytest.param(kind, marks=pytest.mark.services) for kind in SERVERS]
        metafunc.parametrize("database_url", ["sqlite", *servers], indirect=True)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database of our own."""
    with empty_database(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def repository(database_url: str) -> Iterator[Repository]:
    migrate.upgrade(database_url)
    opened = Repository(database_url)
    yield opened
    opened.close()
