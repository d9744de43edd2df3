"""The plugin's RPM, installed into an empty root, where it runs as XAPI runs it, and removed without trace."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import dom0_plugins
from tests.tools.packages.test_dom0_plugin import status
from tools.packages import plugin_rpm

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plugin_rpm.build(tmp_path_factory.mktemp("rpm"))


def rpm(root: Path, *arguments: str) -> str:
    """rpm with books of its own in that root, which know nothing of a Python."""
    command = ["rpm", "--root", str(root), "--dbpath", "/var/lib/rpm", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def files(root: Path) -> set[str]:
    return {f"/{path.relative_to(root)}" for path in root.rglob("*") if path.is_file() and "rpm" not in path.parts}


def test_the_same_bytes_each_time(package: Path, tmp_path: Path) -> None:
    assert plugin_rpm.build(tmp_path).read_bytes() == package.read_bytes()


def test_what_is_in_it(package: Path, tmp_path: Path) -> None:
    listed = rpm(tmp_path, "-qp", "--qf", "[%{FILENAMES} %{FILEMODES:perms} %{FILEUSERNAME}\n]", str(package))
    assert listed.splitlines() == ["/etc/xapi.d/plugins/xenward -rwxr-xr-x root"]
    # rpm's own demands on itself aside.
    needed = rpm(tmp_path, "-qp", "--requires", str(package)).splitlines()
    assert [line for line in needed if not line.startswith("rpmlib(")] == ["python3 >= 3.6"]
    assert rpm(tmp_path, "-qp", "--scripts", str(package)) == ""


def test_from_installation_to_erasure(package: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    newer = plugin_rpm.build(tmp_path / "newer", "9.0.0rc1")
    (root / "etc/xapi.d/plugins").mkdir(parents=True)
    (root / "etc/xapi.d/plugins/echo").write_text("another one")
    before = files(root)
    rpm(root, "--nodeps", "-U", str(package))
    plugin = root / "etc/xapi.d/plugins/xenward"
    assert files(root) - before == {"/etc/xapi.d/plugins/xenward"}
    assert os.access(plugin, os.X_OK)
    answer, complaints = status(plugin)
    assert (answer["version"], complaints) == (dom0_plugins.__version__, "")
    rpm(root, "--nodeps", "-U", str(newer))
    assert "9.0.0~rc1" in rpm(root, "-q", plugin_rpm.NAME)
    rpm(root, "--nodeps", "-e", plugin_rpm.NAME)
    assert files(root) == before
