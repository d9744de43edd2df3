"""The first process of a private server's namespace: it starts the server, and everything there ends with it.

Called as `supervisor.py USER DIRECTORY COMMAND…` by contained.py. Lines on standard input are orders: `leader NUMBER`
signals the server's first process, `all NUMBER` every process but this one. It ends, and the kernel kills what is left,
when the server's first process ends or standard input does, as it does when whoever gives the orders is killed.

This file runs as a script without site-packages, so it imports nothing of ours.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys

MOUNT_POINT = "/mnt"
"""Where DIRECTORY stands in the namespace, so that USER reaches it whatever stands above it on this machine."""


def supervise(user: str, directory: str, command: list[str]) -> int:
    """Run the command as that user until it, or standard input, ends. Its exit status; 128 + n for a signal n."""
    subprocess.run(["mount", "--bind", directory, MOUNT_POINT], check=True)
    server = subprocess.Popen(
        ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--", *command],
        stdin=subprocess.DEVNULL,
        cwd=MOUNT_POINT,
        start_new_session=True,
    )
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing)
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(reading, selectors.EVENT_READ)
        orders = b""
        while True:
            # Before waiting: it may have ended before anybody listened.
            status = _reap(server.pid)
            if status is not None:
                return status if status >= 0 else 128 - status
            ready = [key.fd for key, _ in selector.select()]
            if reading in ready:
                os.read(reading, 4096)
            if 0 in ready:
                piece = os.read(0, 4096)
                if not piece:
                    return 0
                *lines, orders = (orders + piece).split(b"\n")
                for line in lines:
                    whom, number = line.split()
                    # -1 is everybody in the namespace but its first process.
                    os.kill(server.pid if whom == b"leader" else -1, int(number))


def _reap(leader: int) -> int | None:
    """Take the ended processes away, orphans too. The leader's exit code, once it has ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == 0:
            return None
        if pid == leader:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    sys.exit(supervise(sys.argv[1], sys.argv[2], sys.argv[3:]))
