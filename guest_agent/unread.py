"""Replies that were delivered and may still stand in the store: hosts of the existing clouds never remove them.

A guest's directory has room for about fifty of them under C xenstored, and an agent whose directory is full answers
nobody. So the oldest go when the store has no room for the next; whoever waited for those has read them long ago.
"""

from __future__ import annotations

import collections
from collections.abc import Set

from .nodes import Nodes, reply_path

MAX_KNOWN = 100
"""Delivered replies that are remembered: more than C xenstored lets into a directory (54 UUIDs)."""

ROOM = 16
"""Replies that go at once when there is no room."""


class UnreadReplies:
    """The ids of delivered replies, oldest first."""

    def __init__(self) -> None:
        self._ids: collections.deque[str] = collections.deque(maxlen=MAX_KNOWN)

    def find(self, standing: Set[str]) -> None:
        """Learn which replies stand in the store. Those that this run does not know count as older than all others."""
        known = [request_id for request_id in self._ids if request_id in standing]
        self._ids.clear()
        self._ids.extend([*sorted(standing - set(known)), *known])

    def add(self, request_id: str) -> None:
        """A reply was delivered."""
        self._ids.append(request_id)

    def make_room(self, nodes: Nodes) -> bool:
        """Remove the oldest replies; whether there were any. StoreError when that is refused too."""
        oldest = list(self._ids)[:ROOM]
        for request_id in oldest:
            nodes.remove(reply_path(request_id))
            self._ids.popleft()
        return bool(oldest)
