"""Packages are unpacked, not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.labs import packages
from tools.labs.cache import LabError
from tools.labs.packages import unpacked

pytestmark = pytest.mark.services


def test_the_files_are_there_and_nothing_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    status = Path("/var/lib/dpkg/status").read_bytes()
    directory = unpacked(["hello", "libxentoolcore1"])
    assert (directory / "usr/bin/hello").is_file()
    assert list(directory.glob("usr/lib/*/libxentoolcore.so.1"))
    assert Path("/var/lib/dpkg/status").read_bytes() == status

    def unexpected(*_arguments: object) -> str:
        raise AssertionError("it is there already")

    monkeypatch.setattr(packages, "run", unexpected)
    assert unpacked(["libxentoolcore1", "hello"]) == directory


def test_a_package_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(LabError, match="no-such-package-at-all"):
        unpacked(["hello", "no-such-package-at-all"])
    with pytest.raises(LabError):
        unpacked(["--allow-unauthenticated"])
