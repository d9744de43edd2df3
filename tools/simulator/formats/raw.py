"""A disk as it is: its bytes, from the first to the last."""

from __future__ import annotations

from .streams import PIECE, EndedEarlyError, Extent, Image, Source


def read_raw(source: Source) -> Image:
    """The disk that comes so. EndedEarlyError when fewer bytes come than were announced."""
    while True:
        offset = source.position
        data = source.read(PIECE)
        if not data:
            break
        yield Extent(offset, data)
    if source.length is not None and source.position < source.length:
        raise EndedEarlyError
