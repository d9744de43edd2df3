"""The command on a real bus within the process: a real manager and database, and a hypervisor in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent_protocol.outcomes import Unknown
from compute_driver.cli import main as cli
from compute_driver.db.repository import Repository
from compute_driver.fake.driver import FakeDriver
from compute_driver.fake.nodes import Node
from compute_driver.images.directory import ImageDirectory
from compute_driver.manager import ComputeManager
from compute_driver.memory import RepositoryMemory
from compute_driver.states import PowerState

from ..bus import Switch
from .service import SECRET, Service, run, shown, types

VDI = "1b1c5e6a-0000-4000-8000-000000000001"


@pytest.fixture
def driver(
    service: Service,
    bus: tuple[Any, Switch],
    repository: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> FakeDriver:
    """The hypervisor. The images `deb` and `fix` are there."""
    from compute_driver import rpc

    images = tmp_path / "images"
    images.mkdir()
    for name in ("deb", "fix"):
        (images / f"{name}.json").write_text(json.dumps({"name": name, "disk_format": "raw"}))
        (images / f"{name}.raw").write_bytes(bytes(512))
    it = FakeDriver(RepositoryMemory(repository), nodes=[Node("xen-1"), Node("xen-2")])
    bus[1].manager = ComputeManager(repository, it, "here", ImageDirectory(images))
    client = rpc.ComputeClient(bus[0], "here", timeout=10.0, order_timeout=10.0)
    monkeypatch.setattr(cli.XenwardApp, "client", property(lambda _: client))
    return it


class Told:
    """What commands show."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, line: str, *more: str, status: int = 0) -> Any:
        self._capsys.readouterr()
        assert run(*line.split(), *more, "-f", "json") == status, self._capsys.readouterr()
        return shown(self._capsys)

    def state(self) -> tuple[str, str]:
        it = self("server show web")
        return it["vm_state"], it["power_state"]


@pytest.fixture
def xenward(driver: FakeDriver, capsys: pytest.CaptureFixture[str]) -> Told:
    return Told(capsys)


def test_a_whole_life(xenward: Told, driver: FakeDriver, repository: Repository, tmp_path: Path) -> None:
    made = xenward("server create web --image deb --memory 64 --disk 1 --node xen-1 --property role=front --generate")
    instance = repository.find_instance("web")
    assert made["uuid"] == instance.uuid
    assert driver.guest(instance).system.password.opens(made["admin_password"])  # type: ignore[union-attr]
    for verb, state in (
        ("pause", ("paused", "paused")),
        ("unpause", ("active", "running")),
        ("suspend", ("suspended", "suspended")),
        ("resume", ("active", "running")),
        ("stop", ("stopped", "shutdown")),
        ("start", ("active", "running")),
    ):
        xenward(f"server {verb} web")
        assert xenward.state() == state
    xenward("server reboot web --hard")

    assert xenward("server set web --property tier=1")["properties"] == {"role": "front", "tier": "1"}
    assert xenward("server unset web --property role")["properties"] == {"tier": "1"}
    copy = xenward("server image create web --name copy")
    assert (tmp_path / "images" / f"{copy['id']}.json").exists()
    xenward("server freeze web --timeout 30")
    xenward("server thaw web")

    xenward("server resize web --memory 128")
    assert xenward("server show web")["memory_mb"] == 128
    xenward("server resize revert web")
    xenward("server migrate web --node xen-2")
    xenward("server resize confirm web")
    shown_now = xenward("server show web")
    assert (shown_now["vm_state"], shown_now["memory_mb"], shown_now["node"]) == ("active", 64, "xen-2")
    xenward("server migrate live web --node xen-1")
    assert xenward("server show web")["node"] == "xen-1"

    xenward("server rescue web --image fix --no-password")
    assert xenward.state()[0] == "rescued"
    xenward("server unrescue web")
    again = xenward("server rebuild web --image fix --generate")
    assert driver.guest(instance).system.password.opens(again["admin_password"])  # type: ignore[union-attr]
    xenward("server delete web")
    assert xenward("server list") == []
    assert {row["outcome"] for row in xenward("action list")} == {"succeeded"}


