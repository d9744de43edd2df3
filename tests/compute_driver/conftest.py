"""A real repository on SQLite for each test, a copy of one that was migrated once, and a manager upon it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from compute_driver.db import migrate
from compute_driver.db.repository import Repository
from compute_driver.manager import ComputeManager
from compute_driver.memory import RepositoryMemory

from .bench import Bench
from .bus import Switch, serving
from .fakes import FakeDriver
from .sealed_driver import SealedDriver
from .wire import CONTEXT, NEW, Direct, Wire, calling


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


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Switch]]:
    """A bus within this process, with an endpoint on it whose manager can be set."""
    with serving(tmp_path_factory.mktemp("bus")) as it:
        yield it


@pytest.fixture
def sealed_driver(bus: tuple[Any, Switch], repository: Repository) -> SealedDriver:
    """The hypervisor behind a fresh manager behind the bus, with a real agent in its guests."""
    it = SealedDriver(RepositoryMemory(repository))
    bus[1].manager = ComputeManager(repository, it, "here")
    return it


@pytest.fixture
def bus_wire(bus: tuple[Any, Switch], sealed_driver: SealedDriver) -> Wire:
    """To an instance `web` whose agent is known, over the bus itself."""
    from compute_driver import rpc

    manager = bus[1].manager
    instance = manager.build_and_run_instance(CONTEXT, **NEW)
    assert manager.get_agent(CONTEXT, instance.uuid, None)
    sealed_driver.calls.clear()
    sealed_driver.plugin.functions.clear()
    return Wire(rpc.ComputeClient(bus[0], "here", timeout=10.0, order_timeout=10.0))


@pytest.fixture
def wire(bus: tuple[Any, Switch], bus_wire: Wire) -> Wire:
    """Likewise, without the bus's queues."""
    from compute_driver import rpc

    bus_wire.client._client = Direct(rpc.ComputeEndpoint(bus[1].manager))
    return bus_wire


@pytest.fixture
def caller(wire: Wire) -> Any:
    return calling(wire)
