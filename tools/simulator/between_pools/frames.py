"""What two pools say to each other: frames, each a JSON object and bytes, and after each an answer of the same form.

One frame is 8 bytes, the lengths of both parts as unsigned 32 bit numbers in network order, then the parts. An answer
is {"ok": …}, or {"error": [code, parameters…]}. xapi's own protocols between pools (SMAPI, xenops) are another matter:
nobody but xapi speaks those.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple

from ..errors import ApiError
from ..formats.streams import PIECE, EndedEarlyError, FormatError, Source

VERSION = 1
"""Of what is said in frames. Simulators of other versions refuse each other."""

PATH = "/services/xenops"
"""Where a pool listens to others; host.migrate_receive tells it."""

MAX_TEXT = 4 * 1024 * 1024
"""Bytes of a JSON object: that with a VM's records, of which nobody has so many."""

_LENGTHS = struct.Struct("!II")


class Frame(NamedTuple):
    """Something that was said. message: not to be trusted. body: at most PIECE bytes."""

    message: dict[str, Any]
    body: bytes = b""


def encode(message: Mapping[str, Any], body: bytes = b"") -> bytes:
    """A frame as it travels."""
    text = json.dumps(dict(message)).encode("ascii")
    return _LENGTHS.pack(len(text), len(body)) + text + body


def read(source: Source) -> Frame | None:
    """The next frame; None when the other side has nothing more to say. FormatError when it is none."""
    first = source.read(1)
    if not first:
        return None
    text_size, body_size = _LENGTHS.unpack(first + source.exactly(_LENGTHS.size - 1))
    if text_size > MAX_TEXT or body_size > PIECE:
        raise FormatError("a frame is too large")
    try:
        message = json.loads(source.exactly(text_size))
    except (ValueError, RecursionError):
        raise FormatError("a frame is no JSON") from None
    if not isinstance(message, dict):
        raise FormatError("a frame is no JSON object")
    return Frame(message, source.exactly(body_size))


class Channel:
    """The side that asks. source: what the other side answers. write: sends to it."""

    def __init__(self, source: Source, write: Callable[[bytes], object]) -> None:
        self._source = source
        self._write = write

    def ask(self, message: Mapping[str, Any], body: bytes = b"") -> Any:
        """What the other side answers to a frame.

        ApiError when that is an error, OSError or FormatError when it does not answer.
        """
        self._write(encode(message, body))
        frame = read(self._source)
        if frame is None:
            raise EndedEarlyError
        untrusted_error = frame.message.get("error")
        if untrusted_error is None:
            return frame.message.get("ok")
        if not isinstance(untrusted_error, list) or not untrusted_error:
            raise FormatError("an error is none of the API's")
        raise ApiError(*map(str, untrusted_error))