def test_devices_come_and_go(xenward: Told, driver: FakeDriver) -> None:
    xenward("server create web --image deb --memory 64 --disk 1 --network", "Pool-wide network")
    assert xenward(f"server add volume web data --kind vdi --vdi {VDI}")["device"]
    added = xenward("server add network web --bridge xenbr1 --address 192.0.2.5/24 --gateway 192.0.2.1")
    xenward("server network apply web")
    it = xenward("server show web")
    assert [volume["id"] for volume in it["volumes"]] == ["data"]
    assert [interface["id"] for interface in it["interfaces"]][1:] == [added["interface"]]
    assert it["interfaces"][1]["addresses"] == ["192.0.2.5/24"]
    xenward("server remove volume web data")
    xenward(f"server remove network web {added['interface']}")
    assert xenward("server remove volume web data", status=3)["code"] == "volume_not_attached"
    it = xenward("server show web")
    assert (it["volumes"], len(it["interfaces"])) == ([], 1)


def test_a_password_reaches_the_guest_and_nothing_else(
    xenward: Told,
    driver: FakeDriver,
    repository: Repository,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    xenward("server create web --image deb --memory 64 --disk 1 --no-password")
    types(monkeypatch, SECRET + "\n")
    xenward("server rescue web --image fix --password-stdin")
    assert driver.guest(repository.find_instance("web")).system.password.opens(SECRET)  # type: ignore[union-attr]
    assert "hunter2" not in caplog.text + str(xenward("action list"))
    assert b"hunter2" not in (tmp_path / "xenward.sqlite").read_bytes()


def test_an_order_that_is_left_to_itself_can_be_asked_for(xenward: Told, driver: FakeDriver) -> None:
    xenward("server create web --image deb --memory 64 --disk 1 --no-password")
    with driver.steering.blocked("pause") as gate:
        order = xenward("server pause web --no-wait")["order_id"]
        gate.await_arrival()
        assert xenward(f"order show {order}", status=5)["code"] == "order_in_flight"
    assert xenward(f"order show {order} --wait 10")["outcome"] == "succeeded"
    # Once is enough.
    assert xenward(f"server pause web --order-id {order}", status=3)["code"] == "order_succeeded"
    assert driver.steering.verbs.count("pause") == 1
    made = xenward("server create second --memory 64 --disk 1 --no-wait")
    assert xenward(f"order show {made['order_id']} --wait 10")["instance_uuid"] == made["uuid"]
    assert xenward(f"server show {made['uuid']}")["display_name"] == "second"


def test_an_unknown_end_is_recorded_under_the_id_that_was_told(
    xenward: Told, driver: FakeDriver, capsys: pytest.CaptureFixture[str]
) -> None:
    xenward("server create web --image deb --memory 64 --disk 1 --no-password")
    driver.steering.fail("reboot", Unknown("xenserver_answer_lost", "the answer was lost"), after=True)
    assert run("server", "reboot", "web") == 8
    command = capsys.readouterr().err.partition("ask: xenward ")[2].strip()
    assert xenward(command, status=8)["code"] == "xenserver_answer_lost"


def test_consoles_and_diagnostics(driver: FakeDriver, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run("server", "create", "web", "--image", "deb", "--memory", "64", "--disk", "1") == 0
    capfdbinary.readouterr()
    assert run("console", "log", "show", "web") == 0
    assert capfdbinary.readouterr().out.endswith(b" boots.\r\n")
    assert run("console", "url", "show", "web", "-f", "json") == 0
    assert json.loads(capfdbinary.readouterr().out).keys() >= {"url", "host", "port"}
    assert run("server", "show", "web", "--diagnostics", "-f", "json") == 0
    assert json.loads(capfdbinary.readouterr().out)["state"] == PowerState.RUNNING.word


def test_hosts(xenward: Told, driver: FakeDriver) -> None:
    for verb, enabled in (("disable", False), ("enable", True)):
        xenward(f"host {verb} xen-2")
        assert xenward("host show xen-2")["enabled"] is enabled
    assert xenward("host power reboot xen-2", status=3)["outcome"] == "refused"
    xenward("host maintenance on xen-2")
    assert xenward("host show xen-2")["enabled"] is False
    xenward("host maintenance off xen-2")
    assert {row["resource_class"] for row in xenward("host inventory show xen-2")} >= {"VCPU", "MEMORY_MB"}
