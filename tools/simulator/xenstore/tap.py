"""A view of everything that crosses the simulated XenStore: tests prove with it that no secret does."""

from __future__ import annotations

import dataclasses
from typing import Callable, Literal


@dataclasses.dataclass(frozen=True)
class TapRecord:
    """One packet that crossed a socket. The payload may be secret, so it is left out of the repr.

    operation: the packet's type, a plain number where the client sent one that is none of wire.Operation.
    """

    domid: int
    direction: Literal["request", "reply", "event"]
    operation: int
    payload: bytes = dataclasses.field(repr=False)


Tap = Callable[[TapRecord], None]
"""Called with every packet, before a request is answered and before a reply or an event is sent."""
