"""What Windows does for the service when it crashes, and when the system ends. The service itself sees to it.

The installer's own table for this (MsiServiceConfigFailureActions) is known not to work in many cases, and values that
are written into the service's registry key count only after the next boot. So each start looks whether an administrator
or an earlier start has said what is to happen, and says it where nobody has.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

RESTART_SECONDS = (5, 30, 60)
"""Pauses before the service is started again after its first, second and third crash; the last one counts for all that
follow, for ever: the agent is how the host comes to a guest that is in trouble."""

RESET_SECONDS = 24 * 60 * 60
"""After so long without a crash the next one is the first again."""

SHUTDOWN_SECONDS = 30
"""How long the end of the system waits for the agent: longer than a stop takes (windows_life.STOP_SECONDS)."""

_log = logging.getLogger(__name__)


class ServiceSettings(Protocol):
    """What Windows keeps about this service. OSError when it cannot be read or changed."""

    def recovers(self) -> bool:
        """Whether it is said what happens after a crash."""

    def set_recovery(self, restart_seconds: Sequence[int], reset_seconds: int) -> None:
        """Start the service again after each crash, with these pauses."""

    def set_shutdown_seconds(self, seconds: int) -> None:
        """Have the end of the system wait for the service so long."""


def ensure(settings: ServiceSettings) -> None:
    """Say what nobody has said yet. A failure is logged, and does not keep the agent from serving."""
    try:
        settings.set_shutdown_seconds(SHUTDOWN_SECONDS)
        if not settings.recovers():
            settings.set_recovery(RESTART_SECONDS, RESET_SECONDS)
    except OSError as error:
        _log.warning("Windows cannot be told to start the service again after a crash: %s", error)
