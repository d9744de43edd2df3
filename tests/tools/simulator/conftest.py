"""One simulated XenServer for all tests of a module, with a small stand-in for the guest agent."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import XenAPI

from tools.simulator.process import SimulatorProcess

from .support import STAND_IN, Vm, make_vm, plugin


@pytest.fixture(scope="session")
def own_plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of plugins that holds one named `xenward`, so that none is built."""
    directory = tmp_path_factory.mktemp("plugins")
    plugin(directory, "xenward", "print(answer('pong'))")
    return directory


@pytest.fixture(scope="session")
def arguments(own_plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command line that all simulators here share."""
    script = tmp_path_factory.mktemp("agent") / "stand_in.py"
    script.write_text(STAND_IN, "utf-8")
    command = json.dumps([sys.executable, "-I", "-S", str(script), "{root}", "{store}", "{socket}"])
    return ["--plugins", str(own_plugin), "--login-failure-delay", "0.05", "--agent-command", command]


@pytest.fixture(scope="module")
def simulator(arguments: list[str]) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(arguments) as process:
        yield process


@pytest.fixture
def session(simulator: SimulatorProcess) -> Iterator[XenAPI.Session]:
    session = XenAPI.Session(simulator.url)
    session.login_with_password(simulator.username, simulator.password, "1.0", "tests")
    yield session
    session("close")()


@pytest.fixture
def vm(session: XenAPI.Session) -> Iterator[Vm]:
    """A halted VM, which is destroyed afterwards."""
    vm = make_vm(session)
    yield vm
    vm.destroy()
