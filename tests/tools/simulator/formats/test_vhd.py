"""VHD files: what is written can be read, and what is broken is refused."""

from __future__ import annotations

import io
import os
import struct
import uuid as uuids
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.simulator.formats.streams import EndedEarlyError, FormatError, Source
from tools.simulator.formats.vhd import (
    BLOCK,
    DYNAMIC,
    FIXED,
    FOOTER_SIZE,
    HEADER_SIZE,
    MAX_SIZE,
    Footer,
    Header,
    checksum,
    geometry,
)
from tools.simulator.formats.vhd_reader import read_vhd
from tools.simulator.formats.vhd_writer import write_vhd

MIB = 1024 * 1024
UUID = uuids.UUID(int=7)


def write(content: bytes, blocks: list[int]) -> bytes:
    def read(offset: int, length: int) -> bytes:
        return content[offset : offset + length]

    return b"".join(write_vhd(len(content), blocks, read, UUID))


def read(image: bytes, size: int, piece: int = 1 << 30) -> bytes:
    """The disk in an image that comes in pieces of at most `piece` bytes."""
    stream = io.BytesIO(image)
    content = bytearray(size)
    for offset, data in read_vhd(Source(lambda wanted: stream.read(min(wanted, piece)))):
        assert offset + len(data) <= size
        content[offset : offset + len(data)] = data
    return bytes(content)


def footer_of(content: bytes, kind: int = FIXED) -> bytes:
    return Footer(kind, len(content), UUID).encode()


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3 * BLOCK // 512).map(lambda sectors: sectors * 512),
    st.lists(st.tuples(st.integers(0, 3 * BLOCK), st.binary(min_size=1, max_size=600)), max_size=5),
    st.sampled_from([511, 4096, 1 << 30]),
)
def test_dynamic_there_and_back(size: int, writes: list[tuple[int, bytes]], piece: int) -> None:
    content = bytearray(size)
    for offset, data in writes:
        offset %= size
        content[offset : offset + len(data)] = data[: size - offset]
    blocks = [number for number in range(-(-size // BLOCK)) if any(content[number * BLOCK : (number + 1) * BLOCK])]
    image = write(bytes(content), blocks)
    assert len(image) < 4 * 1024 + len(blocks) * (BLOCK + 512)
    assert read(image, size, piece) == content


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5000).map(lambda sectors: sectors * 512), st.sampled_from([511, 4096, 1 << 30]))
def test_fixed(size: int, piece: int) -> None:
    content = os.urandom(size)
    assert read(content + footer_of(content), size, piece) == content


def test_geometry_of_known_sizes() -> None:
    # From the specification's table of limits: the sizes at which another number of sectors is taken.
    assert geometry(8 * MIB) == (240, 4, 17)
    assert geometry(2040 * 1024 * MIB) == (65535, 16, 255)
    cylinders, heads, sectors = geometry(4 * 1024 * MIB)
    assert heads == 16
    assert 0.98 < cylinders * heads * sectors * 512 / (4 * 1024 * MIB) <= 1


def test_checksum_leaves_itself_out() -> None:
    footer = footer_of(bytes(512))
    assert (
        struct.unpack_from(">I", footer, 64)[0]
        == checksum(footer, 64)
        == checksum(footer[:64] + b"abcd" + footer[68:], 64)
    )


IMAGE = write(os.urandom(BLOCK) + bytes(BLOCK) + os.urandom(BLOCK), [0, 2])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(IMAGE) - 1))
def test_truncated(length: int) -> None:
    with pytest.raises(FormatError):
        read(IMAGE[:length], 3 * BLOCK)


METADATA = [*range(FOOTER_SIZE + HEADER_SIZE + 512), *range(len(IMAGE) - FOOTER_SIZE, len(IMAGE))]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(METADATA), st.integers(0, 255)), min_size=1, max_size=4))
def test_corrupted(changes: list[tuple[int, int]]) -> None:
    image = bytearray(IMAGE)
    for position, value in changes:
        image[position] = value
    try:
        extents = [(offset, len(data)) for offset, data in read_vhd(Source(io.BytesIO(image).read))]
    except FormatError:
        return
    # What has no checksum is the table, where entries may change places or point nowhere.
    footers = [slice(0, FOOTER_SIZE + HEADER_SIZE), slice(len(IMAGE) - FOOTER_SIZE, None)]
    assert all(image[part] == IMAGE[part] for part in footers)
    assert all(offset >= 0 and offset + length <= 3 * BLOCK for offset, length in extents)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000))
def test_noise(noise: bytes) -> None:
    with pytest.raises(FormatError):
        read(noise, 1 << 20)
    with pytest.raises(FormatError):
        read(IMAGE[:FOOTER_SIZE] + noise, 3 * BLOCK)


def signed(structure: bytes, position: int) -> bytes:
    return structure[:position] + struct.pack(">I", checksum(structure, position)) + structure[position + 4 :]


def change(position: int, data: bytes) -> Callable[[bytes], bytes]:
    return lambda structure: structure[:position] + data + structure[position + len(data) :]


