"""docs/xenward.conf.sample: every option, as it is."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from compute_driver import config
from tools.commands.environment import CHECKOUT
from tools.commands.make_config_sample import SAMPLE, ours

TEXT = SAMPLE.read_text("utf-8")

COMMAND = [sys.executable, "-m", "tools.commands.make_config_sample"]
"""A process of its own: it decides on concurrency."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the command writes, on a machine of another name and for another user."""
    output = tmp_path_factory.mktemp("sample") / "made"
    environment = {**os.environ, "HOME": str(output.parent), "XDG_DATA_HOME": str(output.parent)}
    subprocess.run([*COMMAND, "--output", str(output)], cwd=CHECKOUT, env=environment, check=True, timeout=60)
    return output.read_text("utf-8")


def test_it_is_current(made: str) -> None:
    assert ours(TEXT) == ours(made), "run tools/make_config_sample"


def test_it_is_checked_by_the_command(tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    for text, status in ((TEXT, 0), (TEXT.replace("#port = 9787", "#port = 9788"), 1)):
        changed.write_text(text, "utf-8")
        done = subprocess.run([*COMMAND, "--check", "--output", str(changed)], cwd=CHECKOUT, check=False, timeout=60)
        assert done.returncode == status
        assert changed.read_text("utf-8") == text


def test_it_has_every_option_of_ours_and_the_bus() -> None:
    shown: dict[str, set[str]] = {}
    group = ""
    for line in TEXT.splitlines():
        if found := re.fullmatch(r"\[(.+)\]", line):
            group = found[1]
        elif found := re.match(r"#([a-z_]+) =", line):
            shown.setdefault(group, set()).add(found[1])
    for name, members in config.list_opts():
        assert {option.dest for option in members} <= shown[name or "DEFAULT"]
    assert "transport_url" in shown["DEFAULT"]
    assert "ssl_ca_file" in shown["oslo_messaging_rabbit"]


def test_it_tells_nothing_of_the_machine_it_was_made_on(made: str) -> None:
    for text in (TEXT, made):
        assert str(CHECKOUT) not in text
        assert str(Path.home()) not in text
        assert f"= {socket.gethostname()}\n" not in text


def test_as_it_is_it_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def values(conf: Any) -> dict[str, Any]:
        return {
            f"{group}.{option.dest}": (conf[group] if group else conf)[option.dest]
            for group, members in config.list_opts()
            for option in members
        }

    monkeypatch.delenv("XENWARD_CONFIG_FILE", raising=False)
    monkeypatch.setattr(config, "DEFAULT_FILE", tmp_path / "none")
    cfg.CONF.reset()
    without = values(config.load())
    assert values(config.load(str(SAMPLE))) == without
    cfg.CONF.reset()
