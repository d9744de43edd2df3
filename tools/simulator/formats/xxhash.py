"""XXH64, the checksum of the blocks in archives of newer hosts.

Source: the specification "XXH64 algorithm description" of the xxHash project. Numbers are little-endian.
"""

from __future__ import annotations

import struct

_P1, _P2, _P3, _P4, _P5 = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)
_MASK = 0xFFFFFFFFFFFFFFFF


def _rotated(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (64 - bits))) & _MASK


def _round(accumulator: int, lane: int) -> int:
    return _rotated((accumulator + lane * _P2) & _MASK, 31) * _P1 & _MASK


def xxh64(data: bytes, seed: int = 0) -> int:
    """The checksum of `data`. Slow: a tenth of a second a MiB."""
    position = 0
    if len(data) >= 32:
        lanes = [(seed + _P1 + _P2) & _MASK, (seed + _P2) & _MASK, seed, (seed - _P1) & _MASK]
        one, two, three, four = lanes
        position = len(data) // 32 * 32
        for a, b, c, d in struct.iter_unpack("<4Q", memoryview(data)[:position]):
            one, two, three, four = _round(one, a), _round(two, b), _round(three, c), _round(four, d)
        result = (_rotated(one, 1) + _rotated(two, 7) + _rotated(three, 12) + _rotated(four, 18)) & _MASK
        for lane in (one, two, three, four):
            result = ((result ^ _round(0, lane)) * _P1 + _P4) & _MASK
    else:
        result = (seed + _P5) & _MASK
    result = (result + len(data)) & _MASK
    while position + 8 <= len(data):
        (lane,) = struct.unpack_from("<Q", data, position)
        result = (_rotated(result ^ _round(0, lane), 27) * _P1 + _P4) & _MASK
        position += 8
    if position + 4 <= len(data):
        (half,) = struct.unpack_from("<I", data, position)
        result = (_rotated(result ^ (half * _P1 & _MASK), 23) * _P2 + _P3) & _MASK
        position += 4
    for byte in data[position:]:
        result = _rotated(result ^ (byte * _P5 & _MASK), 11) * _P1 & _MASK
    result = (result ^ (result >> 33)) * _P2 & _MASK
    result = (result ^ (result >> 29)) * _P3 & _MASK
    return result ^ (result >> 32)
