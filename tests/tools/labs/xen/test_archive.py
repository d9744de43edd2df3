"""Archives are what the format says, byte by byte."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from tools.labs.xen.archive import Archive


@dataclass(frozen=True)
class Entry:
    """An entry as it is read back."""

    mode: int
    content: bytes
    device: tuple[int, int]


def entries(data: bytes) -> dict[str, Entry]:
    """A reader of its own, made from the format's description."""
    found: dict[str, Entry] = {}
    position = 0
    while True:
        assert data[position : position + 6] == b"070701"
        fields = [int(data[position + 6 + 8 * n : position + 14 + 8 * n], 16) for n in range(13)]
        mode, uid, gid, size, length = fields[1], fields[2], fields[3], fields[6], fields[11]
        assert (uid, gid) == (0, 0)
        name = data[position + 110 : position + 110 + length - 1].decode()
        begin = -(-(position + 110 + length) // 4) * 4
        if name == "TRAILER!!!":
            assert data[begin:].strip(b"\0") == b""
            return found
        assert name not in found
        found[name] = Entry(mode, data[begin : begin + size], (fields[9], fields[10]))
        position = -(-(begin + size) // 4) * 4


def test_what_is_put_in_comes_out(tmp_path: Path) -> None:
    with Archive(tmp_path / "a") as archive:
        archive.file("init", b"#!/bin/sh\n", 0o755)
        archive.file("/etc/deep/file", b"12345", 0o600)
        archive.character_device("dev/console", 5, 1)
        archive.directory("etc/deep")
        archive.directory("tmp", 0o1777)
    found = entries((tmp_path / "a").read_bytes())
    assert list(found) == ["init", "etc", "etc/deep", "etc/deep/file", "dev", "dev/console", "tmp"]
    assert found["init"] == Entry(stat.S_IFREG | 0o755, b"#!/bin/sh\n", (0, 0))
    assert found["etc/deep/file"] == Entry(stat.S_IFREG | 0o600, b"12345", (0, 0))
    assert found["dev/console"] == Entry(stat.S_IFCHR | 0o600, b"", (5, 1))
    assert found["tmp"].mode == stat.S_IFDIR | 0o1777
    assert (tmp_path / "a").stat().st_size % 512 == 0


def test_a_tree_keeps_its_modes(tmp_path: Path) -> None:
    (tmp_path / "tree/inner").mkdir(parents=True)
    (tmp_path / "tree/inner/program").write_bytes(b"program")
    (tmp_path / "tree/inner/program").chmod(0o750)
    with Archive(tmp_path / "a") as archive:
        archive.tree(tmp_path / "tree", below="layer")
    found = entries((tmp_path / "a").read_bytes())
    assert found["layer/inner/program"] == Entry(stat.S_IFREG | 0o750, b"program", (0, 0))
    assert stat.S_ISDIR(found["layer/inner"].mode)


def test_archives_in_a_row_stay_archives(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with Archive(tmp_path / name) as archive:
            archive.file(name, name.encode())
    first, second = (tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()
    assert (first + second)[len(first) :].startswith(b"070701")
    assert list(entries(second)) == ["b"]
