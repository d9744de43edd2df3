from __future__ import annotations

import errno
import os
import socket
import stat
import struct
import tempfile
from pathlib import Path
from typing import Any

import pytest

from agent_protocol.outcomes import Failed, Refused
from guest_agent.system.accounts import Owner
from guest_agent.system.files import read_file, write_file
from guest_agent.system.paths import GuestPath

from ..conftest import names


def put(root: Path, path: str, content: bytes = b"new", **options: object) -> None:
    write_file(str(root), GuestPath(path), content, **options)  # type: ignore[arg-type]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_file_and_its_directories(tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        put(tmp_path, "/a/b/c", bytes(range(256)) * 5000)
    finally:
        os.umask(umask)
    assert (tmp_path / "a/b/c").read_bytes() == bytes(range(256)) * 5000
    assert mode_of(tmp_path / "a/b/c") == 0o600
    assert (mode_of(tmp_path / "a"), mode_of(tmp_path / "a/b")) == (0o755, 0o755)
    assert names(tmp_path / "a/b") == ["c"]


def test_mode_is_kept_or_given(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old content that is longer")
    (tmp_path / "f").chmod(0o4751)
    put(tmp_path, "/f")
    assert ((tmp_path / "f").read_bytes(), mode_of(tmp_path / "f")) == (b"new", 0o4751)
    put(tmp_path, "/f", mode=0o640)
    assert mode_of(tmp_path / "f") == 0o640


def test_owner_is_kept_or_given(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only the superuser can give files away")
    (tmp_path / "f").touch()
    os.chown(tmp_path / "f", 12, 34)
    put(tmp_path, "/f", mode=0o4711)
    assert ((tmp_path / "f").stat().st_uid, (tmp_path / "f").stat().st_gid) == (12, 34)
    assert mode_of(tmp_path / "f") == 0o4711
    put(tmp_path, "/f", owner=Owner(56, 78))
    assert ((tmp_path / "f").stat().st_uid, (tmp_path / "f").stat().st_gid) == (56, 78)


def test_readers_see_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    with (tmp_path / "f").open("rb") as reader:
        put(tmp_path, "/f")
        assert reader.read() == b"old"


@pytest.mark.parametrize("kind", ["directory", "symlink", "dangling", "fifo", "socket"])
def test_anything_but_a_file_is_refused(kind: str) -> None:
    with tempfile.TemporaryDirectory(prefix="f") as directory:
        root = Path(directory)
        (root / "real").write_bytes(b"real")
        target = root / "f"
        if kind == "directory":
            target.mkdir()
        elif kind == "fifo":
            os.mkfifo(target)
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(target))
        else:
            target.symlink_to("real" if kind == "symlink" else "nowhere")
        with pytest.raises(Refused, match="not a regular file") as caught:
            put(root, "/f")
        assert caught.value.code == "not_a_file"
        with pytest.raises(Refused, match="not a regular file"):
            read_file(str(root), GuestPath("/f"))
        assert (root / "real").read_bytes() == b"real"
        assert names(root) == ["f", "real"]


@pytest.mark.parametrize("call", ["write", "fchmod", "fsync", "rename"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_failures_leave_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    (tmp_path / "f").write_bytes(b"old")

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(Failed) as caught:
        put(tmp_path, "/f")
    name = errno.errorcode[number]
    assert caught.value.code == name.lower()
    assert caught.value.message.startswith(name + ": ")
    assert names(tmp_path) == ["f"]
    assert (tmp_path / "f").read_bytes() == b"old"


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    put(tmp_path, "/f", b"0123456789")
    assert (tmp_path / "f").read_bytes() == b"0123456789"


def test_file_and_directory_are_synced_around_the_new_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, rename, fchmod, link = os.fsync, os.rename, os.fchmod, os.link

    def noted_fsync(descriptor: int) -> None:
        steps.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def noted_rename(*arguments: Any, **options: Any) -> None:
        steps.append("rename")
        rename(*arguments, **options)

    def noted_link(source: str, name: str, **options: Any) -> None:
        steps.append("hidden name" if name.startswith(".xenward-") else "name")
        link(source, name, **options)

    def noted_fchmod(descriptor: int, mode: int) -> None:
        steps.append("mode")
        fchmod(descriptor, mode)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    monkeypatch.setattr(os, "fchmod", noted_fchmod)
    monkeypatch.setattr(os, "link", noted_link)
    put(tmp_path, "/f")
    assert steps == ["mode", "file", "name", "directory"]
    steps.clear()
    put(tmp_path, "/f")
    assert steps == ["mode", "file", "hidden name", "rename", "directory"]


def test_what_comes_meanwhile_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def somebody_else_writes(descriptor: int) -> None:
        if not (tmp_path / "f").exists():
            (tmp_path / "f").write_text("theirs")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", somebody_else_writes)
    put(tmp_path, "/f")
    assert names(tmp_path) == ["f"]
    assert (tmp_path / "f").read_bytes() == b"new"


def test_missing_files_are_none(tmp_path: Path) -> None:
    assert read_file(str(tmp_path), GuestPath("/f")) is None
    assert read_file(str(tmp_path), GuestPath("/no/directory")) is None


def test_too_large_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guest_agent.system.files.MAX_READ", 3)
    (tmp_path / "f").write_bytes(b"123")
    assert read_file(str(tmp_path), GuestPath("/f")) == b"123"
    (tmp_path / "f").write_bytes(b"1234")
    with pytest.raises(Refused, match="exceeds 3 bytes"):
        read_file(str(tmp_path), GuestPath("/f"))


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(names(Path("/proc/self/fd")))
    (tmp_path / "link").symlink_to("a/../a")
    for path in ("/a/b/c", "/link/b/d", "/a/b/c/d", "/a/b"):
        try:
            put(tmp_path, path)
        except Refused:
            pass
    assert len(names(Path("/proc/self/fd"))) == before


def acl(*users: int) -> bytes:
    """An access control list as the kernel keeps it: rw for the owner and for these users, nothing for others."""
    entries = [
        (1, 6, 2**32 - 1),
        *((2, 6, user) for user in users),
        (4, 4, 2**32 - 1),
        (16, 6, 2**32 - 1),
        (32, 0, 2**32 - 1),
    ]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@pytest.mark.services  # needs a file system with access control lists
def test_the_access_control_list_stays(root: Path) -> None:
    name = "system.posix_acl_access"
    (root / "etc/list").write_text("old")
    os.setxattr(root / "etc/list", name, acl(1234))
    write_file(str(root), GuestPath("/etc/list"), b"new")
    assert (root / "etc/list").read_text() == "new"
    assert os.getxattr(root / "etc/list", name) == acl(1234)
    write_file(str(root), GuestPath("/etc/list"), b"newer", mode=0o600)
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(root / "etc/list", name)


@pytest.mark.parametrize("unnamed", [True, False])
def test_what_fails_in_the_middle_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch, unnamed: bool) -> None:
    if not unnamed:
        monkeypatch.setattr("os.path.isdir", lambda path: False)
    (root / "etc/file").write_text("old")
    seen: list[list[str]] = []

    def full(descriptor: int, data: bytes) -> int:
        seen.append(names(root / "etc"))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(Failed) as caught:
        write_file(str(root), GuestPath("/etc/file"), b"new")
    assert caught.value.code == "enospc"
    assert names(root / "etc") == ["file", "group", "passwd", "shadow"]
    assert (root / "etc/file").read_text() == "old"
    # Until it is whole the new content has no name, where that is possible.
    assert any(name.startswith(".xenward-") for name in seen[0]) is not unnamed
