"""A manager with a hypervisor in memory behind the bus, and behind its endpoint alone."""

from __future__ import annotations

from typing import Any

import pytest

from compute_driver.db.repository import Repository

from ..bench import Bench
from ..bus import Switch


@pytest.fixture
def served(bus: tuple[Any, Switch], repository: Repository) -> Bench:
    """A bench whose manager serves host `here`."""
    it = Bench.of(repository)
    bus[1].manager = it.manager
    return it


@pytest.fixture
def client(bus: tuple[Any, Switch], served: Bench) -> Any:
    from compute_driver import rpc

    return rpc.ComputeClient(bus[0], "here", timeout=10.0, order_timeout=10.0)


@pytest.fixture
def endpoint(served: Bench) -> Any:
    from compute_driver import rpc

    return rpc.ComputeEndpoint(served.manager)
