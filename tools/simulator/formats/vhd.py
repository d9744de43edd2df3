"""The structures of VHD files: footer, header of a dynamic disk, geometry, checksum.

Source: Microsoft's "Virtual Hard Disk Image Format Specification", version 1.0 (2006). All numbers are big-endian.
"""

from __future__ import annotations

import struct
import time
import uuid as uuids
from dataclasses import dataclass

from .streams import FormatError

SECTOR = 512
FOOTER_SIZE = 512
HEADER_SIZE = 1024

BLOCK = 2 * 1024 * 1024
"""Bytes of a block, where a file does not say otherwise."""

MAX_SIZE = 2040 * 1024**3
"""The largest disk, in bytes: xapi refuses more, as the table of a VHD file could hold little more."""

FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4

UNUSED = 0xFFFFFFFF
"""The entry of a block that is not in the file."""

CREATOR = b"tap\0"
"""What Xen's own tools write as the creator. To some readers it means that the size is exact, whatever the geometry."""

_EPOCH = 946684800
"""1 January 2000 UTC, from which the format counts seconds."""

_FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16sB427x")
_HEADER = struct.Struct(">8sQQIIII16sII512s192s256x")
_FOOTER_COOKIE, _HEADER_COOKIE = b"conectix", b"cxsparse"
_FEATURES = 2
_VERSION = 0x00010000
_NO_OFFSET = 0xFFFFFFFFFFFFFFFF
_CHECKSUM_IN_FOOTER, _CHECKSUM_IN_HEADER = 64, 36
_BLOCK_SIZES = range(512 * 1024, 2 * BLOCK)
"""Blocks of 512 KiB and of 2 MiB are in use, and what is between."""


def geometry(size: int) -> tuple[int, int, int]:
    """Cylinders, heads and sectors per track of a disk with `size` bytes, by the specification's appendix."""
    sectors = min(size // SECTOR, 65535 * 16 * 255)
    if sectors >= 65535 * 16 * 63:
        return sectors // (255 * 16), 16, 255
    per_track = 17
    tracks = sectors // per_track
    heads = max(4, (tracks + 1023) // 1024)
    if tracks >= heads * 1024 or heads > 16:
        per_track, heads = 31, 16
        tracks = sectors // per_track
    if tracks >= heads * 1024:
        per_track, heads = 63, 16
        tracks = sectors // per_track
    return tracks // heads, heads, per_track


def checksum(structure: bytes, position: int) -> int:
    """The complement of the sum of all bytes, but for the checksum itself at `position`."""
    return ~(sum(structure) - sum(structure[position : position + 4])) & 0xFFFFFFFF


@dataclass(frozen=True)
class Footer:
    """What a VHD file says about its disk.

    kind: FIXED, DYNAMIC or DIFFERENCING. size: of the disk, in bytes. header: where the header of a dynamic disk is.
    """

    kind: int
    size: int
    uuid: uuids.UUID
    header: int = FOOTER_SIZE

    def encode(self) -> bytes:
        """The 512 bytes of a file."""
        cylinders, heads, sectors = geometry(self.size)
        footer = _FOOTER.pack(
            _FOOTER_COOKIE,
            _FEATURES,
            _VERSION,
            _NO_OFFSET if self.kind == FIXED else self.header,
            int(time.time()) - _EPOCH,
            CREATOR,
            _VERSION,
            b"\0\0\0\0",
            self.size,
            self.size,
            cylinders,
            heads,
            sectors,
            self.kind,
            0,
            self.uuid.bytes,
            0,
        )
        return _with_checksum(footer, _CHECKSUM_IN_FOOTER)

    @classmethod
    def decode(cls, untrusted_footer: bytes) -> Footer:
        """FormatError when the 512 bytes are no footer of a disk that could be."""
        fields = _FOOTER.unpack(untrusted_footer)
        cookie, version, header, size, kind, identity = (fields[index] for index in (0, 2, 3, 9, 13, 15))
        if cookie != _FOOTER_COOKIE:
            raise FormatError("not a VHD file")
        _check(untrusted_footer, _CHECKSUM_IN_FOOTER, "footer")
        if version >> 16 != 1:
            raise FormatError("unknown VHD version")
        if kind not in (FIXED, DYNAMIC, DIFFERENCING):
            raise FormatError("unknown kind of VHD file")
        if not 0 < size <= MAX_SIZE or size % SECTOR:
            raise FormatError("impossible size of the disk")
        if kind != FIXED and not FOOTER_SIZE <= header <= MAX_SIZE:
            raise FormatError("impossible place of the header")
        return cls(kind, size, uuids.UUID(bytes=identity), header)


@dataclass(frozen=True)
class Header:
    """The header of a dynamic disk.

    table: where the block allocation table is. entries: how many blocks it has. block: bytes of each.
    parent: of a differencing disk, the parent's uuid and name.
    """

    table: int
    entries: int
    block: int = BLOCK
    parent: tuple[uuids.UUID, str] | None = None

    @property
    def bitmap(self) -> int:
        """Bytes of the bitmap before each block: a bit a sector, in whole sectors."""
        return -(-self.block // SECTOR // 8 // SECTOR) * SECTOR

    @property
    def table_size(self) -> int:
        """Bytes of the table, in whole sectors."""
        return -(-4 * self.entries // SECTOR) * SECTOR

    def encode(self) -> bytes:
        """The 1024 bytes of a file."""
        parent, name = self.parent or (uuids.UUID(int=0), "")
        encoded_name = name.encode("utf-16-be").ljust(512, b"\0")
        header = _HEADER.pack(
            _HEADER_COOKIE,
            _NO_OFFSET,
            self.table,
            _VERSION,
            self.entries,
            self.block,
            0,
            parent.bytes,
            0,
            0,
            encoded_name,
            b"",
        )
        return _with_checksum(header, _CHECKSUM_IN_HEADER)

    @classmethod
    def decode(cls, untrusted_header: bytes, size: int) -> Header:
        """FormatError when the 1024 bytes are no header of a disk with `size` bytes."""
        cookie, _, table, version, entries, block = _HEADER.unpack(untrusted_header)[:6]
        if cookie != _HEADER_COOKIE:
            raise FormatError("no header of a dynamic disk")
        _check(untrusted_header, _CHECKSUM_IN_HEADER, "header")
        if version >> 16 != 1:
            raise FormatError("unknown version of the header")
        if block not in _BLOCK_SIZES or block & (block - 1):
            raise FormatError("impossible size of a block")
        needed = -(-size // block)
        # Some writers leave room to grow; more than the largest disk needs is nonsense.
        if not needed <= entries <= max(needed, MAX_SIZE // block + 1):
            raise FormatError("the table does not fit the disk")
        if not HEADER_SIZE <= table <= MAX_SIZE:
            raise FormatError("impossible place of the table")
        return cls(table, entries, block)


def _with_checksum(structure: bytes, position: int) -> bytes:
    return structure[:position] + struct.pack(">I", checksum(structure, position)) + structure[position + 4 :]


def _check(structure: bytes, position: int, name: str) -> None:
    (told,) = struct.unpack_from(">I", structure, position)
    if told != checksum(structure, position):
        raise FormatError(f"wrong checksum of the {name}")
