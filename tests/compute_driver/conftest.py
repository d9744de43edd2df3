"""A real repository on SQLite for each test, a copy of one that was migrated once, and a manager upon it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event

from compute_driver.db import migrate
from compute_driver.db.repository import Repository
from compute_driver.manager import ComputeManager
from compute_driver.memory import RepositoryMemory

from .bench import Bench
from .fakes import FakeDriver


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database with all tables. Copy it."""
    path = tmp_path_factory.mktemp("database") / "empty.sqlite"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def repository(migrated_database: Path, tmp_path: Path) -> Iterator[Repository]:
    shutil.copy(migrated_database, tmp_path / "xenward.sqlite")
    opened = Repository(f"sqlite:///{tmp_path / 'xenward.sqlite'}")
    # Nobody pulls the plug here, and waiting for the disk is most of what these tests would do.
    event.listen(opened._engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    yield opened
    opened.close()


@pytest.fixture
def bench(repository: Repository) -> Bench:
    driver = FakeDriver(RepositoryMemory(repository))
    return Bench(repository, driver, ComputeManager(repository, driver, "here"))
