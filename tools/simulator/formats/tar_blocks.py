"""Disks as xapi keeps them in archives: a file a MiB, numbered, each followed by a file with its checksum.

Source: ocaml/xapi/stream_vdi.ml. A block that is not there is zero; the first and the last are always there. Of the
two kinds of checksums that every current host reads, what is written here is the older, a SHA-1, which Python computes
much faster; both are read.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from .streams import EndedEarlyError, Extent, FormatError, Image, Source
from .xxhash import xxh64

BLOCK = 1024 * 1024
TAR_RECORD = 512

MAX_MEMBER = 64 * 1024 * 1024
"""Bytes of the largest file in an archive: that with the records, of which nobody has so many."""

_NAME = re.compile(r"(?P<directory>[^/]+)/(?P<number>[0-9]{8,10})(?P<sum>\.checksum|\.xxhash)?\Z")


class ChecksumError(FormatError):
    """A block is not what was sent."""


class Member(NamedTuple):
    """A file of an archive."""

    name: str
    data: bytes


def read_members(source: Source) -> Iterator[Member]:
    """All files of an archive, in order. FormatError when it ends early, or is none."""
    while True:
        record = source.exactly(TAR_RECORD)
        if record == bytes(TAR_RECORD):
            return
        try:
            head = tarfile.TarInfo.frombuf(record, "utf-8", "replace")
        except tarfile.HeaderError as error:
            raise FormatError("not a tar archive") from error
        if not head.isreg() or not 0 <= head.size <= MAX_MEMBER:
            raise FormatError("what is in the archive does not belong there")
        data = source.exactly(head.size)
        source.exactly(-head.size % TAR_RECORD)
        yield Member(head.name, data)


def write_member(name: str, data: bytes) -> bytes:
    """A file of an archive, with its head."""
    head = tarfile.TarInfo(name)
    head.size = len(data)
    return head.tobuf(tarfile.USTAR_FORMAT, "utf-8") + data + bytes(-len(data) % TAR_RECORD)


def write_end() -> bytes:
    """The end of an archive."""
    return bytes(2 * TAR_RECORD)


def write_blocks(
    directory: str, size: int, blocks: Sequence[int], read: Callable[[int, int], bytes]
) -> Iterator[bytes]:
    """A disk of `size` bytes; `blocks` are the numbers of those that may hold something."""
    last = max(0, (size - 1) // BLOCK)
    for number in sorted({0, last, *blocks}):
        data = read(number * BLOCK, min(BLOCK, size - number * BLOCK))
        name = f"{directory}/{number:08d}"
        yield write_member(name, data)
        checksum = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        yield write_member(f"{name}.checksum", checksum.encode("ascii"))


class Block(NamedTuple):
    """A block that was checked: of which disk, and where there."""

    directory: str
    extent: Extent


def blocks_of(members: Iterator[Member], sizes: Mapping[str, int]) -> Iterator[Block]:
    """The blocks of several disks, by the archive's directories. Each is checked before it is given.

    FormatError for a wrong or missing checksum, a block beyond its disk's end, or a disk whose last block is missing.
    """
    waiting: Member | None = None
    unfinished = {directory for directory, size in sizes.items() if size > 0}
    for member in members:
        match = _NAME.match(member.name)
        if match is None or match["directory"] not in sizes:
            raise FormatError("what is in the archive does not belong there")
        if match["sum"] is None:
            if waiting is not None:
                raise FormatError("a block has no checksum")
            waiting = member
            continue
        if waiting is None or member.name != waiting.name + match["sum"]:
            raise FormatError("a checksum belongs to no block")
        if member.data.decode("ascii", "replace").strip().lower() != _checksum(waiting.data, match["sum"]):
            raise ChecksumError("the checksum of a block is wrong")
        offset, size = int(match["number"]) * BLOCK, sizes[match["directory"]]
        if offset + len(waiting.data) > size:
            raise FormatError("a block lies beyond the end of its disk")
        if offset + BLOCK >= size and waiting.data:
            unfinished.discard(match["directory"])
        # Without data it was only sent to keep the connection busy.
        if waiting.data:
            yield Block(match["directory"], Extent(offset, waiting.data))
        waiting = None
    if waiting is not None or unfinished:
        raise EndedEarlyError


def _checksum(data: bytes, kind: str) -> str:
    if kind == ".xxhash":
        return f"{xxh64(data):016x}"
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def read_blocks(source: Source, sizes: Mapping[str, int]) -> Image:
    """The only disk of an archive. FormatError as of blocks_of()."""
    for block in blocks_of(read_members(source), sizes):
        yield block.extent
