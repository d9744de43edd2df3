"""Keepers of leases with all that a test wants to steer: clock, database, and who else is on the machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from compute_driver.db.repository import Repository
from compute_driver.errors import DatabaseUnavailable
from compute_driver.fencing import LeaseLost
from compute_driver.service.leases import LeaseKeeper
from compute_driver.service.presence import Presence

PATIENCE = 10.0
"""Seconds that anything is waited for at most."""


class Clock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Away:
    """A repository whose database is away while `error` says how."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self.error: Exception | None = None
        self.refused = threading.Event()
        self.answered = threading.Event()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._repository, name)

        def ask(*arguments: Any, **named: Any) -> Any:
            if self.error is not None:
                self.refused.set()
                raise self.error
            try:
                return method(*arguments, **named)
            finally:
                self.answered.set()

        return ask

    def go(self, error: Exception | None = None) -> None:
        """From now on, and until the next attempt has met it."""
        self.refused.clear()
        self.error = error or DatabaseUnavailable("away")
        assert self.refused.wait(PATIENCE)

    def come_back(self) -> None:
        """Until something was asked again."""
        self.answered.clear()
        self.error = None
        assert self.answered.wait(PATIENCE)


class Machine:
    """A process on a machine: its keeper, and what that depends on. ended: sessions that were to be ended, in order."""

    def __init__(self, repository: Repository, host: str, path: Path, seconds: float) -> None:
        self.database = Away(repository)
        self.presence = Presence(path)
        self.clock = Clock()
        self.stop = threading.Event()
        self._is_gone = False
        self.ended: list[list[str]] = []
        self.error: Exception | None = None
        self.keeper = LeaseKeeper(
            self.database,  # type: ignore[arg-type]
            self.presence,
            host,
            seconds=seconds,
            clock=self.clock,
        )
        self.keeper.when_new(self._end)

    def _end(self, sessions: Sequence[str]) -> None:
        self.ended.append(list(sessions))
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """End as a process does."""
        if self._is_gone:
            return
        self._is_gone = True
        self.database.error = None
        self.keeper.release()
        self.presence.close()

    def vanish(self) -> None:
        """End as a process does that is killed: locks are gone, and the database is told nothing."""
        self._is_gone = True
        self.keeper._stopping.set()
        self.presence.close()

    @contextmanager
    def acquiring(self) -> Iterator[list[bool]]:
        """Acquires in a thread, which has ended when the block does. Gives what acquire() said, once it has."""
        said: list[bool] = []
        thread = threading.Thread(target=lambda: said.append(self.keeper.acquire(self.stop)))
        thread.start()
        try:
            yield said
        finally:
            thread.join(PATIENCE)
            self.stop.set()
            thread.join(PATIENCE)
            assert not thread.is_alive()


class Machines:
    """Machines of which all may serve one host. Closed in the end."""

    def __init__(self, repository: Repository, host: str, directory: Path) -> None:
        self._repository = repository
        self._host = host
        self._directory = directory
        self._stack = ExitStack()

    def at(self, name: str, *, seconds: float = 60.0) -> Machine:
        """A new process there. seconds: how long its lease lasts."""
        it = Machine(self._repository, self._host, self._directory / name, seconds)
        self._stack.callback(it.close)
        return it

    def __enter__(self) -> Machines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def is_ours(it: Machine) -> bool:
    """Whether it would let a driver act."""
    try:
        it.keeper.check()
    except LeaseLost:
        return False
    return True


def eventually(is_so: Callable[[], object]) -> None:
    """Wait until it is."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def lost(it: Machine) -> None:
    """Neither a driver nor a manager may act."""
    for act in (it.keeper.check, lambda: it.keeper.opened("a session"), lambda: it.keeper.lease):
        with pytest.raises(LeaseLost) as caught:
            act()
        assert caught.value.code == "lease_lost"
