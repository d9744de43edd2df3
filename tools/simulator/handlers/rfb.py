"""The RFB protocol as the screen of a virtual machine speaks it, without any waiting: bytes in, bytes out.

Source: RFC 6143; for versions 3.3 and 3.7 its appendix.
"""

from __future__ import annotations

import re
import struct
from typing import Callable, NamedTuple

WIDTH, HEIGHT = 720, 400
"""The text screen of a PC, in pixels."""

_VERSION = re.compile(rb"RFB 003\.(00[3-9])\n\Z")
_NO_SECURITY = 1
_RAW = 0
_MAX_TEXT = 1024 * 1024
"""The longest text, in bytes, that a client may put on the clipboard."""


class PixelFormat(NamedTuple):
    """How a pixel becomes bytes. maxima, shifts: of red, green and blue."""

    bits: int
    big_endian: bool
    maxima: tuple[int, int, int]
    shifts: tuple[int, int, int]

    def encode(self, colour: tuple[int, int, int]) -> bytes:
        """The bytes of a colour, whose parts are 0 to 255."""
        value = 0
        for part, maximum, shift in zip(colour, self.maxima, self.shifts):
            value |= (part * maximum // 255) << shift
        return (value & ((1 << self.bits) - 1)).to_bytes(self.bits // 8, "big" if self.big_endian else "little")


_NATIVE = PixelFormat(32, False, (255, 255, 255), (16, 8, 0))
_FORMAT = struct.Struct(">BBBBHHHBBB3x")
_Step = Callable[[bytes], "tuple[bytes, bytes] | None"]


class ProtocolError(ValueError):
    """The client does not speak RFB."""


class RfbServer:
    """One client's view of a screen. The screen is a gradient; a key that is pressed changes its colour.

    name: of the screen.
    """

    greeting = b"RFB 003.008\n"

    def __init__(self, name: str) -> None:
        self._name = name.encode("utf-8")
        self._waiting = b""
        self._step: _Step = self._read_version
        self._minor = 8
        self._format = _NATIVE
        self._tint = 0
        self._changed = True
        self._wanted: tuple[int, int, int, int] | None = None

    def receive(self, data: bytes) -> bytes | None:
        """What to answer to these bytes, none of which need be a whole message; None to hang up."""
        self._waiting += data
        answers = []
        try:
            while self._waiting:
                done = self._step(self._waiting)
                if done is None:
                    break
                answer, self._waiting = done
                answers.append(answer)
        except ProtocolError:
            return None
        return b"".join(answers)

    # Each step takes what has come, and gives the answer and the rest; None when it needs more.

    def _read_version(self, data: bytes) -> tuple[bytes, bytes] | None:
        if len(data) < 12:
            return None
        match = _VERSION.match(data[:12])
        if match is None:
            raise ProtocolError
        self._minor = int(match[1])
        if self._minor < 7:
            self._step = self._read_shared
            return struct.pack(">I", _NO_SECURITY), data[12:]
        self._step = self._read_security
        return bytes([1, _NO_SECURITY]), data[12:]

    def _read_security(self, data: bytes) -> tuple[bytes, bytes] | None:
        if data[0] != _NO_SECURITY:
            raise ProtocolError
        self._step = self._read_shared
        return (struct.pack(">I", 0) if self._minor >= 8 else b""), data[1:]

    def _read_shared(self, data: bytes) -> tuple[bytes, bytes] | None:
        self._step = self._read_message
        pixel = _FORMAT.pack(32, 24, 0, 1, *_NATIVE.maxima, *_NATIVE.shifts)
        head = struct.pack(">HH", WIDTH, HEIGHT) + pixel + struct.pack(">I", len(self._name))
        return head + self._name, data[1:]

    def _read_message(self, data: bytes) -> tuple[bytes, bytes] | None:
        kind = data[0]
        length = {0: 20, 2: 4, 3: 10, 4: 8, 5: 6, 6: 8}.get(kind)
        if length is None:
            raise ProtocolError
        if len(data) < length:
            return None
        if kind == 2:
            length += 4 * struct.unpack_from(">H", data, 2)[0]
        elif kind == 6:
            text = struct.unpack_from(">I", data, 4)[0]
            if text > _MAX_TEXT:
                raise ProtocolError
            length += text
        if len(data) < length:
            return None
        return self._handle(kind, data[:length]), data[length:]

    def _handle(self, kind: int, message: bytes) -> bytes:
        if kind == 0:
            self._set_format(message)
        elif kind == 3:
            incremental, *area = struct.unpack(">x?HHHH", message)
            self._wanted = (area[0], area[1], area[2], area[3])
            self._changed = self._changed or not incremental
        elif kind == 4:
            down, key = struct.unpack(">x?2xI", message)
            if down:
                self._tint = key & 0xFF
                self._changed = True
        return self._update()

    def _set_format(self, message: bytes) -> None:
        bits, _, big_endian, true_colour, *rest = _FORMAT.unpack(message[4:])
        if bits not in (8, 16, 32) or not true_colour or any(shift > 31 for shift in rest[3:]):
            raise ProtocolError
        self._format = PixelFormat(bits, bool(big_endian), (rest[0], rest[1], rest[2]), (rest[3], rest[4], rest[5]))

    def _update(self) -> bytes:
        """The part of the screen that the client waits for, if there is anything new."""
        if self._wanted is None or not self._changed:
            return b""
        left, top, width, height = self._wanted
        width, height = max(0, min(width, WIDTH - left)), max(0, min(height, HEIGHT - top))
        self._wanted, self._changed = None, False
        if not width or not height:
            return struct.pack(">BxH", 0, 0)
        rows = [self._format.encode((row * 255 // HEIGHT, 64, self._tint)) * width for row in range(top, top + height)]
        return struct.pack(">BxHHHHHi", 0, 1, left, top, width, height, _RAW) + b"".join(rows)
