"""Throw-away systems are real, apart from this machine and from each other, and leave nothing."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tools.labs.roots import Root, RootError, debian_root

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def base() -> Path:
    return debian_root()


def test_an_instance_has_its_own_users_network_and_name(base: Path, tmp_path: Path) -> None:
    shadow, name = Path("/etc/shadow").read_bytes(), socket.gethostname()
    (tmp_path / "given").write_text("from outside")
    with Root(base, {tmp_path: "/mnt/outside"}) as root:
        root.run(["chpasswd"], stdin="root:a new password 1\n")
        assert ":!" not in root.path("/etc/shadow").read_text().splitlines()[0]
        assert root.run(["hostname"]).stdout == "guest\n"
        assert [line.split(":")[1].strip() for line in root.run(["ip", "-o", "link"]).stdout.splitlines()] == ["lo"]
        assert root.run(["cat", "/mnt/outside/given"]).stdout == "from outside"
        with pytest.raises(AssertionError, match="ended with 1"):
            root.run(["false"])
        made = root.path("/").stat()
    assert (Path("/etc/shadow").read_bytes(), socket.gethostname()) == (shadow, name)
    assert made.st_dev != Path("/").stat().st_dev
    with Root(base) as second:
        assert second.path("/etc/shadow").read_text().splitlines()[0].split(":")[1] in ("*", "!")


def test_closing_ends_what_runs_and_removes_the_instance(base: Path) -> None:
    with Root(base) as root:
        root.run(["sh", "-c", "sleep 1000 </dev/null >/dev/null 2>&1 & echo $! > /run/sleeping"])
        processes = set(_descendants(root))
        assert len(processes) >= 2
        directory = root._directory
    assert not directory.exists()
    assert not any(Path(f"/proc/{pid}").exists() for pid in processes)


def _descendants(root: Root) -> list[int]:
    namespace = Path(f"/proc/{root._pid}/ns/pid").readlink()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "ns/pid").readlink() == namespace:
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_what_cannot_be_made_says_so(tmp_path: Path) -> None:
    with pytest.raises(RootError, match="cannot be made"):
        Root(tmp_path / "no such base")
