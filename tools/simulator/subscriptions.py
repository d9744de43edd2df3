"""Which objects a client wants events of, and how far it has read.

Source: modules Subscription and Token of ocaml/xapi/xapi_event.ml.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from . import errors

EVERYTHING = "*"

_TOKEN = re.compile(r"(?P<database>[0-9]{1,20}),(?P<messages>[0-9]{1,20})\Z", re.ASCII)
_INT_LIMIT = 2**63


class Token(NamedTuple):
    """How far a client has read: the generation of the database's latest change, and of the latest message."""

    database: int = 0
    messages: int = 0

    @classmethod
    def parse(cls, untrusted_text: str) -> Token:
        """The token that a client sent; an empty one is the beginning. ApiError EVENT_FROM_TOKEN_PARSE_FAILURE."""
        if not untrusted_text:
            return cls()
        match = _TOKEN.match(untrusted_text)
        if match:
            token = cls(int(match["database"]), int(match["messages"]))
            if max(token) < _INT_LIMIT:
                return token
        raise errors.ApiError("EVENT_FROM_TOKEN_PARSE_FAILURE", untrusted_text)

    def __str__(self) -> str:
        # As long as each other, so that clients can compare them as text.
        return f"{self.database:020},{self.messages:020}"


class Interest(NamedTuple):
    """One thing that a client asked for: a class in lower case, and the reference of an object of it, or all (None)."""

    cls: str
    ref: str | None

    @classmethod
    def parse(cls, untrusted_text: str) -> Interest:
        """What `VM`, `vm/OpaqueRef:…` or `*` means. Anything is accepted; what does not exist matches nothing."""
        name, slash, ref = untrusted_text.partition("/")
        return cls(name.lower(), ref if slash else None)


class Subscription:
    """All that a client asked for."""

    def __init__(self, interests: Iterable[Interest]) -> None:
        self.interests = tuple(interests)
        self._all = Interest(EVERYTHING, None) in self.interests
        self._classes = {interest.cls for interest in self.interests if interest.ref is None}
        self._objects = {(interest.cls, interest.ref) for interest in self.interests if interest.ref is not None}

    @classmethod
    def parse(cls, untrusted_classes: Iterable[str]) -> Subscription:
        """What a client's list of classes means."""
        return cls(Interest.parse(untrusted_text) for untrusted_text in untrusted_classes)

    def concerns(self, cls: str) -> bool:
        """Whether any object of a class could match. The class' name is in lower case."""
        return self._all or cls in self._classes or any(cls == name for name, _ in self._objects)

    def matches(self, cls: str, ref: str) -> bool:
        """Whether an object matches. The class' name is in lower case."""
        return self._all or cls in self._classes or (cls, ref) in self._objects

    @property
    def is_about_tasks(self) -> bool:
        """Whether it is about tasks and nothing else: then somebody waits for one to end."""
        return bool(self.interests) and all(interest.cls == "task" for interest in self.interests)
