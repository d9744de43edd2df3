from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent_protocol.outcomes import Refused, Unsupported
from guest_agent import system
from guest_agent.system.directory import DirectorySystem
from guest_agent.system.linux import LinuxSystem


def test_the_running_system(tmp_path: Path) -> None:
    assert isinstance(system.choose("/"), LinuxSystem)
    (tmp_path / "link").symlink_to("/")
    assert isinstance(system.choose(str(tmp_path / "link")), LinuxSystem)


def test_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = system.choose(".")
    assert isinstance(chosen, DirectorySystem)
    assert chosen.root == os.path.realpath(tmp_path)


def test_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "missing"):
        with pytest.raises(Refused, match="is not a directory"):
            system.choose(str(tmp_path / name))


def test_another_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Plan9")
    with pytest.raises(Unsupported, match="serves Linux and Windows, this is Plan9"):
        system.choose("/")
