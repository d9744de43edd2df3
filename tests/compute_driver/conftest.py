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
from .sealed_driver import SealedDriver
from .wire import CONTEXT, NEW, Direct, Wire, calling


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database with all tables. Copy it."""
    path = tmp_path_factory.mktemp("database") / "empty.sqlite"
    migrate.upgrade(f"sqlite:///{path}")
    return path


class Databases:
    """One repository for all tests, which is turned to another file for each: so its statements are compiled once."""

    def __init__(self, empty: Path) -> None:
        self._empty = empty
        self._path = empty
        self.repository = Repository(f"sqlite:///{empty}")
        event.listen(self.repository._engine, "do_connect", self._connect)
        # Nobody pulls the plug here, and waiting for the disk is most of what these tests would do.
        event.listen(self.repository._engine, "connect", lambda it, _: it.execute("PRAGMA synchronous = OFF"))

    def turn_to(self, path: Path) -> Repository:
        """The repository, on a fresh database in that file."""
        self.repository.close()
        shutil.copy(self._empty, path)
        self._path = path
        return self.repository

    def _connect(self, _dialect: object, _record: object, arguments: list[Any], _named: object) -> None:
        arguments[0] = str(self._path)


@pytest.fixture(scope="session")
def databases(migrated_database: Path) -> Databases:
    return Databases(migrated_database)


@pytest.fixture
def repository(databases: Databases, tmp_path: Path) -> Iterator[Repository]:
    yield databases.turn_to(tmp_path / "xenward.sqlite")
    databases.repository.close()


@pytest.fixture
def bench(repository: Repository) -> Bench:
    return Bench.of(repository)


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
    sealed_driver.steering.clear_calls()
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
