"""`xenward service list`, with services in a real database."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from compute_driver.cli import service as commands
from compute_driver.db.records import Host
from compute_driver.db.records import Service as Run
from compute_driver.db.repository import Repository
from compute_driver.fake.driver import FakeDriver
from compute_driver.manager import ComputeManager

from ..bus import Switch
from .service import Service, run, shown

MOMENT = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def test_services_and_the_leases_of_their_hosts(
    service: Service,
    bus: tuple[Any, Switch],
    repository: Repository,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from compute_driver import rpc
    from compute_driver.cli import main as cli

    bus[1].manager = ComputeManager(repository, FakeDriver(), "here")
    client = rpc.ComputeClient(bus[0], "here", timeout=10.0)
    monkeypatch.setattr(cli.XenwardApp, "client", property(lambda _: client))
    repository.acquire_lease("here", "this very process", seconds=60.0)
    repository.register_service("id-1", "here", "compute", "1.0")
    repository.register_service("id-2", "elsewhere", "compute", "1.0")
    repository.stop_service("id-2")
    assert run("service", "list", "-f", "json") == 0
    here, elsewhere = sorted(shown(capsys), key=lambda row: str(row["id"]))
    assert (here["host"], here["state"], here["epoch"], here["holder"]) == ("here", "up", 1, "this very process")
    assert 0 < here["lease_seconds_left"] <= 60
    assert (elsewhere["state"], elsewhere["epoch"], elsewhere["lease_seconds_left"]) == ("stopped", None, None)


@pytest.mark.parametrize(("silent", "word"), [(59.0, "up"), (61.0, "silent")])
def test_a_service_of_which_nothing_is_heard_is_silent(
    service: Service, silent: float, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = Run("id-1", "here", "compute", "1.0", MOMENT, MOMENT, None, silent).to_dict()
    lease = Host("here", "", 3, MOMENT, MOMENT, 0.0).to_dict()
    service.answer = [{**told, "lease": lease}]
    assert run("service", "list", "-f", "json") == 0
    (row,) = shown(capsys)
    assert list(row) == commands.COLUMNS
    assert (row["state"], row["epoch"]) == (word, 3)
