"""The sizes of disks in images: right for what good tools write, and a plain refusal for everything else."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.outcomes import Refused
from compute_driver.images import DiskFormat
from compute_driver.images.formats import HEAD, MAX_VHD, check_vhd_end, disk_size
from tools.simulator.formats.vhd import DIFFERENCING, DYNAMIC, FIXED, Footer

MIB = 1024**2
SIZE = 4 * MIB


def footer(kind: int = DYNAMIC, size: int = SIZE) -> bytes:
    return Footer(kind, size, uuid.uuid4()).encode()


def qcow2(size: int = SIZE, version: int = 3, backing: int = 0, encryption: int = 0, features: int = 0) -> bytes:
    head = struct.pack(">4sIQIIQI", b"QFI\xfb", version, backing, 0, 16, size, encryption)
    return (head.ljust(72, b"\0") + struct.pack(">Q", features)).ljust(HEAD, b"\0")


def test_the_sizes_of_good_images() -> None:
    assert disk_size(DiskFormat.VHD, footer(), 12345) == SIZE
    assert disk_size(DiskFormat.VHD, bytes(HEAD), SIZE + HEAD) == SIZE
    assert disk_size(DiskFormat.QCOW2, qcow2(), 12345) == SIZE
    assert disk_size(DiskFormat.QCOW2, qcow2(version=2, features=4), 12345) == SIZE
    assert disk_size(DiskFormat.RAW, b"x", 1) == 512
    assert disk_size(DiskFormat.RAW, b"", 1024) == 1024


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (footer(DIFFERENCING), "needs a parent"),
        (footer(FIXED), "no dynamic disk"),
        (footer()[:100], "too short"),
        (footer(size=MAX_VHD + 512), "impossible"),
        (footer()[:80] + b"\xff" + footer()[81:], "checksum"),
        (bytes(HEAD), "neither a dynamic nor a fixed"),
    ],
    ids=range(6),
)
def test_a_vhd_that_is_of_no_use_is_refused(head: bytes, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        disk_size(DiskFormat.VHD, head, SIZE + 1)


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (qcow2(backing=512), "backing file"),
        (qcow2(encryption=1), "encrypted"),
        (qcow2(features=4), "data file"),
        (qcow2(features=2), "unknown"),
        (qcow2(features=1 << 40), "unknown"),
        (qcow2(version=4), "version"),
        (qcow2(size=0), "impossible"),
        (qcow2(size=513), "impossible"),
        (b"QFI\xfa".ljust(HEAD), "not qcow2"),
    ],
    ids=range(9),
)
def test_a_qcow2_that_is_of_no_use_is_refused(head: bytes, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        disk_size(DiskFormat.QCOW2, head, SIZE)


def test_a_vhd_must_end_as_it_began() -> None:
    check_vhd_end(footer(), footer(), 99)
    check_vhd_end(bytes(HEAD), footer(FIXED), SIZE + HEAD)
    for head, end, size in [
        (footer(), footer(size=2 * SIZE), 99),
        (footer(), footer(FIXED), SIZE + HEAD),
        (footer(), bytes(HEAD), 99),
        (footer(), footer()[1:], 99),
        (bytes(HEAD), footer(FIXED), SIZE),
        (bytes(HEAD), footer(), SIZE + HEAD),
    ]:
        with pytest.raises(Refused):
            check_vhd_end(head, end, size)


@given(
    st.sampled_from(DiskFormat),
    st.one_of(
        st.binary(max_size=HEAD),
        st.binary(min_size=HEAD - 8, max_size=HEAD - 8).map(lambda rest: b"conectix" + rest),
        st.binary(min_size=HEAD - 4, max_size=HEAD - 4).map(lambda rest: b"QFI\xfb" + rest),
    ),
    st.integers(min_value=-1, max_value=2**63),
)
def test_any_bytes_have_a_size_or_are_refused(disk_format: DiskFormat, head: bytes, file_size: int) -> None:
    try:
        size = disk_size(disk_format, head, file_size)
    except Refused as refused:
        assert refused.code == "bad_image"
    else:
        assert size > 0
        assert size % 512 == 0


@given(st.data(), st.integers(min_value=1, max_value=MAX_VHD // 512).map(lambda sectors: sectors * 512))
def test_a_changed_bit_of_a_footer_never_changes_the_size(data: st.DataObject, size: int) -> None:
    good = footer(size=size)
    assert disk_size(DiskFormat.VHD, good, 1) == size
    at = data.draw(st.integers(min_value=8, max_value=511))
    changed = bytearray(good)
    changed[at] ^= 1 << data.draw(st.integers(min_value=0, max_value=7))
    with pytest.raises(Refused):
        disk_size(DiskFormat.VHD, bytes(changed), 1)


@given(st.integers(min_value=1, max_value=MAX_VHD // 512).map(lambda sectors: sectors * 512))
def test_qcow2_tells_its_size(size: int) -> None:
    assert disk_size(DiskFormat.QCOW2, qcow2(size), 1) == size


@pytest.mark.services
@pytest.mark.parametrize("options", ["vpc", "vpc,fixed", "qcow2"])
def test_what_qemu_writes_is_understood(qemu_img: Callable[..., str], tmp_path: Path, options: str) -> None:
    kind, _, fixed = options.partition(",")
    extra = ["-o", "force_size=on" + (",subformat=fixed" if fixed else "")] if kind == "vpc" else []
    path = tmp_path / "disk"
    qemu_img("create", "-q", "-f", kind, *extra, str(path), "64M")
    data = path.read_bytes()
    disk_format = DiskFormat.QCOW2 if kind == "qcow2" else DiskFormat.VHD
    assert disk_size(disk_format, data[:HEAD], len(data)) == 64 * MIB
    if disk_format is DiskFormat.VHD:
        check_vhd_end(data[:HEAD], data[-HEAD:], len(data))
