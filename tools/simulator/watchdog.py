"""Kills what the simulator started when the simulator itself is killed, so that it never leaves a process behind.

Linux's PR_SET_PDEATHSIG does not do here: it fires when the *thread* that started the process ends, and most are
started by threads that serve one connection; nor does it reach a process's own children. So one small process of its
own reads from a pipe which process groups live; when the pipe ends, its writer has died and the groups are killed.

This file runs as a script without site-packages, so it imports nothing of ours.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from typing import Callable


class Watchdog:
    """The simulator's side: keeps the other process informed. Methods may be called by any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
            # -I and -S: starts in a few milliseconds and depends on nothing in the environment.
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            # A session of its own: Ctrl-C at the terminal is for the simulator, not for its watchdog.
            start_new_session=True,
            env={},
        )

    def start(self, launch: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        """Start a process that leads a group of its own, which from now on dies with the simulator.

        OSError when it cannot be started, or when the simulator is about to end: nothing can slip in after close().
        """
        with self._guard:
            if self._process is None:
                raise OSError(errno.ESHUTDOWN, "the simulator is ending")
            process = launch()
            self._tell(b"+%d\n" % process.pid)
            return process

    def release(self, group: int) -> None:
        """That process group has ended."""
        with self._guard:
            self._tell(b"-%d\n" % group)

    def close(self) -> None:
        """End the other process; groups that are still guarded are killed."""
        with self._guard:
            process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()

    def _tell(self, line: bytes) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except BrokenPipeError:
            # Somebody killed the watchdog; the simulator works without it.
            pass


def watch() -> None:
    """The other side: follow the lines on standard input, and clean up at their end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin.buffer:
        group = int(line[1:])
        if line.startswith(b"+"):
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


if __name__ == "__main__":
    watch()
