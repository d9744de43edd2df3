"""A simulator whose faults are gone after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import XenAPI

from tools.simulator.control import Control
from tools.simulator.process import SimulatorProcess

from ..transfers import Transfers


@pytest.fixture
def control(simulator: SimulatorProcess, session: XenAPI.Session) -> Iterator[Control]:
    """Steers the simulator; its call log is on, and empty when the session is there."""
    control = simulator.control
    control.clear_calls()
    control.log_calls()
    yield control
    control.clear_rules()
    control.log_calls(False)


@pytest.fixture
def transfers(simulator: SimulatorProcess, session: XenAPI.Session) -> Transfers:
    return Transfers(simulator, session)
