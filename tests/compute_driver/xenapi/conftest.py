"""A XenServer that misbehaves, and a good, simulated one whose guests have no agents of their own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from compute_driver.xenapi.connection.session import Connection, XenServer
from tools.simulator.process import SimulatorProcess

from .bad_server import BadServer
from .plugin import Plugin
from .pool import Pool


@dataclass(frozen=True)
class Wanted:
    """An instance, as far as a driver is concerned."""

    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    display_name: str = "web"
    memory_mb: int = 64
    vcpus: int = 2
    root_gb: int = 3


class Steps:
    """A Progress that remembers the steps."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def step(self, name: str) -> AbstractContextManager[None]:
        self.names.append(name)
        return nullcontext()


class Objects:
    """What exists in the simulated pool."""

    def __init__(self, server: XenServer) -> None:
        self._server = server

    def all(self) -> dict[str, int]:
        """How many there are of each class that a guest consists of, control domains aside."""
        vms = self._server.call("VM.get_all_records").values()
        counts = {kind: len(self._server.call(f"{kind}.get_all")) for kind in ("VDI", "VBD", "VIF")}
        return {"VM": sum(not vm["is_control_domain"] and not vm["is_a_template"] for vm in vms), **counts}


NOTHING = {"VM": 0, "VDI": 0, "VBD": 0, "VIF": 0}


@pytest.fixture
def server() -> Iterator[BadServer]:
    """A XenServer that misbehaves."""
    with BadServer() as it:
        yield it


@pytest.fixture(scope="session")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """Where the simulated XenServer is."""
    plugins: Path = tmp_path_factory.mktemp("plugins")
    # Host calls are answered by tests; a plugin that is there is not built.
    (plugins / "xenward").touch()
    with SimulatorProcess(["--no-agent", "--login-failure-delay", "0", "--plugins", str(plugins)]) as simulator:
        yield Connection(simulator.url, simulator.username, simulator.password)


@pytest.fixture(scope="session")
def xenserver(connection: Connection) -> Iterator[XenServer]:
    """The same, as a test talks to it."""
    server = XenServer(connection)
    yield server
    server.close()


@pytest.fixture
def objects(xenserver: XenServer) -> Iterator[Objects]:
    """An empty pool, which is empty again afterwards whatever the test did."""
    it = Objects(xenserver)
    yield it
    for ref, vm in xenserver.call("VM.get_all_records").items():
        if not vm["is_control_domain"] and not vm["is_a_template"]:
            if vm["power_state"] != "Halted":
                xenserver.call("VM.hard_shutdown", ref)
            xenserver.call("VM.destroy", ref)
    for ref in xenserver.call("VDI.get_all"):
        xenserver.call("VDI.destroy", ref)
    assert it.all() == NOTHING


@pytest.fixture
def plugin() -> Plugin:
    """The dom0 plugin and a good agent."""
    return Plugin()


class Calls:
    """All calls that a driver makes to XenServer, so that a test can have one of them go wrong.

    fail_at: the number of the call that fails, from 1; error: with what. lost: whether it has its effect all the same.
    """

    def __init__(self, real: Any, plugin: Plugin) -> None:
        self._real = real
        self._plugin = plugin
        self.methods: list[str] = []
        self.fail_at = 0
        self.error: BaseException = RuntimeError()
        self.lost = False

    def __call__(self, server: XenServer, method: str, *arguments: Any, timeout: float | None = None) -> Any:
        self.methods.append(method)
        failing = len(self.methods) == self.fail_at
        if failing and not self.lost:
            raise self.error
        if method == "host.call_plugin":
            value = self._plugin.call(method, *arguments, timeout=timeout or 0.0)
        else:
            value = self._real(server, method, *arguments, timeout=timeout)
        if failing:
            raise self.error
        return value


@pytest.fixture
def calls(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> Calls:
    it = Calls(XenServer.call, plugin)
    # A plain function, so that the class binds it to its instances. Undone by the test's own monkeypatch: a test that
    # patches the same once more would bring this one back after its end otherwise.
    monkeypatch.setattr(XenServer, "call", lambda server, *arguments, **named: it(server, *arguments, **named))
    return it


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    """A simulated pool of two hosts. Each test leaves it as it found it."""
    with SimulatorProcess(["--no-agent", "--login-failure-delay", "0", "--hosts", "2"]) as simulator:
        server = XenServer(Connection(simulator.url, simulator.username, simulator.password))
        yield Pool(simulator, server)
        server.close()
