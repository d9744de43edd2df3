from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.outcomes import Failed
from guest_agent.system.mounts import Mount, file_systems, freezing_order, parse_mountinfo


def escaped(text: str) -> bytes:
    return b"".join(b"\\%03o" % byte if byte in b" \t\n\\#" else bytes([byte]) for byte in os.fsencode(text))


def line(mount: Mount, optional: str = "") -> bytes:
    writable = b"rw" if mount.writable else b"ro"
    return b" ".join(
        [
            b"%d 1" % mount.mount_id,
            mount.device.encode(),
            escaped(mount.root),
            escaped(mount.mount_point),
            b"rw,relatime" + (b" " + optional.encode() if optional else b""),
            b"-",
            escaped(mount.kind),
            escaped(mount.source),
            writable + b",errors=continue",
        ]
    )


names_of_files = st.binary(max_size=20).filter(lambda name: b"\0" not in name).map(os.fsdecode)
paths = names_of_files.map(lambda name: "/" + name)
some_mounts = st.builds(
    Mount,
    st.integers(0, 10**9),
    st.tuples(st.integers(0, 4095), st.integers(0, 2**20)).map(lambda pair: f"{pair[0]}:{pair[1]}"),
    paths,
    paths,
    st.sampled_from(["ext4", "fuse.sshfs", "xfs"]),
    names_of_files,
    st.booleans(),
)


@given(st.lists(st.tuples(some_mounts, st.sampled_from(["", "shared:1", "master:1 propagate_from:2", "-x"]))))
def test_every_list_that_the_kernel_can_write_is_understood(entries: list[tuple[Mount, str]]) -> None:
    content = b"".join(line(mount, optional) + b"\n" for mount, optional in entries)
    assert parse_mountinfo(content) == [mount for mount, _ in entries]


@given(st.binary())
def test_anything_else_fails_honestly(content: bytes) -> None:
    with contextlib.suppress(Failed):
        parse_mountinfo(content)


def test_a_line_that_is_not_understood_is_no_file_system_less() -> None:
    with pytest.raises(Failed) as caught:
        parse_mountinfo(b"1 1 8:1 / / rw - ext4 /dev/sda1 rw\n1 1 8:2 / relative rw - ext4 /dev/sda2 rw\n")
    assert caught.value.code == "bad_mountinfo"


def mount(device: str, point: str, kind: str = "ext4", source: str = "/dev/x", **other: Any) -> Mount:
    members = {"mount_id": 1, "root": "/", "writable": True, **other}
    return Mount(device=device, mount_point=point, kind=kind, source=source, **members)


def test_what_lies_on_a_disk_and_can_be_written() -> None:
    found = file_systems(
        [
            mount("0:5", "/proc", "proc", "proc"),
            mount("0:6", "/dev", "devtmpfs", "udev"),
            mount("8:1", "/piece", root="/etc"),
            mount("8:1", "/"),
            mount("0:40", "/btrfs", "btrfs", "/dev/sdb", root="/@"),
            mount("0:41", "/nfs", "nfs4", "server:/dev/x"),
            mount("0:42", "/smb", "cifs", "//server/share"),
            mount("0:43", "/portal", "fuse.portal", "/dev/fuse"),
            mount("0:44", "/overlay", "overlay", "overlay"),
            mount("7:1", "/snap", "squashfs", writable=False),
            mount("8:1", "/bound", root="/srv"),
            mount("0:45", "/tank", "zfs", "tank"),
            mount("8:17", "/shared", "gfs2"),
        ]
    )
    assert [(system.name, system.device, system.is_left_alone) for system in found] == [
        ("/", "8:1", False),
        ("/btrfs", "0:40", False),
        ("/tank", "0:45", True),
        ("/shared", "8:17", True),
    ]
    assert [entry.mount_point for entry in found[0].mounts] == ["/", "/piece", "/bound"]


def test_a_name_that_is_no_text_can_be_told() -> None:
    (system,) = file_systems([mount("8:1", os.fsdecode(b"/\xff\xc3\xa9"))])
    assert system.name.encode("utf-8") == b"/\\xff\xc3\xa9"


def test_the_last_mounted_goes_first(tmp_path: Path) -> None:
    mounts = [mount("8:1", "/"), mount("8:2", "/var"), mount("8:3", "/var/lib")]
    ordered = freezing_order(file_systems(mounts), mounts, tmp_path)
    assert [system.name for system in ordered] == ["/var/lib", "/var", "/"]


def test_what_lies_in_a_file_goes_before_the_file(tmp_path: Path) -> None:
    # /image, a partition of a loop device, through a device mapper, lies in /data, which was moved there later.
    block = tmp_path / "dev/block"
    disk = tmp_path / "devices/loop0"
    (disk / "loop0p1").mkdir(parents=True)
    (disk / "loop").mkdir()
    (disk / "loop/backing_file").write_text("/data/disk.img\n")
    (tmp_path / "devices/dm-0/slaves/loop0p1").mkdir(parents=True)
    (tmp_path / "devices/dm-0/slaves/loop0p1/dev").write_text("259:1\n")
    block.mkdir(parents=True)
    (block / "253:0").symlink_to("../../devices/dm-0")
    (block / "259:1").symlink_to("../../devices/loop0/loop0p1")
    mounts = [mount("8:1", "/"), mount("253:0", "/image"), mount("8:9", "/database"), mount("8:2", "/data")]
    ordered = freezing_order(file_systems(mounts), mounts, tmp_path)
    assert [system.name for system in ordered] == ["/image", "/data", "/database", "/"]
