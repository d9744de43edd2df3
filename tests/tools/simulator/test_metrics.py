"""Measurements over HTTP."""

from __future__ import annotations

import http.client
import json
import time
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
import XenAPI

from tools.simulator.process import SimulatorProcess

from .support import Vm
from .transfers import Transfers


@pytest.fixture
def transfers(simulator: SimulatorProcess, session: XenAPI.Session) -> Transfers:
    return Transfers(simulator, session)


@pytest.fixture
def running(vm: Vm) -> Vm:
    vm.start(False, False)
    return vm


def updates(transfers: Transfers, age: int, **parameters: str) -> dict[str, Any]:
    text = transfers.get("/rrd_updates", start=str(int(time.time()) - age), json="true", **parameters)
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def test_updates(transfers: Transfers, running: Vm) -> None:
    found = updates(transfers, 300, host="true")
    meta, data = found["meta"], found["data"]
    assert (meta["step"], meta["rows"], meta["columns"]) == ("5", str(len(data)), str(len(meta["legend"])))
    assert len(data) == 60
    moments = [int(row["t"]) for row in data]
    assert moments == sorted(moments, reverse=True)
    assert (moments[0], moments[-1]) == (int(meta["end"]), int(meta["start"]))
    (host,) = transfers.api.host.get_all()
    uuid = transfers.api.host.get_uuid(host)
    assert f"AVERAGE:host:{uuid}:memory_free_kib" in meta["legend"]
    column = meta["legend"].index(f"AVERAGE:vm:{running.uuid}:cpu0")
    loads = [float(row["values"][column]) for row in data]
    assert len(set(loads)) > 10
    assert all(0 <= load <= 1 for load in loads)
    memory = meta["legend"].index(f"AVERAGE:vm:{running.uuid}:memory")
    assert data[0]["values"][memory] == running.get_memory_dynamic_max()
    # Whoever asks again is told the same of the same moment.
    before = {row["t"]: row["values"] for row in data}
    for row in updates(transfers, 100, host="true")["data"]:
        assert before.get(row["t"], row["values"]) == row["values"]


def test_what_is_asked_for(transfers: Transfers, running: Vm) -> None:
    legend = updates(transfers, 60)["meta"]["legend"]
    assert not any(":host:" in entry for entry in legend)
    own = updates(transfers, 60, vm_uuid=running.uuid)["meta"]["legend"]
    assert {entry.split(":")[2] for entry in own} == {running.uuid}
    longer = updates(transfers, 3 * 3600, cf="MAX")["meta"]
    assert (longer["step"], {entry.split(":")[0] for entry in longer["legend"]}) == ("3600", {"MAX"})
    assert updates(transfers, 60, interval="60")["meta"]["step"] == "60"
    assert any(":sr:" in entry for entry in updates(transfers, 60, sr_uuid="all")["meta"]["legend"])


@pytest.mark.parametrize(
    ("accept", "kind"),
    [("", "text/xml"), ("*/*", "application/json"), ("text/xml", "text/xml"), ("application/json", "application/json")],
)
def test_negotiation(transfers: Transfers, accept: str, kind: str) -> None:
    connection: http.client.HTTPConnection = transfers.connection()
    path = transfers.path("/rrd_updates", start=str(int(time.time()) - 20))
    connection.request("GET", path, headers={"Accept": accept})
    response = connection.getresponse()
    assert response.headers["content-type"] == kind
    text = response.read()
    if kind == "text/xml":
        root = ElementTree.fromstring(text)
        assert root.tag == "xport"
        assert len(root.findall("data/row")) == int(root.findtext("meta/rows") or "")
        assert len(root.findall("meta/legend/entry")) == int(root.findtext("meta/columns") or "")
    else:
        json.loads(text)


@pytest.mark.parametrize("start", [None, "", "x", "-5", "9" * 30])
def test_start_must_be_told(transfers: Transfers, start: str | None) -> None:
    parameters = {} if start is None else {"start": start}
    assert transfers.request("GET", "/rrd_updates", **parameters).status == 400


def test_dumps(transfers: Transfers, running: Vm) -> None:
    (sr,) = transfers.api.SR.get_all()
    for text, name in (
        (transfers.get("/vm_rrd", uuid=running.uuid), "memory"),
        (transfers.get("/host_rrd"), "cpu_avg"),
        (transfers.get("/sr_rrd", uuid=transfers.api.SR.get_uuid(sr)), "physical_utilisation"),
    ):
        root = ElementTree.fromstring(text)
        names = [element.text for element in root.findall("ds/name")]
        assert name in names
        functions = [element.findtext("cf") for element in root.findall("rra")]
        assert functions.count("AVERAGE") == 4
        for archive in root.findall("rra"):
            assert all(len(row) == len(names) for row in archive.findall("database/row"))
        assert [len(archive.findall("database/row")) for archive in root.findall("rra")[:2]] == [120, 120]
    assert transfers.request("GET", "/vm_rrd").status == 400
    assert transfers.request("GET", "/vm_rrd", uuid="nobody").status == 500
