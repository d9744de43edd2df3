"""The clock by which keys age."""

from __future__ import annotations

import time

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)
"""Linux alone has it."""


def elapsed() -> float:
    """Seconds that never go back whatever happens to the wall clock, and go on while the guest is suspended.

    The monotonic clock, which stops meanwhile, where the system has none that goes on.
    """
    return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)
