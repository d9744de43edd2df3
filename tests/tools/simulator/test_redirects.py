"""What is on another host is there to be had, and only there."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tools.simulator import model
from tools.simulator.database import Database
from tools.simulator.handlers import handlers
from tools.simulator.http import HttpServer
from tools.simulator.machine import Host
from tools.simulator.settings import Settings
from tools.simulator.state import State
from tools.simulator.state_directory import Machine


@pytest.fixture(params=["http", "https"])
def scheme(request: pytest.FixtureRequest) -> str:
    """What the pool serves."""
    return str(request.param)


@pytest.fixture
def state(tmp_path: Path, scheme: str) -> State:
    """Two hosts, of which only the other one is connected with the only repository and runs the only VM."""
    datamodel = model.load()
    state = State(Settings(tmp_path, tls=scheme == "https"), datamodel, Database(datamodel))
    state.coordinator = state.database.create("host", address="192.0.2.1")
    other = state.database.create("host", address="192.0.2.2")
    sr = state.database.create("SR", type="nfs")
    state.database.create("PBD", host=other, SR=sr, currently_attached=True)
    state.pool = state.database.create("pool", master=state.coordinator, default_SR=sr)
    state.database.create("VDI", uuid="disk", SR=sr)
    state.database.create("VM", uuid="vm", power_state="Running", resident_on=other)
    return state


@pytest.fixture
def server(state: State, tmp_path: Path) -> Iterator[HttpServer]:
    # It is only asked for its reference.
    host = Host(Machine(1, "first", 0, 0), tmp_path, cast("Any", None), cast("Any", None))
    host.ref = state.coordinator
    server = HttpServer(0, {}, handlers(state, host))
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize(
    ("method", "place"),
    [
        ("PUT", "/import_raw_vdi?vdi=disk&format=vhd"),
        ("GET", "/export_raw_vdi?vdi=disk"),
        ("PUT", "/import?restore=true"),
        ("GET", "/vm_rrd?uuid=vm"),
    ],
)
def test_redirected(state: State, server: HttpServer, scheme: str, method: str, place: str) -> None:
    session = state.database.create("session")
    task = state.tasks.create(session, "transfer")
    path = f"{place}&session_id={session}&task_id={task}"
    address: Any = server.server_address
    connection = http.client.HTTPConnection("127.0.0.1", address[1], timeout=10)
    connection.request(method, path)
    response = connection.getresponse()
    assert (response.status, response.headers["location"]) == (302, f"{scheme}://192.0.2.2{path}")
    # It is the other host's to end.
    assert state.database.get("task", task, "status") == "pending"
    connection.close()
