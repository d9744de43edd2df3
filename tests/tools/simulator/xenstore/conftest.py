"""A running daemon, a dom0 client, and guests laid out as the toolstack lays them out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from tests.tools.simulator.xenstore.client import Client
from tools.simulator.xenstore.server import XenStoreServer


@pytest.fixture
def directory() -> Iterator[Path]:
    # pytest's own directories are too deep for unix sockets on some systems.
    with tempfile.TemporaryDirectory(prefix="xs-") as path:
        yield Path(path)


@pytest.fixture
def server(directory: Path) -> Iterator[XenStoreServer]:
    server = XenStoreServer(directory)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def connect() -> Iterator[Callable[[Path], Client]]:
    clients = []

    def connect(path: Path) -> Client:
        clients.append(Client(path))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def dom0(server: XenStoreServer, connect: Callable[[Path], Client]) -> Client:
    return connect(server.socket)


@pytest.fixture
def guest(server: XenStoreServer, dom0: Client, connect: Callable[[Path], Client]) -> Callable[[int], Client]:
    """A function that makes the guest of a domid, with a tree it may read and a `data` that it owns."""

    def guest(domid: int) -> Client:
        home = f"/local/domain/{domid}"
        path = server.introduce(domid)
        dom0.write(f"{home}/name", b"guest")
        dom0.set_perms(home, "n0", f"r{domid}")
        dom0.set_perms(f"{home}/name", "n0", f"r{domid}")
        dom0.mkdir(f"{home}/data")
        dom0.set_perms(f"{home}/data", f"n{domid}")
        return connect(path)

    return guest
