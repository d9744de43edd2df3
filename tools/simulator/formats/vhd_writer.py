"""Writes a disk as a dynamic VHD file, front to back."""

from __future__ import annotations

import array
import sys
import uuid as uuids
from collections.abc import Callable, Iterator, Sequence

from .vhd import (
    BLOCK,
    DIFFERENCING,
    DYNAMIC,
    FOOTER_SIZE,
    HEADER_SIZE,
    MAX_SIZE,
    SECTOR,
    UNUSED,
    Footer,
    Header,
)


def write_vhd(
    size: int,
    blocks: Sequence[int],
    read: Callable[[int, int], bytes],
    uuid: uuids.UUID,
    parent: tuple[uuids.UUID, str] | None = None,
) -> Iterator[bytes]:
    """The file, piece by piece.

    size: of the disk, in bytes: whole sectors, at most MAX_SIZE; ValueError otherwise.
    blocks: the numbers of the blocks of 2 MiB that the file shall hold, ascending.
    read: gives bytes of the disk from an offset.
    parent: uuid and name of the disk that this one only tells the differences from.
    """
    if not 0 < size <= MAX_SIZE or size % SECTOR:
        raise ValueError("no VHD file can hold a disk of this size")
    footer = Footer(DYNAMIC if parent is None else DIFFERENCING, size, uuid).encode()
    header = Header(FOOTER_SIZE + HEADER_SIZE, -(-size // BLOCK), parent=parent)
    table = array.array("I", [UNUSED]) * (header.table_size // 4)
    place = header.table + header.table_size
    for number in blocks:
        table[number] = place // SECTOR
        place += header.bitmap + BLOCK
    if sys.byteorder == "little":
        table.byteswap()
    yield footer + header.encode()
    yield table.tobytes()
    bitmap = b"\xff" * header.bitmap
    for number in blocks:
        yield bitmap
        offset = number * BLOCK
        yield read(offset, min(BLOCK, size - offset)).ljust(BLOCK, b"\0")
    yield footer
