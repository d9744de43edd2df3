"""What the agent must not forget while it lives, whatever becomes of the store."""

from __future__ import annotations

import collections

from .answers import Answer
from .unread import UnreadReplies

MAX_REMEMBERED = 10_000
"""Ids of requests that are known not to be carried out again; 2 MB."""


class Memory:
    """The requests of this run.

    answers: those not delivered yet, by the request's id. There are never more than requests stand in the store.
    unread: the replies that were. claiming: the request that a claim is being written for; until it is taken nothing
    is done for it.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.unread = UnreadReplies()
        self.claiming: str | None = None
        self._taken: collections.OrderedDict[str, None] = collections.OrderedDict()

    def take(self, request_id: str) -> None:
        """From now on this request is carried out, or answered otherwise; in any case not taken again."""
        self.claiming = None
        self._taken[request_id] = None
        if len(self._taken) > MAX_REMEMBERED:
            self._taken.popitem(last=False)

    def has_taken(self, request_id: str) -> bool:
        """Whether this request was taken in this run, as far as the last MAX_REMEMBERED go."""
        return request_id in self._taken

    def is_ours(self, request_id: str) -> bool:
        """Whether a claim for this request is this run's, which knows how the request stands."""
        return request_id in self.answers or request_id == self.claiming
