from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from guest_agent import VERSION
from guest_agent.__main__ import main

from .conftest import REPOSITORY


def test_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    assert setup["metadata"]["version"] == VERSION
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == VERSION


def test_unreachable_store(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert main(["--root", str(tmp_path), "--store", f"unix:{tmp_path}/nobody"]) == 1
    assert "cannot connect" in caplog.text


def test_missing_root(tmp_path: Path) -> None:
    assert main(["--root", str(tmp_path / "missing"), "--store", f"unix:{tmp_path}/nobody"]) == 1


def test_other_platforms_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Plan9")
    assert main(["--root", str(tmp_path), "--store", f"unix:{tmp_path}/nobody"]) == 1
    assert "serves Linux, this is Plan9" in caplog.text


def test_unknown_store(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--store", "tcp:somewhere"])
    assert ended.value.code == 2
    assert "unix:PATH or xenbus" in capsys.readouterr().err
