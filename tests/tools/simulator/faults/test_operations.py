"""operations.py in the simulator's own process, without the socket."""

from __future__ import annotations

from pathlib import Path

import pytest
import XenAPI

from tools.simulator.errors import ApiError
from tools.simulator.faults.errors import FaultError
from tools.simulator.server import Simulator
from tools.simulator.settings import Settings

from ..support import failure


def test_in_process(own_plugin: Path, tmp_path: Path) -> None:
    simulator = Simulator(Settings(tmp_path, plugins=own_plugin, agent_command=()))
    simulator.start()
    try:
        faults = simulator.faults
        session = XenAPI.Session(simulator.coordinator.url)
        session.login_with_password("root", simulator.settings.password, "1.0", "tests")
        rule = faults.add_rule("pool.get_all", "fail", error=["X"])
        assert failure(session.xenapi.pool.get_all) == ["X"]
        assert [(active.id, active.matches) for active in faults.list_rules()] == [(rule, 1)]
        assert [item.cls for item in faults.leftovers()] == ["session"]
        with pytest.raises(FaultError):
            faults.remove_rule(rule + 1)
        with pytest.raises(ApiError):
            faults.fill_sr("x")
        session("close")()
        socket = simulator.admin_socket
        assert socket.is_socket()
    finally:
        simulator.stop()
    assert not socket.exists()
