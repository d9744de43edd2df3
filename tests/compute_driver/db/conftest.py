"""One fixture makes every test of the repository run on each database: SQLite always, servers with `--all`.

Tests of the repository share one database on each server, whose rows are removed before each of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import delete

from compute_driver.db import migrate
from compute_driver.db.models import Base
from compute_driver.db.repository import Repository
from tests.databases import SERVERS, empty_database

from .making import connected


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = {mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")}
    if "database_url" in metafunc.fixturenames and "database_url" not in chosen:
        servers = [pytest.param(kind, marks=pytest.mark.services) for kind in SERVERS]
        metafunc.parametrize("database_url", ["sqlite", *servers], indirect=True)


@pytest.fixture(scope="session")
def tables_on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, Path], str]]:
    """Gives the URL of a database of a kind that has all tables, and nothing in them."""
    directory = tmp_path_factory.mktemp("databases")
    urls: dict[str, str] = {}
    with ExitStack() as databases:

        def clean(kind: str, of_test: Path) -> str:
            if kind not in urls:
                urls[kind] = databases.enter_context(empty_database(kind, directory))
                migrate.upgrade(urls[kind])
            if kind == "sqlite":
                shutil.copytree(directory / "state", of_test / "state")
                return f"sqlite:///{of_test}/state/xenward.sqlite"
            with connected(urls[kind]) as connection:
                for table in reversed(Base.metadata.sorted_tables):
                    connection.execute(delete(table))
            return urls[kind]

        yield clean


@pytest.fixture
def database_url(
    request: pytest.FixtureRequest, tmp_path: Path, tables_on: Callable[[str, Path], str]
) -> Iterator[str]:
    """The URL of an empty database of our own; with all tables for those who ask for a repository as well."""
    if "repository" in request.fixturenames:
        yield tables_on(request.param, tmp_path)
        return
    with empty_database(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def repository(database_url: str) -> Iterator[Repository]:
    opened = Repository(database_url)
    yield opened
    opened.close()
