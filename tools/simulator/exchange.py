"""What a remote call can know of the HTTP request that brought it, and add to the response."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Callable


@dataclass(frozen=True)
class Exchange:
    """A request and its response.

    untrusted_header: gives a header of the request, None when it has none of that name. response: the headers that the
    response has besides its usual ones.
    """

    untrusted_header: Callable[[str], str | None] = lambda _: None
    response: dict[str, str] = field(default_factory=dict)


_CURRENT: ContextVar[Exchange | None] = ContextVar("_CURRENT", default=None)


@contextlib.contextmanager
def exchanging(untrusted_header: Callable[[str], str | None]) -> Iterator[Exchange]:
    """What this thread does while it is entered belongs to that request."""
    exchange = Exchange(untrusted_header)
    token = _CURRENT.set(exchange)
    try:
        yield exchange
    finally:
        _CURRENT.reset(token)


def current() -> Exchange:
    """The request that this thread answers; an empty one when it answers none."""
    return _CURRENT.get() or Exchange()
