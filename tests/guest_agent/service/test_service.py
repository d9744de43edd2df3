"""The files that a service manager starts the agent by."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from guest_agent import service
from guest_agent.configuration import Configuration, parse_configuration
from guest_agent.places import CONFIGURATION_FILE
from guest_agent.system.freezing import MARK
from tools.commands.environment import CHECKOUT

EXPOSURE = 5.7
"""What `systemd-analyze security` of systemd 252 says of the unit, of 10: the agent is the superuser by its purpose."""


def unit() -> dict[str, list[str]]:
    """The values of each directive of the unit."""
    found: dict[str, list[str]] = {}
    for line in service.read(service.UNIT).decode("ascii").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


class TestConfiguration:
    def test_as_it_is_it_changes_nothing(self) -> None:
        assert parse_configuration(service.read(service.CONFIGURATION)) == Configuration()

    def test_what_is_commented_out_are_all_options_and_their_defaults(self) -> None:
        shown = re.sub(r"^#(?=[a-z_]+ =)", "", service.read(service.CONFIGURATION).decode(), flags=re.MULTILINE)
        assert parse_configuration(shown.encode()) == Configuration()
        options = set(re.findall(r"^([a-z_]+) =", shown, re.MULTILINE))
        assert options == {"store", "block", "stack", "network", "ssh_keys", "key"}

    def test_the_example_is_valid(self) -> None:
        shown = service.read(service.CONFIGURATION).decode().replace("#   block =", "block =")
        assert "agent_update" in parse_configuration(shown.encode()).block


class TestUnit:
    def test_it_goes_on_whatever_happens_but_for_a_bad_configuration(self) -> None:
        directives = unit()
        assert directives["Restart"] == ["always"]
        assert directives["StartLimitIntervalSec"] == ["0"]
        assert directives["RestartPreventExitStatus"] == ["2"]
        assert directives["KillMode"] == ["process"]

    def test_it_has_what_the_agent_needs(self) -> None:
        directives = unit()
        # Not by its name: it may come after the service.
        assert directives["DeviceAllow"] == ["char-misc rw"]
        assert directives["RuntimeDirectory"] == [Path(MARK.text).parent.name]
        assert directives["RuntimeDirectoryPreserve"] == ["yes"]
        assert not set(directives) & {
            "ProtectSystem",
            "ProtectHome",
            "PrivateTmp",
            "ProtectHostname",
            "RestrictSUIDSGID",
        }
        assert CONFIGURATION_FILE.text not in str(directives)

    def test_the_program_can_stand_elsewhere(self) -> None:
        for name in (service.UNIT, service.OPENRC):
            content = service.read_for(name, "/usr/local/sbin/xenward-agent")
            assert content.count(b"/usr/local/sbin/xenward-agent") == 1
            assert service.PROGRAM.encode() not in content

    @pytest.mark.services
    def test_systemd_has_nothing_to_say(self, tmp_path: Path) -> None:
        path = tmp_path / service.UNIT
        path.write_bytes(service.read_for(service.UNIT, "/bin/true"))
        command = ["systemd-analyze", "verify", "--man=no", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = [line for line in done.stderr.splitlines() if "xenward" in line]
        assert said == []

    @pytest.mark.services
    def test_its_exposure(self) -> None:
        path = CHECKOUT / "guest_agent/service" / service.UNIT
        command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
        assert found is not None
        assert float(found[1]) <= EXPOSURE


def test_the_script_of_openrc_is_one(tmp_path: Path) -> None:
    path = tmp_path / "xenward-agent"
    path.write_bytes(service.read(service.OPENRC))
    subprocess.run(["sh", "-n", str(path)], check=True)
