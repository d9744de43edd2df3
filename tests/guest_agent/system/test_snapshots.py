from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent_protocol.outcomes import Refused
from guest_agent.system.accounts import Owner
from guest_agent.system.lookup import any_there, is_there, link_target, names_in
from guest_agent.system.paths import GuestPath
from guest_agent.system.snapshots import Snapshot, put_back, remove_file, take_snapshot

from ..conftest import names

FILE = GuestPath("/etc/net/f")


@pytest.fixture
def file(root: Path) -> Path:
    (root / "etc/net").mkdir()
    path = root / "etc/net/f"
    path.write_bytes(b"\0old")
    path.chmod(0o4751)
    return path


def test_a_file(root: Path, file: Path) -> None:
    snapshot = take_snapshot(str(root), FILE)
    assert snapshot == Snapshot(FILE, b"\0old", 0o4751, Owner(os.getuid(), os.getgid()))
    assert "old" not in repr(snapshot)
    for spoil in (lambda: file.write_bytes(b"new"), lambda: file.chmod(0o600), file.unlink):
        spoil()
        put_back(str(root), snapshot)
        assert take_snapshot(str(root), FILE) == snapshot


def test_an_owner(root: Path, file: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only the superuser can give files away")
    os.chown(file, 12, 34)
    snapshot = take_snapshot(str(root), FILE)
    file.unlink()
    put_back(str(root), snapshot)
    assert (file.stat().st_uid, file.stat().st_gid) == (12, 34)


def test_no_file(root: Path, file: Path) -> None:
    for path in (GuestPath("/etc/net/missing"), GuestPath("/no/where")):
        snapshot = take_snapshot(str(root), path)
        assert snapshot == Snapshot(path, None, None, None)
        put_back(str(root), snapshot)
    absent = take_snapshot(str(root), GuestPath("/etc/net/g"))
    (root / "etc/net/g").touch()
    put_back(str(root), absent)
    assert names(root / "etc/net") == ["f"]


@pytest.mark.parametrize("kind", ["link", "directory", "fifo"])
def test_what_is_no_file_is_left_alone(root: Path, file: Path, tmp_path: Path, kind: str) -> None:
    outside = tmp_path / "outside"
    outside.write_text("precious")
    file.unlink()
    if kind == "link":
        file.symlink_to(outside)
    elif kind == "directory":
        file.mkdir()
    else:
        os.mkfifo(file)
    for action in (take_snapshot, remove_file):
        with pytest.raises(Refused) as caught:
            action(str(root), FILE)
        assert caught.value.code == "not_a_file"
    assert os.path.lexists(file)
    assert outside.read_text() == "precious"


def test_looking(root: Path, file: Path) -> None:
    (root / "etc/net/a").symlink_to("/nowhere")
    assert is_there(str(root), GuestPath("/etc/net/a"))
    assert not is_there(str(root), GuestPath("/etc/net/f/below"))
    assert any_there(str(root), "/x", "/etc/net/f", "/etc/net/a") == "/etc/net/f"
    assert any_there(str(root), "/x") == ""
    assert names_in(str(root), GuestPath("/etc/net")) == ["a", "f"]
    assert names_in(str(root), GuestPath("/etc/net/f")) == names_in(str(root), GuestPath("/x")) == []
    assert link_target(str(root), GuestPath("/etc/net/a")) == "/nowhere"
    assert link_target(str(root), FILE) == link_target(str(root), GuestPath("/x/y")) == ""


def test_looking_does_not_leave_the_root(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/f").touch()
    (root / "out").symlink_to(tmp_path / "outside")
    assert not is_there(str(root), GuestPath("/out/f"))
    assert names_in(str(root), GuestPath("/out")) == []
