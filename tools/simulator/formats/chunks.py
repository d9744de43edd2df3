"""xapi's own way to send a disk in pieces: where each belongs, how long it is, and its bytes.

Source: xapi's ocaml/libs/sparse-encoding, with little-endian numbers; a piece without bytes is the last.
"""

from __future__ import annotations

import struct

from .streams import PIECE, Extent, Image, Source

_HEAD = struct.Struct("<QI")


def read_chunks(source: Source) -> Image:
    """The disk that comes so. EndedEarlyError when it ends before the last piece."""
    while True:
        offset, length = _HEAD.unpack(source.exactly(_HEAD.size))
        if length == 0:
            return
        while length > 0:
            data = source.exactly(min(length, PIECE))
            yield Extent(offset, data)
            offset += len(data)
            length -= len(data)
