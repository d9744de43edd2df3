"""Guests that run from the start, and still do after a restart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.simulator.__main__ import main
from tools.simulator.process import SimulatorProcess

from .pools import logged_in
from .support import lives, until


def test_they_run_and_are_told(arguments: list[str]) -> None:
    with SimulatorProcess(["--guests", "2", *arguments]) as simulator, logged_in(simulator) as session:
        api = session.xenapi
        assert [guest.name for guest in simulator.guests] == ["guest-1", "guest-2"]
        # They were there already: a test of somebody's has not left them behind.
        assert {it.cls for it in simulator.control.leftovers()} == {"session"}
        macs = set()
        for guest in simulator.guests:
            record = api.VM.get_record(api.VM.get_by_uuid(guest.uuid))
            assert (record["name_label"], record["power_state"]) == (guest.name, "Running")
            assert api.VM_guest_metrics.get_live(record["guest_metrics"])
            (vbd,), (vif,) = record["VBDs"], record["VIFs"]
            assert api.VBD.get_currently_attached(vbd)
            assert api.VIF.get_currently_attached(vif)
            assert api.VDI.get_SR(api.VBD.get_VDI(vbd)) == api.pool.get_default_SR(api.pool.get_all()[0])
            macs.add(api.VIF.get_MAC(vif))
            root = simulator.guest_root(guest.uuid)
            (boot,) = until(lambda root=root: _boots(root))  # type: ignore[misc]
            assert boot["store"].startswith("unix:")
            assert lives(simulator.agent_pid(guest.uuid))
        assert len(macs) == 2


def _boots(root: Path) -> list[dict[str, str]]:
    log = root / "var/log/boots"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_after_a_restart_they_run_again_and_none_is_doubled(arguments: list[str], tmp_path: Path) -> None:
    arguments = [*arguments, "--state", str(tmp_path / "s")]
    with SimulatorProcess(["--guests", "1", *arguments]) as simulator:
        first = simulator.guests
        (simulator.guest_root(first[0].uuid) / "etc/hostname").write_text("mine\n")
    with SimulatorProcess(["--guests", "2", *arguments]) as simulator, logged_in(simulator) as session:
        assert simulator.guests[:1] == first
        assert (simulator.guest_root(first[0].uuid) / "etc/hostname").read_text() == "mine\n"
        records = session.xenapi.VM.get_all_records().values()
        running = sorted(it["name_label"] for it in records if not it["is_control_domain"])
        assert running == ["guest-1", "guest-2"]
        assert {it["power_state"] for it in records} == {"Running"}
        assert len(session.xenapi.VDI.get_all()) == 2
    with SimulatorProcess(arguments) as simulator:
        assert simulator.guests == []


@pytest.mark.parametrize("bad", [["--guests", "101"], ["--guests", "-1"], ["--guests", "1", "--hypervisor", "xen"]])
def test_a_number_that_cannot_be(bad: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(bad) == 1
    assert "guests" in capsys.readouterr().err
