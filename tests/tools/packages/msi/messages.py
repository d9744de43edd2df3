"""The texts of events in a library of Windows, read as the event viewer finds them.

Source of the layouts: "PE Format" (section table, .rsrc) and winnt.h (MESSAGE_RESOURCE_DATA).
"""

from __future__ import annotations

import struct

_MESSAGE_TABLE = 11
_UNICODE = 1
_SUBDIRECTORY = 0x80000000


def messages(library: bytes) -> dict[int, str]:
    """The text of each event by its id; empty for a library that has none."""
    address, resources = _resources(library)
    found: dict[int, str] = {}
    for kind, names in _entries(resources, 0):
        if kind != _MESSAGE_TABLE:
            continue
        for _, languages in _entries(resources, names & ~_SUBDIRECTORY):
            for _, leaf in _entries(resources, languages & ~_SUBDIRECTORY):
                place, size = struct.unpack_from("<II", resources, leaf)
                found.update(_table(resources[place - address : place - address + size]))
    return found


def _resources(library: bytes) -> tuple[int, bytes]:
    """The address and the content of the section .rsrc."""
    (header,) = struct.unpack_from("<I", library, 0x3C)
    (count,) = struct.unpack_from("<H", library, header + 6)
    (optional,) = struct.unpack_from("<H", library, header + 20)
    for number in range(count):
        section = struct.unpack_from("<8sIIII", library, header + 24 + optional + 40 * number)
        name, _, address, size, offset = section
        if name.rstrip(b"\0") == b".rsrc":
            return address, library[offset : offset + size]
    return 0, bytes(16)


def _entries(resources: bytes, at: int) -> list[tuple[int, int]]:
    named, numbered = struct.unpack_from("<HH", resources, at + 12)
    return [struct.unpack_from("<II", resources, at + 16 + 8 * number) for number in range(named + numbered)]


def _table(table: bytes) -> dict[int, str]:
    found = {}
    (blocks,) = struct.unpack_from("<I", table)
    for number in range(blocks):
        low, high, at = struct.unpack_from("<III", table, 4 + 12 * number)
        for event in range(low, high + 1):
            length, flags = struct.unpack_from("<HH", table, at)
            text = table[at + 4 : at + length].decode("utf-16-le" if flags & _UNICODE else "latin-1")
            found[event] = text.rstrip("\0")
            at += length
    return found
