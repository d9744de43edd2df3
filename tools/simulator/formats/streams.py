"""What all formats are read from: bytes that come once, in order, from somebody who is not to be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable, NamedTuple

PIECE = 1024 * 1024
"""How many bytes are taken at a time, where a format does not say."""


class FormatError(ValueError):
    """The bytes are not an image of the format; the message says what is wrong, and holds none of them."""


class EndedEarlyError(FormatError):
    """The bytes end in the middle."""

    def __init__(self) -> None:
        super().__init__("the image ends in the middle")


class Extent(NamedTuple):
    """Bytes of a disk, and where they begin."""

    offset: int
    data: bytes


Read = Callable[[int], bytes]
"""Gives at most that many bytes, and none only at the end, as the `read` of a file does."""

Image = Iterator[Extent]
"""The content of a disk: what it does not mention is zero. In no order that one could count on."""


class Source:
    """Bytes that come once, and how many of them came.

    read: where they come from.
    length: how many there are, in bytes, when it is known; what follows them is not touched.
    """

    def __init__(self, read: Read, length: int | None = None) -> None:
        self._read = read
        self.length = length
        self.position = 0

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none only at the end."""
        if self.length is not None:
            size = min(size, self.length - self.position)
        data = self._read(size) if size > 0 else b""
        self.position += len(data)
        return data

    def exactly(self, size: int) -> bytes:
        """`size` bytes. EndedEarlyError when there are fewer."""
        pieces = []
        while size > 0:
            piece = self.read(min(size, PIECE))
            if not piece:
                raise EndedEarlyError
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def skip_to(self, position: int) -> None:
        """Throw away what is before `position`. FormatError when that lies behind, or beyond the end."""
        if position < self.position:
            raise FormatError("the image cannot be read in one go")
        while self.position < position:
            if not self.read(min(PIECE, position - self.position)):
                raise EndedEarlyError

    def drain(self) -> None:
        """Throw away what is left of a known length: a client that is not heard out takes that for a failure."""
        while self.length is not None and self.read(PIECE):
            pass
