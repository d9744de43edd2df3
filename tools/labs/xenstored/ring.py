"""The page that a guest and the daemon share, as the guest sees it: struct xenstore_domain_interface, io/xs_wire.h."""

from __future__ import annotations

import mmap
from pathlib import Path

SIZE = 1024
"""XENSTORE_RING_SIZE, in bytes, of each direction."""

_PAGE = 4096
_REQUESTS, _RESPONSES, _INDICES = 0, SIZE, 2 * SIZE

_REQ_CONS, _REQ_PROD, _RSP_CONS, _RSP_PROD = range(4)
"""Positions among the indices, each a uint32 that only ever grows, modulo 2**32."""

_MODULUS = 1 << 32


class Ring:
    """A new, empty ring in the file `path`.

    Each index is stored at once and after the bytes that it announces: memoryview stores a native number in one piece,
    and x86 keeps the order of stores.
    """

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(_PAGE))
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), _PAGE)
        self._indices = memoryview(self._page)[_INDICES : _INDICES + 16].cast("I")

    def put(self, data: bytes) -> int:
        """Write as much of a request as there is room for; how many bytes that was."""
        produced = self._indices[_REQ_PROD]
        room = SIZE - (produced - self._indices[_REQ_CONS]) % _MODULUS
        count = min(room, len(data))
        start = produced % SIZE
        first = min(count, SIZE - start)
        self._page[_REQUESTS + start : _REQUESTS + start + first] = data[:first]
        self._page[_REQUESTS : _REQUESTS + count - first] = data[first:count]
        self._indices[_REQ_PROD] = (produced + count) % _MODULUS
        return count

    def take(self) -> bytes:
        """What the daemon has sent since."""
        consumed = self._indices[_RSP_CONS]
        count = (self._indices[_RSP_PROD] - consumed) % _MODULUS
        start = consumed % SIZE
        first = min(count, SIZE - start)
        data = self._page[_RESPONSES + start : _RESPONSES + start + first]
        data += self._page[_RESPONSES : _RESPONSES + count - first]
        self._indices[_RSP_CONS] = (consumed + count) % _MODULUS
        return data

    def close(self) -> None:
        """Unmap the page; the file stays."""
        self._indices.release()
        self._page.close()
