"""Turns within this process: what several requests share in the pool is changed by one of them at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from agent_protocol.outcomes import Busy

PATIENCE = 300.0
"""Seconds that a request waits for its turn: five calls that XenServer answers late."""


class Turns:
    """One lock for each key that somebody holds or waits for. Other processes know nothing of it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def of(self, key: str, patience: float = PATIENCE) -> Iterator[None]:
        """Hold the key's turn. patience: seconds to wait for it; Busy (`turn_taken`) after that."""
        with self._guard:
            lock, users = self._locks.get(key, (threading.Lock(), 0))
            self._locks[key] = lock, users + 1
        try:
            if not lock.acquire(timeout=patience):
                raise Busy("turn_taken", "another request changes the same network or storage; try again later")
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._guard:
                lock, users = self._locks.pop(key)
                if users > 1:
                    self._locks[key] = lock, users - 1
