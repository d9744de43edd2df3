"""A program with everything that it starts, in namespaces of its own: all of it can be signalled, and ends, at once.

A server's processes change their user, session and group, so neither a process group nor PR_SET_PDEATHSIG holds them
together. A process namespace does: when its first process ends, the kernel kills all others before it tells anybody.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.labs.cache import LabError

from .supervisor import MOUNT_POINT

INSIDE = Path(MOUNT_POINT)
"""Where the program finds its directory."""

_SUPERVISOR = Path(__file__).with_name("supervisor.py")

_NAMESPACES = ("--mount", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc")
"""System V's shared memory would outlast a killed PostgreSQL; that of a namespace of its own does not."""


class Contained:
    """A running program. It ends with this process too, however that happens.

    command: looks for its files below INSIDE. user: whose rights it has. directory: what is at INSIDE, and is all that
    it may write. environment: all of it. log: gets what it says.
    LabError when it cannot be started.
    """

    def __init__(
        self, command: Sequence[str], *, user: str, directory: Path, environment: Mapping[str, str], log: Path
    ) -> None:
        if os.geteuid() != 0:
            raise LabError("a server of a test's own needs the superuser: it is run as another user, in namespaces")
        supervisor = [sys.executable, "-I", "-S", str(_SUPERVISOR), user, str(directory)]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                ["unshare", *_NAMESPACES, "--", *supervisor, *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
                | dict(environment),
                cwd="/",
                # Ctrl-C at the terminal is not for it.
                start_new_session=True,
            )

    @property
    def ended(self) -> bool:
        """Whether all of it has ended."""
        return self._process.poll() is not None

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes."""
        self._order(b"all", number)

    def terminate(self, number: signal.Signals, timeout: float) -> None:
        """Ask the program to end, by a signal to its first process. LabError, and SIGKILL, after `timeout` seconds."""
        self._order(b"leader", number)
        try:
            self.wait(timeout)
        except LabError:
            self.kill()
            raise

    def wait(self, timeout: float) -> int:
        """Wait for its end; its exit status. LabError when it is still there after `timeout` seconds."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise LabError(f"the program did not end within {timeout:g} s") from None
        finally:
            if self.ended:
                self._close()

    def kill(self) -> None:
        """End all of it by SIGKILL. When this returns, no process is left. Idempotent."""
        for pid in self._first():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if not self._first():
            self._process.kill()
        self._process.wait()
        self._close()

    def pids(self) -> list[int]:
        """Its processes as this machine numbers them; of the program only, not what watches it."""
        (first,) = self._first() or [0]
        return [pid for pid in _descendants(self._process.pid) if pid not in (self._process.pid, first)]

    def _first(self) -> list[int]:
        """The namespace's first process, unless it has ended."""
        return [] if self.ended else _children(self._process.pid)

    def _order(self, whom: bytes, number: signal.Signals) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"%s %d\n" % (whom, number))
            self._process.stdin.flush()
        except BrokenPipeError:
            # It has ended already.
            pass

    def _close(self) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _descendants(pid: int) -> list[int]:
    return [pid, *(each for child in _children(pid) for each in _descendants(child))]


def own_directory(path: Path, user: str, package: str) -> Path:
    """`path` as a new directory that belongs to `user`. LabError when there is no such user: it names the package."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise LabError(f"there is no user {user} on this machine: install Debian's package {package}") from None
    path.mkdir(mode=0o700)
    os.chown(path, entry.pw_uid, entry.pw_gid)
    return path


def own_file(path: Path, content: str | bytes) -> None:
    """A file that only the owner of its directory may read."""
    path.touch(mode=0o600)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    owner = path.parent.stat()
    os.chown(path, owner.st_uid, owner.st_gid)
