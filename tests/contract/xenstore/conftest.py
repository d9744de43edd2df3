"""A XenStore of each environment, dom0's client, and guests laid out as the toolstack lays them out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable

import pytest

from agent_protocol.xenstore import Client, connect
from tests.contract import environments
from tests.contract.environments import Environment
from tests.contract.xenstore.support import VM
from tools.simulator.xenstore.server import StoreServer


@pytest.fixture(params=environments.parameters())
def environment(request: pytest.FixtureRequest) -> Environment:
    return request.param


@pytest.fixture
def server(environment: Environment) -> Iterator[StoreServer]:
    with environment.store() as server:
        yield server


@pytest.fixture
def dom0(server: StoreServer) -> Iterator[Client]:
    with connect(str(server.socket)) as client:
        yield client


@pytest.fixture
def introduce(server: StoreServer, dom0: Client) -> Iterator[Callable[[int], Client]]:
    """A function that gives a domain its nodes as the toolstack does, and connects as its guest; again, if it lives."""
    clients = []

    def introduce(domid: int) -> Client:
        home = f"/local/domain/{domid}"
        if not clients or str(domid) not in dom0.directory("/local/domain"):
            for name in ("", "/name", "/vm"):
                dom0.write(home + name, f"/vm/{VM}".encode())
                dom0.set_permissions(home + name, ["n0", f"r{domid}"])
            dom0.mkdir(f"{home}/data")
            dom0.set_permissions(f"{home}/data", [f"n{domid}"])
        clients.append(connect(str(server.introduce(domid))))
        return clients[-1]

    yield introduce
    for client in clients:
        client.close()


@pytest.fixture
def guest(introduce: Callable[[int], Client]) -> Client:
    return introduce(3)


@pytest.fixture
def sibling(guest: Client, introduce: Callable[[int], Client]) -> Client:
    return introduce(4)
