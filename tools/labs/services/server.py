"""What the private servers have in common: they are started until a login works, stopped, killed, and frozen."""

from __future__ import annotations

import random
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.labs.cache import LabError

from .contained import Contained, own_directory

START_SECONDS = 90.0
"""Until a login must work. It takes a tenth of that at most; this is for a machine that is very busy."""

STOP_SECONDS = 60.0

_POLL_SECONDS = 0.05
"""None of the three tells all that is needed when it is ready, so the login is tried again and again."""

_PORTS = range(20000, 32000)
"""Below those that Linux gives to outgoing connections: nobody takes the port while the server is restarted."""


class Server(ABC):
    """A server on 127.0.0.1 that is this process's own, and ends with it.

    directory: an empty one; everything that the server knows is in it.
    LabError, with the server's last words, when anything about it does not work.
    """

    user: str
    """Whose rights it has."""
    package: str
    """Debian's package that it comes from."""
    stop_signal = signal.SIGTERM
    """Asks its first process for an orderly end."""

    def __init__(self, directory: Path) -> None:
        self._directory = own_directory(directory / self.package, self.user, self.package)
        self._log = directory / f"{self.package}.log"
        self._process: Contained | None = None
        self.port = free_port()

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients find it, with user and password."""

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """The server's command line; its first process is the server itself."""

    def _environment(self) -> Mapping[str, str]:
        return {}

    @abstractmethod
    def _log_in(self) -> None:
        """Log in and out again. Raises anything while that does not work."""

    def start(self) -> None:
        """Start it and wait until a login works. Does nothing when it runs."""
        if self._process is not None and not self._process.ended:
            return
        self._process = self._run(self._command())
        deadline = time.monotonic() + START_SECONDS
        while True:
            # Asked first: what it said last is complete then.
            ended = self._process.ended
            try:
                self._log_in()
            except Exception as error:
                if ended or time.monotonic() > deadline:
                    self.kill()
                    state = "ended" if ended else f"was not ready within {START_SECONDS:g} s"
                    raise LabError(f"{self.package} {state} ({type(error).__name__}): {self.said()}") from None
                time.sleep(_POLL_SECONDS)
            else:
                return

    def stop(self) -> None:
        """End it in an orderly way. Does nothing when it does not run."""
        if self._process is not None:
            # Whoever is frozen does not hear.
            self.resume()
            self._process.terminate(self.stop_signal, STOP_SECONDS)

    def restart(self) -> None:
        """Stop and start it."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """End all of its processes by SIGKILL, as a crash would. Does nothing when it does not run."""
        if self._process is not None:
            self._process.kill()

    def pause(self) -> None:
        """Freeze all of its processes by SIGSTOP: connections stay, and nobody answers."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on, by SIGCONT."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def pids(self) -> list[int]:
        """Its processes; none when it does not run."""
        return [] if self._process is None or self._process.ended else self._process.pids()

    def said(self) -> str:
        """The end of its log."""
        return self._log.read_text("utf-8", "replace")[-2000:] if self._log.exists() else ""

    def _run(self, command: Sequence[str]) -> Contained:
        return Contained(
            command, user=self.user, directory=self._directory, environment=self._environment(), log=self._log
        )

    def _prepare(self, command: Sequence[str]) -> None:
        """Run a program to its end, with the server's rights. LabError when it fails."""
        status = self._run(command).wait(START_SECONDS)
        if status != 0:
            raise LabError(f"{command[0]} ended with {status}: {self.said()}")


def program(package: str, *patterns: str) -> str:
    """The newest file that a pattern such as `usr/lib/*/bin/postgres` finds below `/`. LabError names the package."""
    found = [path for pattern in patterns for path in sorted(Path("/").glob(pattern), key=_version)]
    if not found:
        raise LabError(f"there is no /{patterns[-1]} on this machine: install Debian's package {package}")
    return str(found[-1])


def _version(path: Path) -> list[tuple[int, str]]:
    """Sorts 9 before 15."""
    return [(int(part) if part.isdigit() else 0, part) for part in path.parts]


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at. LabError when a hundred are taken."""
    for port in random.SystemRandom().sample(_PORTS, 100):
        with socket.socket() as probe:
            # As servers do: what is left of closed connections does not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise LabError("no port is free on this machine")
