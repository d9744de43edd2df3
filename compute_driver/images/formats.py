"""How large a disk an image holds, told from the first bytes of its file: VHD and qcow2.

Sources: Microsoft's "Virtual Hard Disk Image Format Specification", version 1.0 (2006); QEMU's docs/interop/qcow2.
All numbers in both are big-endian.
"""

from __future__ import annotations

import struct

from agent_protocol.outcomes import Refused

from . import DiskFormat

HEAD = 512
"""How many bytes the sizes are in."""

SECTOR = 512
MAX_VHD = 2040 * 1024**3
"""Bytes of the largest disk that xapi takes or gives as VHD."""

MAX_QCOW2 = 16381 * 1024**3
"""Bytes of the largest qcow2 disk of XCP-ng's storage repositories."""

_FIXED, _DYNAMIC, _DIFFERENCING = 2, 3, 4
_FOOTER = struct.Struct(">8sIIQI4sI4sQQIII16sB427x")
_CHECKSUM = 64
_VHD_COOKIE = b"conectix"

_QCOW2 = struct.Struct(">4sIQIIQI")
_QCOW2_MAGIC = b"QFI\xfb"
_QCOW2_INCOMPATIBLE = 72
_BITMAP_OF_KNOWN_FEATURES = 0b11001
"""dirty, compression type, extended L2 entries. Corrupt images (bit 1) and external data files (bit 2) are refused."""


def _bad(reason: str) -> Refused:
    return Refused("bad_image", f"the image is not usable: {reason}")


def disk_size(disk_format: DiskFormat, untrusted_head: bytes, file_size: int) -> int:
    """Bytes of the disk that a file of `file_size` bytes holds; a whole number of sectors.

    untrusted_head: the file's first bytes, HEAD of them if it has so many. Refused when it is none of the format, or
    one that needs other files. What a fixed VHD says of itself is at its end only: check_vhd_end looks at that.
    """
    if disk_format is DiskFormat.RAW:
        if file_size <= 0:
            raise _bad("it is empty")
        return -(-file_size // SECTOR) * SECTOR
    if len(untrusted_head) < HEAD:
        raise _bad("it is too short")
    if disk_format is DiskFormat.QCOW2:
        return _qcow2_size(untrusted_head)
    if untrusted_head[:8] == _VHD_COOKIE:
        kind, size = _footer(untrusted_head[:HEAD])
        if kind != _DYNAMIC:
            raise _bad("its VHD footer is in front, but it is no dynamic disk")
        return size
    size = file_size - HEAD
    if size <= 0 or size % SECTOR or size > MAX_VHD:
        raise _bad("it is neither a dynamic nor a fixed VHD")
    return size


def check_vhd_end(untrusted_head: bytes, untrusted_end: bytes, file_size: int) -> None:
    """Refused unless a VHD ends as it began: whole.

    untrusted_head and untrusted_end: the file's first and last HEAD bytes.
    """
    kind, size = _footer(untrusted_end)
    if untrusted_head[:8] == _VHD_COOKIE:
        if kind != _DYNAMIC or _footer(untrusted_head)[1] != size:
            raise _bad("the VHD footer and its copy differ")
    elif kind != _FIXED or size != file_size - HEAD:
        raise _bad("the VHD is not as large as its footer says")


def _footer(untrusted_footer: bytes) -> tuple[int, int]:
    """Kind and size of the disk."""
    if len(untrusted_footer) != HEAD:
        raise _bad("it is too short")
    fields = _FOOTER.unpack(untrusted_footer)
    cookie, version, size, kind, told = fields[0], fields[2], fields[9], fields[11], fields[12]
    if cookie != _VHD_COOKIE:
        raise _bad("it does not end as a VHD")
    if told != ~(sum(untrusted_footer) - sum(untrusted_footer[_CHECKSUM : _CHECKSUM + 4])) & 0xFFFFFFFF:
        raise _bad("the checksum of its VHD footer is wrong")
    if version >> 16 != 1:
        raise _bad("its version of VHD is unknown")
    if kind == _DIFFERENCING:
        raise _bad("it is a differencing VHD, which needs a parent")
    if kind not in (_FIXED, _DYNAMIC):
        raise _bad("its kind of VHD is unknown")
    if not 0 < size <= MAX_VHD or size % SECTOR:
        raise _bad("the size of its disk is impossible")
    return int(kind), int(size)


def _qcow2_size(untrusted_head: bytes) -> int:
    magic, version, backing, _, _, size, encryption = _QCOW2.unpack_from(untrusted_head)
    if magic != _QCOW2_MAGIC:
        raise _bad("it is not qcow2")
    if version not in (2, 3):
        raise _bad("its version of qcow2 is unknown")
    if backing:
        raise _bad("it needs a backing file")
    if encryption:
        raise _bad("it is encrypted")
    if version == 3:
        (features,) = struct.unpack_from(">Q", untrusted_head, _QCOW2_INCOMPATIBLE)
        if features & ~_BITMAP_OF_KNOWN_FEATURES:
            raise _bad("it has features of qcow2 that are unknown, or needs a data file")
    if not 0 < size <= MAX_QCOW2 or size % SECTOR:
        raise _bad("the size of its disk is impossible")
    return int(size)
