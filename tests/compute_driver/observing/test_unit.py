"""The unit that systemd starts the service by."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from compute_driver import config
from tools.commands.environment import CHECKOUT

UNIT = CHECKOUT / "compute_driver/observing/xenward-compute.service"

EXPOSURE = 1.5
"""What `systemd-analyze security` of systemd 252 says of the unit, of 10."""


def directives() -> dict[str, list[str]]:
    """The values of each directive of the unit."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text("ascii").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def test_it_is_told_by_the_service_and_starts_it_again() -> None:
    found = directives()
    assert (found["Type"], found["NotifyAccess"]) == (["notify"], ["main"])
    assert (found["Restart"], found["StartLimitIntervalSec"]) == (["on-failure"], ["0"])
    assert (found["KillSignal"], found["KillMode"]) == (["SIGTERM"], ["mixed"])
    assert all(int(found[name][0]) >= 60 for name in ("WatchdogSec", "TimeoutStartSec", "TimeoutStopSec"))


def test_it_runs_as_a_user_of_its_own_who_can_write_its_state_only() -> None:
    found = directives()
    assert (found["User"], found["Group"]) == (["xenward"], ["xenward"])
    assert (found["StateDirectory"], found["StateDirectoryMode"]) == (["xenward"], ["0700"])
    # Where config.state_path looks for those who are not root.
    assert found["Environment"] == ["XDG_DATA_HOME=%S"]
    for name in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices", "MemoryDenyWriteExecute"):
        assert found[name] == ["yes"], name
    assert (found["ProtectSystem"], found["CapabilityBoundingSet"], found["UMask"]) == (["strict"], [""], ["0077"])
    assert found["RestrictAddressFamilies"] == ["AF_UNIX AF_INET AF_INET6"]


def test_it_is_given_the_time_that_the_service_takes() -> None:
    default = {f"{group}.{option.dest}": option.default for group, members in config.list_opts() for option in members}
    longest = default["service.drain_timeout"] + default["service.recording_patience"]
    assert int(directives()["TimeoutStopSec"][0]) > longest
    assert int(directives()["WatchdogSec"][0]) > 2 * default["service.lease"]


def test_it_is_shipped() -> None:
    listed = (CHECKOUT / "setup.cfg").read_text()
    assert "compute_driver.observing = *.service" in listed


@pytest.mark.services
def test_systemd_has_nothing_to_say(tmp_path: Path) -> None:
    path = tmp_path / UNIT.name
    path.write_text(re.sub(r"^ExecStart=.*", "ExecStart=/bin/true", UNIT.read_text(), flags=re.MULTILINE))
    command = ["systemd-analyze", "verify", "--man=no", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if "xenward" in line] == []


@pytest.mark.services
def test_its_exposure() -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None
    assert float(found[1]) <= EXPOSURE
