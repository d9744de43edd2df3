"""The commands set themselves up: what is decided about `.venv`, without installing anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools.commands import environment


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environment, "CHECKOUT", tmp_path)
    monkeypatch.setattr(environment, "VIRTUAL_ENVIRONMENT", tmp_path / ".venv")
    monkeypatch.setattr(environment, "_STAMP", tmp_path / ".venv/installed")
    (tmp_path / "setup.cfg").write_text("[options]\n")
    (tmp_path / "pyproject.toml").write_text("")
    return tmp_path


def test_it_installs_once_and_again_when_the_requirements_change(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installations = []

    def install() -> None:
        installations.append(1)
        (checkout / ".venv").mkdir(exist_ok=True)

    monkeypatch.setattr(environment, "_install", install)
    environment.ensure()
    environment.ensure()
    assert len(installations) == 1
    (checkout / "setup.cfg").write_text("[options]\ninstall_requires = six\n")
    environment.ensure()
    assert len(installations) == 2


def test_an_installation_that_failed_is_begun_again(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, stdout="pip's own words")

    monkeypatch.setattr(subprocess, "run", fail)
    for _ in range(2):
        with pytest.raises(SystemExit, match="pip's own words"):
            environment.ensure()
    assert not (checkout / ".venv/installed").exists()


def test_an_old_python_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 0))
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or later, and runs with 3\.9"):
        environment.run("tools.commands.test", [])
