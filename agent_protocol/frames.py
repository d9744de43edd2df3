"""Texts that are longer than a node: split into frames by the writer, joined and checked by the reader.

A message announces count, size and checksum of its frames; frame i of request id then stands at
`data/xenward/frames/<id>/<i>`. The reader takes them in order and removes each. Here is what they hold; the
writing and waiting is the agent's and the plugin's.
"""

from __future__ import annotations

from dataclasses import dataclass

from .digests import sha256_hex
from .messages import MessageError
from .outcomes import Refused
from .strict import SHA256_HEX, Members

FRAMES = "data/xenward/frames"
"""Directory of frames, relative to the guest's domain: one child for each request id, with one for each frame."""

FRAME_SIZE = 1900
"""Characters in every frame but the last, which may have fewer; below the 2000 bytes that a node holds."""

MAX_SIZE = 4 * 1024 * 1024
"""Characters of a whole text: what an agent is ready to keep in memory before it could check anything."""

MAX_ALIVE = 16
"""Frames of one text that stand in the store at a time: a guest's nodes are counted against its quota."""


@dataclass(frozen=True)
class FramesInfo:
    """What is announced about a text that comes in frames. MessageError when it contradicts itself.

    count: how many frames. size: characters of the whole text, 1 to MAX_SIZE. sha256: its checksum in hex.
    """

    count: int
    size: int
    sha256: str

    def __post_init__(self) -> None:
        if not 1 <= self.size <= MAX_SIZE:
            raise MessageError(f"a text in frames has 1 to {MAX_SIZE} characters")
        if self.count != -(-self.size // FRAME_SIZE):
            raise MessageError(f"the number of frames is not that of {FRAME_SIZE} characters each")
        if not SHA256_HEX.match(self.sha256):
            raise MessageError("the checksum of the frames is not one")

    @classmethod
    def of(cls, text: str) -> FramesInfo:
        """What to announce about an ASCII text. MessageError when it is empty or exceeds MAX_SIZE."""
        return cls(-(-len(text) // FRAME_SIZE), len(text), sha256_hex(text.encode("ascii")))

    @classmethod
    def parse(cls, untrusted_members: Members) -> FramesInfo:
        """What was announced. MessageError when it is malformed, contradicts itself, or exceeds MAX_SIZE."""
        count, size = untrusted_members.number("count"), untrusted_members.number("size")
        return cls(count, size, untrusted_members.text("sha256"))

    def members(self) -> dict[str, object]:
        """As it stands in JSON."""
        return {"count": self.count, "size": self.size, "sha256": self.sha256}


def split(text: str) -> list[str]:
    """The frames of an ASCII text, in order."""
    return [text[start : start + FRAME_SIZE] for start in range(0, len(text), FRAME_SIZE)]


class Joiner:
    """Takes the frames of one announced text in order, and gives it out only when whole and of the right checksum."""

    def __init__(self, info: FramesInfo) -> None:
        self._info = info
        self._frames: list[str] = []

    @property
    def next_index(self) -> int:
        """The number of the frame to feed next, from 0; the announced count when all are there."""
        return len(self._frames)

    @property
    def complete(self) -> bool:
        """Whether the last frame is there."""
        return len(self._frames) == self._info.count

    def feed(self, untrusted_frame: str) -> None:
        """Take the frame `next_index`. Refused `frames_corrupt` when it has a wrong length, or is one too many."""
        expected = FRAME_SIZE
        if self.next_index == self._info.count - 1:
            expected = self._info.size - FRAME_SIZE * self.next_index
        if self.complete or len(untrusted_frame) != expected or not untrusted_frame.isascii():
            raise _corrupt()
        self._frames.append(untrusted_frame)

    def text(self) -> str:
        """The whole text. Refused: `frames_incomplete` when frames are missing, `frames_corrupt` by the checksum."""
        if not self.complete:
            raise Refused("frames_incomplete", "not all frames of the message came")
        text = "".join(self._frames)
        if sha256_hex(text.encode("ascii")) != self._info.sha256:
            raise _corrupt()
        return text


def _corrupt() -> Refused:
    return Refused("frames_corrupt", "the frames of the message are not those that were announced")
