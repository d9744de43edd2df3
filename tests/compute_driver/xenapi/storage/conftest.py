"""A simulated pool for each module, and its storage, which each test leaves empty."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tools.simulator.process import SimulatorProcess

from .support import OPTIONS, Storage


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    with SimulatorProcess(OPTIONS) as it:
        yield it


@pytest.fixture
def storage(simulator: SimulatorProcess) -> Iterator[Storage]:
    it = Storage(simulator)
    yield it
    it.empty()
    it.server.close()
