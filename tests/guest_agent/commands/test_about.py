from __future__ import annotations

from pathlib import Path

import pytest

from guest_agent.commands import COMMANDS, SEALED_COMMANDS, Context


@pytest.mark.parametrize("value", ["", "agent", "xentools", "anything\0"])
def test_version_whatever_is_asked(context: Context, value: str) -> None:
    assert COMMANDS["version"](context, value).message == "1.2.3"


def test_features(context: Context) -> None:
    assert COMMANDS["features"](context, "").message.split(",") == sorted(COMMANDS)


def test_info_follows_no_link_out_of_the_root(context: Context, root: Path) -> None:
    # As distributions have it: a link, and the file itself below /usr.
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/lib/os-release").write_text(
        "# comment\nID=\"debian\"\nVERSION_ID=12\nPRETTY_NAME='Debian 12'\nID_LIKE=x\n"
    )
    (root / "etc/os-release").symlink_to("../usr/lib/os-release")
    told = SEALED_COMMANDS["info"](context, "").data
    assert told["os"] == {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian 12"}


def test_info_leaves_out_what_is_not_known(context: Context) -> None:
    assert set(SEALED_COMMANDS["info"](context, "").data) == {"version", "boot_id"}
