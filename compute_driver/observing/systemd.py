"""What the process tells systemd, where that started it: ready, alive, stopping.

The protocol of sd_notify(3): a datagram of assignments to the socket that the variable NOTIFY_SOCKET names. Without it
nothing happens. Nothing here raises: a service manager that does not listen is no reason to fail.
"""

from __future__ import annotations

import logging
import os
import socket

from .redaction import without_line_breaks

LOG = logging.getLogger(__name__)

_SECONDS = 1.0
"""How long a service manager may take to take a datagram."""


def ready(status: str = "") -> bool:
    """The service serves now. Whether it was told."""
    return _notify("READY=1", *_status(status))


def stopping(status: str = "") -> bool:
    """The service ends what is in hand, and takes nothing new. Whether it was told."""
    return _notify("STOPPING=1", *_status(status))


def status(text: str) -> bool:
    """What the service does, in words, for `systemctl status`. Whether it was told."""
    return _notify(*_status(text))


def alive() -> bool:
    """The service gets on. To be called twice or more in each watchdog_period(). Whether it was told.

    By the loop that keeps the lease, whether or not the database answers: a new start would not mend that.
    """
    return _notify("WATCHDOG=1")


def extend(seconds: float) -> bool:
    """Starting, or stopping, takes up to so many seconds more from now on. Whether it was told."""
    return _notify(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")


def watchdog_period() -> float | None:
    """Seconds after which a process that was not alive() is killed; None when nobody waits for that."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return None
    return microseconds / 1e6 if microseconds > 0 else None


def _status(text: str) -> list[str]:
    # A line break would begin another assignment.
    return [f"STATUS={without_line_breaks(text)}"] if text else []


def _notify(*assignments: str) -> bool:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not assignments or address[:1] not in ("/", "@"):
        return False
    if address.startswith("@"):
        # A name in the kernel's own name space, not in the file system (unix(7)).
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(_SECONDS)
            channel.connect(address)
            channel.sendall("\n".join(assignments).encode("utf-8", "backslashreplace"))
    except OSError as error:
        LOG.warning("the service manager could not be told %s: %s", assignments[0], error.strerror or "it hangs")
        return False
    return True