@pytest.mark.parametrize(
    ("position", "data"),
    [
        (12, b"\0\2"),
        (16, struct.pack(">Q", 0)),
        (16, struct.pack(">Q", 1 << 60)),
        (48, struct.pack(">Q", 0)),
        (48, struct.pack(">Q", 513)),
        (48, struct.pack(">Q", MAX_SIZE + 512)),
        (60, struct.pack(">I", 9)),
    ],
)
def test_impossible_footers(position: int, data: bytes) -> None:
    footer = signed(change(position, data)(IMAGE[:FOOTER_SIZE]), 64)
    with pytest.raises(FormatError):
        read(footer + IMAGE[FOOTER_SIZE:], 3 * BLOCK)


@pytest.mark.parametrize(
    ("position", "data"),
    [
        (16, struct.pack(">Q", 0)),
        (16, struct.pack(">Q", 1 << 62)),
        (24, b"\0\2"),
        (28, struct.pack(">I", 2)),
        (28, struct.pack(">I", 0xFFFFFFFF)),
        (32, struct.pack(">I", 0)),
        (32, struct.pack(">I", 3 * MIB)),
        (32, struct.pack(">I", 512)),
        (32, struct.pack(">I", 1 << 31)),
    ],
)
def test_impossible_headers(position: int, data: bytes) -> None:
    end = FOOTER_SIZE + HEADER_SIZE
    header = signed(change(position, data)(IMAGE[FOOTER_SIZE:end]), 36)
    with pytest.raises(FormatError):
        read(IMAGE[:FOOTER_SIZE] + header + IMAGE[end:], 3 * BLOCK)


def test_overlapping_blocks() -> None:
    table = FOOTER_SIZE + HEADER_SIZE
    first = IMAGE[table : table + 4]
    with pytest.raises(FormatError, match="overlap"):
        read(IMAGE[:table] + first * 3 + IMAGE[table + 12 :], 3 * BLOCK)


def test_a_footer_that_lies_about_a_fixed_disk() -> None:
    content = os.urandom(2048)
    with pytest.raises(FormatError):
        read(content + footer_of(content[:512]), 2048)
    with pytest.raises(FormatError):
        read(content + footer_of(content, DYNAMIC), 2048)


def test_only_what_is_marked_present_is_given() -> None:
    bitmap = FOOTER_SIZE + HEADER_SIZE + 512
    image = IMAGE[:bitmap] + b"\x80\x00\x01" + bytes(509) + IMAGE[bitmap + 512 :]
    extents = list(read_vhd(Source(io.BytesIO(image).read)))
    assert [(offset, len(data)) for offset, data in extents] == [(0, 512), (23 * 512, 512), (2 * BLOCK, BLOCK)]


def test_sizes_that_no_file_can_hold() -> None:
    for size in (0, 513, MAX_SIZE + 512):
        with pytest.raises(ValueError, match="no VHD file"):
            next(write_vhd(size, [], lambda *_: b"", UUID))
    with pytest.raises(FormatError):
        Header.decode(Header(1536, 1).encode(), 3 * BLOCK)
    assert issubclass(EndedEarlyError, FormatError)


def test_the_largest_disk_takes_little_memory() -> None:
    pieces = list(write_vhd(MAX_SIZE, [], lambda *_: b"", UUID))
    assert sum(map(len, pieces)) < 5 * MIB
    assert list(read_vhd(Source(io.BytesIO(b"".join(pieces)).read))) == []


@pytest.mark.services
def test_qemu_reads_what_is_written(qemu_img: Callable[..., str], tmp_path: Path) -> None:
    content = os.urandom(BLOCK) + bytes(2 * BLOCK) + os.urandom(BLOCK // 2)
    raw, image = tmp_path / "raw", tmp_path / "image"
    raw.write_bytes(content)
    image.write_bytes(write(content, [0, 3]))
    compared = qemu_img("compare", "-f", "raw", "-F", "vpc", str(raw), str(image))
    assert "Images are identical" in compared
    assert f'"virtual-size": {len(content)}' in qemu_img("info", "--output=json", "-f", "vpc", str(image))


@pytest.mark.services
@pytest.mark.parametrize(
    "options", ["subformat=dynamic,force_size=on", "subformat=fixed,force_size=on", "subformat=dynamic"]
)
def test_what_qemu_writes_is_read(qemu_img: Callable[..., str], tmp_path: Path, options: str) -> None:
    content = os.urandom(BLOCK) + bytes(2 * BLOCK) + os.urandom(BLOCK // 2) + bytes(BLOCK)
    raw, image = tmp_path / "raw", tmp_path / "image"
    raw.write_bytes(content)
    qemu_img("convert", "-f", "raw", "-O", "vpc", "-o", options, str(raw), str(image))
    # Without force_size qemu rounds the size up to whole cylinders.
    assert read(image.read_bytes(), len(content) + 2 * MIB).rstrip(b"\0") == content.rstrip(b"\0")
