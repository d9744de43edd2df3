"""A simulated XenStore, dom0's connection to it and a guest's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent_protocol.xenstore import Client, connect
from tests.agent_protocol.store import StandIn, lay_out, running_server
from tools.simulator.xenstore.server import XenStoreServer

DOMID = 7


@pytest.fixture
def server() -> Iterator[XenStoreServer]:
    """A running daemon."""
    with running_server() as running:
        yield running


@pytest.fixture
def dom0(server: XenStoreServer) -> Iterator[Client]:
    """dom0's connection."""
    with connect(str(server.socket)) as client:
        yield client


@pytest.fixture
def guest(server: XenStoreServer, dom0: Client) -> Iterator[Client]:
    """The connection of domain 7, which may write below `data` only."""
    lay_out(dom0, DOMID, "11111111-2222-3333-4444-555555555555")
    with connect(str(server.introduce(DOMID))) as client:
        yield client


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    """A daemon that the test plays itself."""
    daemon = StandIn()
    yield daemon
    daemon.close()
