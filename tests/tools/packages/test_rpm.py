"""The RPM package. The guest is a Debian with rpm in it, whose packages rpm's books do not know: hence --nodeps."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from agent_protocol.outcomes import Outcome
from guest_agent.service import UNIT
from tools.labs.roots import debian_root
from tools.packages import rpm
from tools.packages.agent_tree import CONFIGURATION_FILE, LIBRARY, installed_files

from .guests import IDENTITY, accepts, agent, difference, guest, placed, tree

pytestmark = pytest.mark.services

WANTED = f"/etc/systemd/system/multi-user.target.wants/{UNIT}"
INSTALL = ["rpm", "--nodeps", "-U"]


@pytest.fixture(scope="module")
def base() -> Path:
    return debian_root(("iproute2", "python3", "python3-cryptography", "rpm", "systemd"))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rpm.build(tmp_path_factory.mktemp("rpm"))


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rpm.build(tmp_path_factory.mktemp("newer"), "9.0.0rc1")


def query(package: Path, *arguments: str) -> str:
    command = ["rpm", "-qp", *arguments, str(package)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_same_bytes_each_time(package: Path, tmp_path: Path) -> None:
    assert rpm.build(tmp_path).read_bytes() == package.read_bytes()


def test_the_same_bytes_for_a_date_in_the_future(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "4000000000")
    assert rpm.build(tmp_path / "1").read_bytes() == rpm.build(tmp_path / "2").read_bytes()


def test_what_is_in_it(package: Path) -> None:
    lines = query(
        package, "--qf", "[%{FILENAMES} %{FILEMODES:perms} %{FILEUSERNAME} %{FILEFLAGS:fflags}\n]"
    ).splitlines()
    rows = {line.split(" ")[0]: line.split(" ")[1:] for line in lines}
    assert set(installed_files()) < set(rows)
    assert rows["/usr/sbin/xenward-agent"] == ["-rwxr-xr-x", "root", ""]
    assert rows[CONFIGURATION_FILE] == ["-rw-r--r--", "root", "cn"]
    assert rows[LIBRARY][0] == "drwxr-xr-x"
    requires = query(package, "--requires").splitlines()
    assert {"python3 >= 3.9", "python3-cryptography >= 3.4", "(shadow-utils or shadow)"} <= set(requires)


def test_from_installation_to_erasure(base: Path, package: Path, newer: Path, tmp_path: Path) -> None:
    with guest(base, package, newer) as (root, host):
        first, second = placed([package, newer])
        root.run(["rpm", "--initdb"])
        before = tree(root)
        root.run([*INSTALL, first])
        assert root.path(WANTED).is_symlink()
        assert list(root.path(f"{LIBRARY}/guest_agent/__pycache__").glob("agent.cpython-*.pyc"))
        with agent(root, host, tmp_path / "log", "/usr/sbin/xenward-agent") as sealed:
            assert sealed.ask("password", {"value": "Correct-Horse-9"}).outcome == Outcome.SUCCEEDED
        assert accepts(root, "root", "Correct-Horse-9")

        root.run(["sh", "-c", f"echo '#mine' >> {CONFIGURATION_FILE}"])
        root.run(["systemctl", "disable", UNIT])
        root.run([*INSTALL, second])
        assert "9.0.0~rc1" in root.run(["rpm", "-q", "xenward-agent"]).stdout
        assert root.path(CONFIGURATION_FILE).read_text().endswith("#mine\n")
        assert not root.path(WANTED).is_symlink()
        assert list(root.path(f"{LIBRARY}/guest_agent/__pycache__").glob("agent.cpython-*.pyc"))

        root.run(["mkdir", "-p", "/var/lib/xenward/update/9.9.9", "/run/xenward"])
        root.run(["touch", "/var/lib/xenward/network-undo.json", "/run/xenward/frozen.json"])
        root.run(["rpm", "--nodeps", "-e", "xenward-agent"])
        left = {path for path in difference(before, tree(root)) if "xenward" in path}
    # rpm keeps a configuration that was changed, under another name.
    kept = f"{CONFIGURATION_FILE}.rpmsave"
    assert left == {"/etc/xenward", kept, "/var/lib/xenward", IDENTITY}
