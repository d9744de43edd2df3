"""The self-test: it answers whatever is wrong with the store."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import dom0_plugins
from agent_protocol.xenstore import Client, StoreClosed, connect
from dom0_plugins import __main__ as main
from dom0_plugins.status import status
from tests.agent_protocol.store import StandIn
from tools.simulator.xenstore.server import XenStoreServer


def test_all_is_well(server: XenStoreServer, dom0: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XENSTORED_PATH", str(server.socket))
    assert json.loads(main.status({"ignored": "x"})) == {
        "version": dom0_plugins.__version__,
        "protocol": 2,
        "python": ".".join(map(str, sys.version_info[:3])),
        "xenstore": "ok",
        "functions": ["adverts", "console_log", "exchange", "status", "version"],
    }


def test_the_version_is_told_without_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XENSTORED_PATH", str(tmp_path / "nothing"))
    assert json.loads(main.version({"ignored": "x"})) == {
        "version": dom0_plugins.__version__,
        "protocol": 2,
        "functions": sorted(main.FUNCTIONS),
    }


def test_every_function_that_is_told_is_there() -> None:
    def nothing() -> Client:
        raise StoreClosed("closed")

    assert json.loads(status(nothing, main.FUNCTIONS))["functions"] == sorted(main.FUNCTIONS)


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XENSTORED_PATH", str(tmp_path / "nothing"))
    assert json.loads(main.status({}))["xenstore"] == "closed"


def test_the_store_is_empty(server: XenStoreServer) -> None:
    assert json.loads(status(lambda: connect(str(server.socket)), []))["xenstore"] == "ENOENT"


def test_the_store_does_not_answer() -> None:
    stand_in = StandIn(timeout=0.05)
    assert json.loads(status(lambda: stand_in.client, []))["xenstore"] == "timeout"
    stand_in.close()
