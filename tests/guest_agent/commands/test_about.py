from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from guest_agent.commands import COMMANDS, SEALED_COMMANDS, Context, about, features
from guest_agent.configuration import Configuration
from guest_agent.launch import ROLLED_BACK, State, write_state
from guest_agent.update.running import Process

from ..standin_system import StandinSystem


@pytest.mark.parametrize("value", ["", "agent", "xentools", "anything\0"])
def test_version_whatever_is_asked(context: Context, value: str) -> None:
    assert COMMANDS["version"](context, value).message == "1.2.3"


def test_features(context: Context) -> None:
    assert COMMANDS["features"](context, "").message.split(",") == list(features(COMMANDS))


def test_info_follows_no_link_out_of_the_root(context: Context, root: Path) -> None:
    # As distributions have it: a link, and the file itself below /usr.
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/lib/os-release").write_text(
        "# comment\nID=\"debian\"\nVERSION_ID=12\nPRETTY_NAME='Debian 12'\nID_LIKE=x\n"
    )
    (root / "etc/os-release").symlink_to("../usr/lib/os-release")
    told = SEALED_COMMANDS["info"](context, "").data
    assert told["os"] == {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian 12"}
    assert told["distribution"] == "debian"


def test_info_leaves_out_what_is_not_known(context: Context) -> None:
    assert set(SEALED_COMMANDS["info"](context, "").data) == {"version", "boot_id"}


def test_info_names_the_network_stack(context: Context) -> None:
    configured = replace(context, configuration=Configuration(network_stack="networkd"))
    assert SEALED_COMMANDS["info"](configured, "").data["network_stack"] == "networkd"


def test_info_tells_that_a_reboot_is_due(context: Context) -> None:
    context.system = system = StandinSystem()
    assert "reboot_pending" not in SEALED_COMMANDS["info"](context, "").data
    system.reboots = True
    assert SEALED_COMMANDS["info"](context, "").data["reboot_pending"] is True


def test_info_tells_what_became_of_an_update(context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    updates = tmp_path / "update"
    updates.mkdir(0o700)
    write_state(str(updates), State("1.3.0", ROLLED_BACK, reason="it did not serve"))
    started = Process()
    started.launched(("python3",), str(updates), None)
    monkeypatch.setattr(about, "PROCESS", started)
    told = SEALED_COMMANDS["info"](context, "").data["update"]
    assert told == {"version": "1.3.0", "state": "rolled_back", "reason": "it did not serve"}
