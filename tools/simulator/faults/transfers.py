"""An HTTP data request on its way through the simulator, with what rules do to it and to the bytes it moves."""

from __future__ import annotations

import contextlib
import socket
import time
from http.server import BaseHTTPRequestHandler
from typing import Callable

from ..errors import ApiError
from .call_log import CallLog
from .rules import Arrival, Hit, Rules
from .visits import hold

_PIECES = 10
"""How many pieces a second a throttled transfer has at least."""


class Transfer:
    """A data request, from its arrival to its end. `http` is its connection."""

    def __init__(self, rules: Rules, log: CallLog, arrival: Arrival, http: BaseHTTPRequestHandler) -> None:
        self._hits = rules.match(arrival)
        self._rules = rules
        self._log = log
        self._name = arrival.name
        self._http = http
        self._entry = log.begin(arrival, tuple(hit.id for hit in self._hits))
        self._moved = 0
        self._begin = 0.0

    def begin(self) -> None:
        """Wait, or end here, as rules want it. ApiError when it fails, Dropped when its connection is to be closed."""
        hold(self._rules, self._hits, self._name)
        self._begin = time.monotonic()

    def reading(self, read: Callable[[int], bytes]) -> Callable[[int], bytes]:
        """`read` for the bytes that the client sends, as far as it gets."""

        def limited(size: int) -> bytes:
            allowed = self._allowed(size)
            if allowed == 0:
                self._cut()
                return b""
            data = read(allowed)
            self._move(len(data))
            return data

        return limited if self._hits else read

    def write(self, data: bytes) -> None:
        """Send bytes to the client, as far as that goes. OSError when it does not."""
        position = 0
        while self._hits and position < len(data):
            allowed = self._allowed(len(data) - position)
            if allowed == 0:
                self._http.wfile.flush()
                self._cut()
                raise ConnectionAbortedError
            self._http.wfile.write(data[position : position + allowed])
            self._move(allowed)
            position += allowed
        if not self._hits:
            self._http.wfile.write(data)

    def end_well(self) -> None:
        """All bytes have been moved. ApiError when the transfer is to fail nevertheless."""
        for hit in self._of("fail_late"):
            raise ApiError(*hit.rule.error)

    def end(self, outcome: str) -> None:
        """The request is over, and this is how it ended."""
        self._log.end(self._entry, outcome)

    def _of(self, action: str) -> list[Hit]:
        return [hit for hit in self._hits if hit.rule.action == action and not hit.is_removed]

    def _allowed(self, size: int) -> int:
        """How many of so many bytes may be moved at once."""
        for hit in self._of("throttle"):
            size = min(size, max(1, hit.rule.size // _PIECES))
        for hit in self._of("cut"):
            size = min(size, hit.rule.size - self._moved)
        return max(size, 0)

    def _move(self, size: int) -> None:
        self._moved += size
        for hit in self._of("throttle"):
            early = self._moved / hit.rule.size - (time.monotonic() - self._begin)
            if early > 0:
                # What is written is seen to move.
                with contextlib.suppress(OSError):
                    self._http.wfile.flush()
                hit.wait(early)

    def _cut(self) -> None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._http.connection, socket.SHUT_RDWR)
