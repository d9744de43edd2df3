"""The lease of a host: of all services that may serve it, on whatever machine, one at a time acts.

The lease is a row of the database, renewed while its holder lives. The database's clock says when it is over; the
holder itself goes by its own clock, from before it asked for the renewal, so it stops earlier than anybody else begins.
A process may be held up between its last look at the lease and what it does then. So who takes a host over ends the
sessions that the one before had with the hypervisor, and does nothing before that.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from agent_protocol.outcomes import Unsuccessful

from ..db.records import Lease
from ..db.repository import Repository
from ..errors import DatabaseUnavailable, HostHeld
from ..fencing import LeaseLost
from .presence import Presence

LOG = logging.getLogger(__name__)

SECONDS = 15.0
"""How long a lease lasts without being renewed."""

_RENEWALS = 3
"""Times that it is renewed in that time."""

_SHARE = 0.8
"""Of a lease's time, what its holder uses: the rest is for what it sent just before the end."""

_LONGEST_WAIT = 1.0
_JOIN_TIMEOUT = 10.0
"""Seconds that one who gives a few orders waits for the service that starts or ends beside it."""


class Flag(Protocol):
    """Something like a threading.Event."""

    def is_set(self) -> bool:
        """Whether somebody wants the wait to end."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set."""


def boot_time() -> float:
    """Seconds since this machine started, those included that it slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class LeaseKeeper:
    """Holds the lease of `host`: a driver's Fence, and a manager's Keeper. Used by many threads.

    seconds: how long a lease lasts. clock: for tests.
    """

    def __init__(
        self,
        repository: Repository,
        presence: Presence,
        host: str,
        *,
        seconds: float = SECONDS,
        clock: Callable[[], float] = boot_time,
    ) -> None:
        self._repository = repository
        self._presence = presence
        self._host = host
        self._seconds = seconds
        self._clock = clock
        self._held: Lease | None = None
        self._valid_until = 0.0
        self._looked = clock()
        self._prepare: Callable[[Sequence[str]], None] | None = None
        self._preparing = threading.Lock()
        self._stopping = threading.Event()
        self._renewer = threading.Thread(target=self._run, name="lease", daemon=True)
        self.lost = threading.Event()
        """Set when another service has the host."""

    # Getting it and giving it back

    def acquire(self, stop: Flag) -> bool:
        """Wait until the host is ours alone. False when `stop` was set before that."""
        told = ""
        while not stop.is_set():
            try:
                if self._presence.alone():
                    self._take(self._repository.acquire_lease)
                    return True
                said, wait = "another service on this machine has it", _LONGEST_WAIT
            except HostHeld as held:
                said, wait = f"{held.holder} has it", min(max(held.seconds, 0.0) + 0.01, _LONGEST_WAIT)
            except DatabaseUnavailable as error:
                said, wait = str(error), _LONGEST_WAIT
            if said != told:
                LOG.warning("host %s: waiting for its lease: %s", self._host, said)
                told = said
            stop.wait(wait)
        return False

    def share(self, take_over: Callable[[], object]) -> None:
        """Hold the host together with others on this machine that give a few orders, too.

        take_over: called when none of them was there before. Busy when a service has the host.
        """
        with self._presence.entering(_JOIN_TIMEOUT) as is_first:
            if is_first:
                self._take(self._repository.acquire_lease)
                take_over()
            else:
                self._take(self._join)

    def release(self) -> None:
        """Give it back, unless others share it; nothing may be under way any more."""
        self._stopping.set()
        if self._renewer.is_alive():
            self._renewer.join()
        held, self._held = self._held, None
        self._valid_until = 0.0
        if held is None or self.lost.is_set() or not self._presence.alone():
            return
        try:
            self._repository.release_lease(held)
        except DatabaseUnavailable as error:
            LOG.warning("host %s: its lease could not be given back, and runs out: %s", self._host, error)

    # What a manager needs

    def when_new(self, prepare: Callable[[Sequence[str]], None]) -> None:
        """Have `prepare` called with the sessions of those who had the host before; nothing is done until it worked."""
        self._prepare = prepare

    @property
    def lease(self) -> Lease:
        """The lease to act under. LeaseLost, or what keeps the host from being used."""
        self.check()
        held = self._held
        assert held is not None
        if self._prepare is not None:
            self._get_ready(held)
        return held

    def _get_ready(self, held: Lease) -> None:
        with self._preparing:
            if self._prepare is None:
                return
            sessions = self._repository.sessions_before(held)
            if sessions:
                LOG.warning("host %s: ending %d sessions of the service before", self._host, len(sessions))
                self._prepare(sessions)
            for session in sessions:
                self._repository.close_session(self._host, session)
            self._prepare = None

    @property
    def state(self) -> tuple[bool, int, float]:
        """Whether the host is ours, the lease's epoch, and for how many seconds nobody else can have it."""
        held = self._held
        left = self._valid_until - self._clock()
        return held is not None and left > 0 and not self.lost.is_set(), held.epoch if held else 0, left

    @property
    def is_kept(self) -> bool:
        """Whether somebody still looks after the lease; a process where nobody does is of no use any more."""
        return self._clock() - self._looked < 2 * self._seconds

    # What a driver needs

    def check(self) -> None:
        """As in Fence."""
        if self._held is None or self.lost.is_set() or self._clock() >= self._valid_until:
            raise LeaseLost(self._host)

    def opened(self, session: str) -> None:
        """As in Fence."""
        self.check()
        held = self._held
        assert held is not None
        self._repository.open_session(held, session)

    def closed(self, session: str) -> None:
        """As in Fence."""
        try:
            self._repository.close_session(self._host, session)
        except Unsuccessful as error:
            LOG.debug("host %s: a session's end is not recorded: %s", self._host, error)

    # Renewing

    def _join(self, host: str, holder: str, *, seconds: float) -> Lease:
        held = self._repository.join_lease(host, holder)
        self._repository.renew_lease(held, seconds=seconds)
        return held

    def _take(self, ask: Callable[..., Lease]) -> None:
        began = self._clock()
        self._held = ask(self._host, self._presence.holder, seconds=self._seconds)
        self._valid_until = began + _SHARE * self._seconds
        if not self._renewer.is_alive():
            self._renewer.start()

    def _run(self) -> None:
        pause = self._seconds / _RENEWALS
        while not self._stopping.wait(pause):
            self._looked = self._clock()
            held = self._held
            if held is None:
                continue
            began = self._clock()
            try:
                self._repository.renew_lease(held, seconds=self._seconds)
            except LeaseLost:
                LOG.error("host %s: another service has it now", self._host)
                self.lost.set()
                return
            except DatabaseUnavailable as error:
                LOG.warning("host %s: its lease could not be renewed: %s", self._host, error)
            except Exception:
                # Whatever it is, without this thread the host would never be ours again, nor known to be lost.
                LOG.exception("host %s: its lease could not be renewed", self._host)
            else:
                self._valid_until = began + _SHARE * self._seconds
                pause = self._seconds / _RENEWALS
                continue
            pause = min(pause, _LONGEST_WAIT)
