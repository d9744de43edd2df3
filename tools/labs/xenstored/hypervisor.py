"""The files through which the daemon's preloaded library (standin.c) finds domains, their rings and their events."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

from tools.labs.xenstored.ring import Ring

_VIRQ_PORT = 1
_FIRST_DOMAIN_PORT = 1000
"""As in standin.c: the port on which the daemon hears that a domain ended, and that of domain 0's ring."""

MAX_EVENTS = 65536 // 4
"""How many events can wait for the daemon: what a FIFO of Linux holds."""

_DOM0_REMOTE_PORT = "1"
"""What a kernel tells the daemon about its own ring. Read as text, and no newline may follow."""


class Hypervisor:
    """Nothing but dom0 at first. `directory` is made anew, and removed by close()."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700)
        os.mkfifo(directory / "events", 0o600)
        self._events = _open(directory / "events")
        (directory / "xsd_port").write_text(_DOM0_REMOTE_PORT, "ascii")
        self.dom0 = Shared(self, 0)

    def build(self, domid: int) -> Shared:
        """A new domain's page and event channel."""
        self._dead(domid).unlink(missing_ok=True)
        return Shared(self, domid)

    def destroy(self, domid: int) -> None:
        """End a domain, and tell the daemon, which may have other events to deal with first."""
        self._dead(domid).touch()
        self.fire(_VIRQ_PORT)

    def fire(self, port: int) -> None:
        """Tell the daemon that something happened on one of its ports."""
        try:
            os.write(self._events, struct.pack("=I", port))
        except BlockingIOError:
            # MAX_EVENTS wait: the daemon does not run, and nothing is lost that it would ever read.
            pass

    def close(self) -> None:
        """Remove everything."""
        self.dom0.close()
        os.close(self._events)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _dead(self, domid: int) -> Path:
        return self.directory / f"dead.{domid}"


class Shared:
    """What one domain shares with the daemon: a ring, and an event channel in both directions.

    `events` becomes readable when the daemon has something to say; it is never closed before close().
    """

    def __init__(self, hypervisor: Hypervisor, domid: int) -> None:
        self._hypervisor = hypervisor
        self._port = _FIRST_DOMAIN_PORT + domid
        self._files = (hypervisor.directory / f"ring.{domid}", hypervisor.directory / f"wake.{domid}")
        self.ring = Ring(self._files[0])
        os.mkfifo(self._files[1], 0o600)
        self.events = _open(self._files[1])

    def notify(self) -> None:
        """Tell the daemon to look at the ring."""
        self._hypervisor.fire(self._port)

    def drain(self) -> None:
        """Forget the events up to now, before looking at the ring."""
        try:
            os.read(self.events, 65536)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Take the page and the channel away; a daemon that has them mapped keeps what it has."""
        self.ring.close()
        os.close(self.events)
        for file in self._files:
            file.unlink(missing_ok=True)


def _open(fifo: Path) -> int:
    # For both directions: then there is always a reader and a writer, and neither end of file nor SIGPIPE.
    return os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
