"""Reads a VHD file as it comes, without ever going back."""

from __future__ import annotations

import array
import sys

from .streams import PIECE, EndedEarlyError, Extent, FormatError, Image, Source
from .vhd import FIXED, FOOTER_SIZE, HEADER_SIZE, SECTOR, UNUSED, Footer, Header

_BITS_OF_ALL = b"\xff"


def read_vhd(source: Source) -> Image:
    """The disk in a VHD file: fixed, dynamic, or what differs of a differencing one.

    Only what the file holds is given; of a dynamic disk, the rest is zero. FormatError, possibly after much has been
    given, when the file is not right in every part that matters: its checksums, its sizes, its end.
    """
    start = source.exactly(FOOTER_SIZE)
    try:
        footer = Footer.decode(start)
    except FormatError:
        if start[:8] == b"conectix":
            raise
        # A fixed disk begins with its content: what it is, only its last sector says.
        yield from _read_fixed(source, start)
        return
    if footer.kind == FIXED:
        raise FormatError("a fixed disk with the footer in front")
    yield from _read_dynamic(source, footer)


def _read_fixed(source: Source, held: bytes) -> Image:
    offset = 0
    while True:
        piece = source.read(PIECE)
        held += piece
        if not piece:
            break
        # The last bytes may be the footer, until more come.
        ready = len(held) - FOOTER_SIZE
        if ready > 0:
            yield Extent(offset, held[:ready])
            offset += ready
            held = held[ready:]
    footer = Footer.decode(held)
    if footer.kind != FIXED:
        raise FormatError("the beginning of the file is missing")
    if footer.size != offset:
        raise FormatError("the disk is not as large as its footer says")


def _read_dynamic(source: Source, footer: Footer) -> Image:
    source.skip_to(footer.header)
    header = Header.decode(source.exactly(HEADER_SIZE), footer.size)
    source.skip_to(header.table)
    for place, number in _blocks(header, source):
        source.skip_to(place)
        bitmap = source.exactly(header.bitmap)
        data = source.exactly(header.block)
        offset = number * header.block
        # A block at the disk's end may reach beyond it.
        data = data[: max(0, footer.size - offset)]
        yield from _present(bitmap, offset, data)
    _read_end(source, footer)


def _blocks(header: Header, source: Source) -> list[tuple[int, int]]:
    """Place in the file and number of each block that is there, in the file's order. FormatError when they overlap."""
    table = array.array("I", source.exactly(4 * header.entries))
    if sys.byteorder == "little":
        table.byteswap()
    blocks = sorted((entry * SECTOR, number) for number, entry in enumerate(table) if entry != UNUSED)
    end = source.position
    for place, _ in blocks:
        if place < end:
            raise FormatError("blocks overlap, or lie within the table")
        end = place + header.bitmap + header.block
    return blocks


def _present(bitmap: bytes, offset: int, data: bytes) -> Image:
    """The sectors of a block whose bits are set."""
    sectors = -(-len(data) // SECTOR)
    whole = sectors // 8
    if bitmap[:whole] == _BITS_OF_ALL * whole and sectors % 8 == 0:
        if data:
            yield Extent(offset, data)
        return
    begin: int | None = None
    for sector in range(sectors + 1):
        present = sector < sectors and bitmap[sector // 8] & (0x80 >> sector % 8)
        if present and begin is None:
            begin = sector
        elif not present and begin is not None:
            yield Extent(offset + begin * SECTOR, data[begin * SECTOR : sector * SECTOR])
            begin = None


def _read_end(source: Source, footer: Footer) -> None:
    # Between the last block and the footer there may be what some writers leave there; nobody needs it.
    last = b""
    while True:
        piece = source.read(PIECE)
        if not piece:
            break
        last = (last + piece)[-FOOTER_SIZE:]
    if len(last) < FOOTER_SIZE:
        raise EndedEarlyError
    end = Footer.decode(last)
    if (end.kind, end.size, end.uuid) != (footer.kind, footer.size, footer.uuid):
        raise FormatError("the footer and its copy differ")
