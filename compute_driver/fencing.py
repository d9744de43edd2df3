"""Who may act on a hypervisor: one service at a time, the one that holds the host's lease.

A driver asks its fence directly before each thing that it changes. That alone is not enough, as a process may be held
up between the question and the act: so each session with the hypervisor is written down before it is used, and who
takes the host over ends the sessions of the one before (ComputeDriver.end_sessions) before it acts itself.
"""

from __future__ import annotations

from typing import Protocol

from agent_protocol.outcomes import Unknown


class LeaseLost(Unknown):
    """Raise when another service may act on the host by now: what this one was doing is that one's to end."""

    def __init__(self, host: str = "") -> None:
        of = f" of host {host}" if host else ""
        super().__init__("lease_lost", f"The lease{of} is lost: what was under way is for another service to end.")
        self.host = host


class Fence(Protocol):
    """What stands between a driver and the hypervisor. Used by many threads."""

    def check(self) -> None:
        """Return at once when the host is ours for certain, now; LeaseLost otherwise. Asked before each side effect."""

    def opened(self, session: str) -> None:
        """A session with the hypervisor is about to be used: return when that is recorded durably.

        session: its public id, which is no secret (XenAPI: the session's uuid). LeaseLost or DatabaseUnavailable when
        it must not be used.
        """

    def closed(self, session: str) -> None:
        """It was ended for certain. Never raises."""


class Unfenced:
    """Allows everything: for a driver that is used alone."""

    def check(self) -> None:
        """The host is always ours."""

    def opened(self, session: str) -> None:
        """Nobody needs to know of sessions."""

    def closed(self, session: str) -> None:
        """Nobody needs to know of sessions."""
