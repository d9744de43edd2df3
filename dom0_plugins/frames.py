"""Texts that are larger than one node: numbered frames at `data/xenward/frames/<id>/<number>`, in both directions.

The writer announces number, size and checksum in the request or reply itself, and keeps a window of frames in the
store; the reader takes them in order and removes each. Frames of a request reach this plugin in slices, one a call,
because XAPI hands a call over as one argument of at most 128 KiB. They were checked by nobody when they leave here:
the agent compares the checksum. Frames of a reply are joined here, within limits that were checked before.
"""

import json
import re
import time
from typing import Any, Dict, List, Optional

from agent_protocol.xenstore import Client

from .conversation import bad_request, read, remove

FRAME_SIZE = 1900
"""Characters in every frame but the last, which may have fewer; below the 2000 bytes that a node holds."""

MAX_ALIVE = 16
"""Frames of one text that stand in the store at a time: a guest's nodes are counted against its quota."""

MAX_SIZE = 4 * 1024 * 1024
"""Characters of a request's text, which the agent keeps in memory until it can check it."""

MAX_REPLY_SIZE = 256 * 1024
"""Characters of a reply's text that this plugin collects for one request."""

MAX_REPLIES_SIZE = 16 * 1024 * 1024
"""Characters that it collects in one call. Each request has an equal share, so that no guest takes another's."""

PATIENCE = 30.0
"""Seconds after the last frame of a reply came until the next is not expected any more."""

# Why an announced text is missing from a result.
INCOMPLETE = "incomplete"
"""The frames stopped coming."""
CORRUPT = "corrupt"
"""A frame had another length than it must, or the whole another checksum than was announced."""
REFUSED = "refused"
"""The announcement was none, contradicted itself, or was of more than may be collected: nothing was read."""

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class Slice:
    """Consecutive frames of a request, as one call brings them.

    first: number of the first of them. values: the frames. last: whether the text ends with them.
    """

    def __init__(self, first: int, values: List[str], last: bool) -> None:
        self.first = first
        self.last = last
        self._values = values
        self._written = 0

    @classmethod
    def parse(cls, entry: Any) -> "Slice":
        """The member `frames` of a request. PluginFailure when it is not of the form that `exchange` describes."""
        if not isinstance(entry, dict):
            raise bad_request("frames of a request must be a JSON object")
        first, values, last = entry.get("first"), entry.get("values"), entry.get("last")
        # Exact types: True is a number to Python.
        if type(first) is not int or first < 0 or type(last) is not bool:
            raise bad_request("first of frames must be a number, last true or false")
        if not isinstance(values, list) or not values or not all(_is_frame(value) for value in values):
            raise bad_request("values of frames must be strings of 1 to %d ASCII characters" % FRAME_SIZE)
        if any(len(value) != FRAME_SIZE for value in (values[:-1] if last else values)):
            raise bad_request("every frame but the last must have %d characters" % FRAME_SIZE)
        if first * FRAME_SIZE + sum(map(len, values)) > MAX_SIZE:
            raise bad_request("the frames of a request may have %d characters together" % MAX_SIZE)
        return cls(first, values, last)

    @property
    def all_written(self) -> bool:
        """Whether every frame of this slice has been written."""
        return self._written == len(self._values)

    @property
    def newest(self) -> Optional[int]:
        """Number of the frame that was written last, in this call or an earlier one. None when none was.

        The reader goes in order: when this one is gone, all are.
        """
        number = self.first + self._written - 1
        return None if number < 0 else number

    def window(self) -> Dict[int, str]:
        """The frames to write next, by number."""
        upcoming = self._values[self._written : self._written + MAX_ALIVE]
        return dict(enumerate(upcoming, self.first + self._written))

    def advance(self) -> None:
        """The frames of `window` have been written."""
        self._written = min(self._written + MAX_ALIVE, len(self._values))


class Collector:
    """The text of a reply, of which the frames are read and removed as they come.

    directory: where they stand.
    """

    def __init__(self, directory: str, announced: Dict[str, Any]) -> None:
        self._directory = directory
        self._count: int = announced["count"]
        self._size: int = announced["size"]
        self._sha256: str = announced["sha256"]
        self._parts: List[bytes] = []
        self.text: Optional[str] = None
        self.problem = INCOMPLETE
        """Why `text` is None."""
        self.until = time.monotonic() + PATIENCE
        """When to give up, on the monotonic clock, unless another frame comes."""

    def collect(self, store: Client) -> bool:
        """Take what is there. True when there is nothing more to wait for: `text` or `problem` tell the result."""
        while len(self._parts) < self._count:
            path = "%s/%d" % (self._directory, len(self._parts))
            untrusted_part = read(store, path)
            if untrusted_part is None:
                return False
            if len(untrusted_part) != min(FRAME_SIZE, self._size - FRAME_SIZE * len(self._parts)):
                self.problem = CORRUPT
                return True
            self._parts.append(untrusted_part)
            self.until = time.monotonic() + PATIENCE
            remove(store, path)
        self._join()
        return True

    def _join(self) -> None:
        # Loading OpenSSL takes milliseconds, which only a call that needs it shall spend.
        import hashlib

        whole = b"".join(self._parts)
        try:
            text = whole.decode("ascii")
        except UnicodeDecodeError:
            text = ""
        if text and hashlib.sha256(whole).hexdigest() == self._sha256:
            self.text = text
        else:
            self.problem = CORRUPT


def announced_by(untrusted_reply: bytes) -> Optional[Any]:
    """The member `frames` of a reply; None when it has none, or is no JSON object."""
    if b'"frames"' not in untrusted_reply:
        return None
    try:
        reply: Any = json.loads(untrusted_reply.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return reply.get("frames") if isinstance(reply, dict) else None


def is_acceptable(untrusted_announced: Any, limit: int) -> bool:
    """Whether a Collector may be made for this announcement: consistent, and of at most `limit` characters."""
    if not isinstance(untrusted_announced, dict):
        return False
    count, size, sha256 = (untrusted_announced.get(name) for name in ("count", "size", "sha256"))
    if type(count) is not int or type(size) is not int or not isinstance(sha256, str):
        return False
    return 1 <= size <= limit and count == -(-size // FRAME_SIZE) and _SHA256.match(sha256) is not None


def share_of(requests: int) -> int:
    """Characters that the reply to each of so many requests may bring in frames."""
    return min(MAX_REPLY_SIZE, MAX_REPLIES_SIZE // max(1, requests))


def _is_frame(value: Any) -> bool:
    if not isinstance(value, str) or not 1 <= len(value) <= FRAME_SIZE:
        return False
    # str.isascii came with Python 3.7.
    return all(character < "\x80" for character in value)
