"""The keys that an agent opens requests with: short-lived, in memory only, so that old traffic opens nothing.

There is a current key and at most one previous. After each box that the current one opened, and when it is
MAX_AGE old, a fresh key takes its place; the previous one is honoured for GRACE more, for requests that are under way.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Callable

from .adverts import SealingKey
from .clock import elapsed
from .outcomes import Refused
from .primitives import X25519PrivateKey, guarded
from .raw_keys import raw_public
from .sealed import SealedCommand, open_request

MAX_AGE = 600.0
"""Seconds after which a key is replaced even if it opened nothing."""

GRACE = 60.0
"""Seconds for which a replaced key still opens requests."""

MAX_USES = 1000
"""Requests that one key opens before it is dropped; their ids are kept in memory as long as the key is."""


@dataclass
class _Key:
    """A private key. ends: when it will not be honoured any more, by the clock of AgentKeys."""

    public: SealingKey
    created: float
    ends: float
    private: X25519PrivateKey = field(repr=False)
    used: set[str] = field(default_factory=set, repr=False)

    @classmethod
    @guarded
    def generate(cls, now: float) -> _Key:
        private = X25519PrivateKey.generate()
        public = SealingKey(os.urandom(8).hex(), raw_public(private.public_key()))
        return cls(public, now, now + MAX_AGE + GRACE, private)


class AgentKeys:
    """An agent's keys for one VM. For one thread at a time.

    vm: the VM's uuid. clock: seconds that never go back, and go on while the guest is suspended. now: Unix seconds, by
    which requests expire.
    """

    def __init__(self, vm: str, clock: Callable[[], float] = elapsed, now: Callable[[], float] = time.time) -> None:
        self._vm = vm
        self._clock = clock
        self._now = now
        self._current = _Key.generate(clock())
        self._previous: _Key | None = None

    @property
    def current(self) -> SealingKey:
        """The public half of the current key: what the advert and each receipt must name."""
        return self._current.public

    def open(self, key_id: str, request_id: str, untrusted_box: str) -> SealedCommand:
        """What is in a request's box. Afterwards `current` may be another key, also when this raised.

        key_id: from the request's envelope. Refused with `unknown_key` when that key isn't honoured (any more),
        `replayed` when it has opened a request of that id already, `bad_box` when it doesn't open this one, and
        `expired` when the time is past that the request set itself.
        """
        self.rotate_if_old()
        key = self._honoured(key_id)
        if request_id in key.used:
            raise Refused("replayed", "a request with that id was already opened")
        command = open_request(key.private, key_id, self._vm, request_id, untrusted_box)
        key.used.add(request_id)
        if key is self._current:
            self._rotate(self._clock())
        elif len(key.used) >= MAX_USES:
            self._previous = None
        if self._now() >= command.expires:
            raise Refused("expired", "the request came after its time")
        return command

    def check_honoured(self, key_id: str) -> None:
        """Refused with `unknown_key` when that key isn't honoured (any more), before a box for it is fetched."""
        self.rotate_if_old()
        self._honoured(key_id)

    def rotate_if_old(self) -> bool:
        """Replace the current key if it is MAX_AGE old; whether it was, so that the advert must be written anew."""
        now = self._clock()
        old = now >= self._current.created + MAX_AGE
        if old:
            self._rotate(self._current.created + MAX_AGE)
        if self._previous is not None and now >= self._previous.ends:
            self._previous = None
        return old

    def seconds_until_rotation(self) -> float:
        """For how long the current key stays if it opens nothing: how long the agent may sleep, 0 to MAX_AGE."""
        return max(0.0, self._current.created + MAX_AGE - self._clock())

    def _honoured(self, key_id: str) -> _Key:
        for key in (self._current, self._previous):
            if key is not None and key.public.id == key_id:
                return key
        raise Refused("unknown_key", "the agent does not hold that key, or not any more")

    def _rotate(self, since: float) -> None:
        """since: when the current key ceased to be the current one; its grace counts from there."""
        self._previous, self._current = self._current, _Key.generate(self._clock())
        self._previous.ends = since + GRACE
