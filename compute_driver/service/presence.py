"""Which processes of this machine serve a host, shown by locks on a file that the kernel releases however they end.

They are "open file description locks" (Linux 3.15, fcntl(2)) on single bytes: unlike flock(2)'s they can be exchanged
without a gap, and asked who else has one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from agent_protocol.outcomes import Busy

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LOOK = 0.05
"""Seconds between two tries for a lock."""

_MEMBERS, _GATE = 0, 1
"""What each byte stands for: to serve the host, alone or together; to be coming in, one at a time."""

_FLOCK = "hhqqi4x"
"""struct flock of a Linux whose file offsets have 64 bits: type, whence, start, length, process."""


class Presence:
    """A lock file, held alone by a service, and together by processes that each give a few orders.

    path: of the file, which is made when missing and never removed.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        status = os.fstat(self._descriptor)
        self.holder = f"{socket.gethostname()} {_boot_id()}/{status.st_dev}:{status.st_ino}"
        """Identifies the file among all machines: who holds it alone knows that no other bearer of the name lives."""

    def alone(self) -> bool:
        """Try to hold it alone. False, and holding nothing any more, when somebody else holds it."""
        if self._lock(_MEMBERS, fcntl.F_WRLCK):
            return True
        self._lock(_MEMBERS, fcntl.F_UNLCK)
        return False

    @contextlib.contextmanager
    def entering(self, timeout: float) -> Iterator[bool]:
        """Come to hold it together with others of the same kind; gives whether there are none.

        Who is the first holds it alone until the block ends, and nobody else comes in meanwhile. So who finds others
        knows that the first of them came to that end, and that one of them lives. Busy when somebody holds it alone, or
        is coming in, for longer than `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        self._await(_GATE, fcntl.F_WRLCK, deadline)
        try:
            is_first = False
            while not is_first:
                self._await(_MEMBERS, fcntl.F_RDLCK, deadline)
                if self._is_shared():
                    break
                is_first = self._lock(_MEMBERS, fcntl.F_WRLCK)
            yield is_first
            self._lock(_MEMBERS, fcntl.F_RDLCK)
        finally:
            self._lock(_GATE, fcntl.F_UNLCK)

    def close(self) -> None:
        """Let go."""
        descriptor, self._descriptor = self._descriptor, -1
        with contextlib.suppress(OSError):
            os.close(descriptor)

    def _await(self, byte: int, kind: int, deadline: float) -> None:
        while not self._lock(byte, kind):
            if time.monotonic() > deadline:
                raise Busy("host_held", "a service on this machine has the host for itself")
            time.sleep(_LOOK)

    def _lock(self, byte: int, kind: int) -> bool:
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, byte, 1, 0))
        except (BlockingIOError, PermissionError):
            # EAGAIN or EACCES, as the system likes.
            return False
        return True

    def _is_shared(self) -> bool:
        """Whether somebody else holds it, too, at this moment."""
        question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _MEMBERS, 1, 0)
        answer = fcntl.fcntl(self._descriptor, fcntl.F_OFD_GETLK, question)
        return int(struct.unpack(_FLOCK, answer)[0]) != fcntl.F_UNLCK


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return "-"
