"""Compute services that start in a tenth of a second: forked from a process that has imported everything.

Run as a program, it is that process. Orders are lines of JSON on its standard input; it answers on its standard output,
where services say that they are ready, too. All of them end with whoever gives the orders.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable

CHECKOUT = Path(__file__).resolve().parents[3]

_PR_SET_PDEATHSIG = 1
"""Linux's prctl(2)."""

WRITES = (
    "start_action",
    "begin_task",
    "create_instance",
    "update_instance",
    "conclude",
    "finish_action",
    "save_volume",
    "delete_volume",
    "save_interface",
    "delete_interface",
    "create_migration",
    "set_migration",
    "save_agent",
    "open_session",
)
"""Methods of the repository at which a service can be told to end."""


class ServiceDied(AssertionError):
    """Raised when a service ends although nobody killed it."""


class Zygote:
    """Starts and kills services of one configuration. For one thread, the one that made it.

    conf: the configuration file. log: where services write to. trigger: see _die_at().
    """

    def __init__(self, conf: Path, log: Path, trigger: Path) -> None:
        self._log = log
        self._conf = conf
        self._trigger = trigger
        self._pid: int | None = None
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.contract.crashes.zygote"],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._unread = b""
        assert self._read_line(60.0) == "imported"

    def start(self) -> None:
        """Start a service; it is not ready yet."""
        assert self._pid is None
        self._order(start=str(self._conf), log=str(self._log), trigger=str(self._trigger))
        word, pid = self._read_line(30.0).split()
        assert word == "forked"
        self._pid = int(pid)

    def await_ready(self, timeout: float = 120.0) -> None:
        """Wait until it serves; ServiceDied when it ends before that, by itself or by _die_at()."""
        line = self._read_line(timeout)
        if line != "ready":
            self._pid = None
            raise ServiceDied(f"the service {line}: {self._log.read_text()[-3000:]}")

    def kill(self) -> None:
        """End it with SIGKILL, and wait until it has. Nothing happens when it has ended already."""
        if self._pid is None:
            return
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        while not self._read_line(30.0).startswith("ended"):
            pass
        self._pid = None

    def terminate(self) -> int:
        """Ask it to end, as systemd does; its exit status."""
        assert self._pid is not None
        os.kill(self._pid, signal.SIGTERM)
        line = self._read_line(120.0)
        assert line.startswith("ended"), line
        self._pid = None
        return int(line.split()[1])

    def close(self) -> None:
        """End everything."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def _order(self, **members: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(members).encode() + b"\n")
        self._process.stdin.flush()

    def _read_line(self, timeout: float) -> str:
        line = self._next_line(timeout)
        if line is None:
            raise ServiceDied(f"nothing was heard for {timeout:g} s: {self._said()}")
        return line

    def _next_line(self, timeout: float) -> str | None:
        output = self._process.stdout
        assert output is not None
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None
                piece = os.read(output.fileno(), 4096)
                if not piece:
                    raise ServiceDied(f"the zygote ended with status {self._process.wait()}")
                self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def _said(self) -> str:
        return self._log.read_text()[-3000:] if self._log.exists() else ""


# The process itself


def _end_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _say(line: str) -> None:
    # In one piece: services write to the same pipe.
    os.write(1, line.encode() + b"\n")


def _die_at(trigger: Path) -> None:
    """Let the service kill itself where the file says, once there is one: `METHOD before` or `METHOD after`."""
    from compute_driver.db.repository import Repository

    def dying(name: str) -> Callable[..., Any]:
        method = getattr(Repository, name)

        def call(*arguments: Any, **named: Any) -> Any:
            _die_if(trigger, f"{name} before")
            answer = method(*arguments, **named)
            _die_if(trigger, f"{name} after")
            return answer

        return call

    for name in WRITES:
        setattr(Repository, name, dying(name))


def _die_if(trigger: Path, here: str) -> None:
    try:
        there = trigger.read_text()
    except FileNotFoundError:
        return
    if there == here:
        trigger.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def _serve(order: dict[str, str]) -> None:
    """In the forked process: be a service."""
    _end_with_parent()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    status = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
        from compute_driver import config
        from compute_driver.observing import logs
        from compute_driver.service import process

        _die_at(Path(order["trigger"]))
        conf = config.load(order["start"])
        logs.set_up(conf.logging.format, conf.logging.level, host=conf.host, secrets=[])
        status = process.serve(conf)
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def main() -> int:
    """Fork a service for each order; tell when one has ended."""
    _end_with_parent()
    from compute_driver import concurrency

    concurrency.set_up("threading")
    import oslo_messaging._drivers.impl_rabbit  # noqa: F401
    import psycopg  # noqa: F401
    import pymysql  # noqa: F401

    import compute_driver.notifications
    import compute_driver.service.assembly
    import compute_driver.service.process
    import compute_driver.service.watching  # noqa: F401

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    _say("imported")
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(reading, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == reading:
                    os.read(reading, 4096)
                    _reap()
                    continue
                # Orders come one at a time: each is answered before the next.
                line = os.read(0, 65536)
                if not line:
                    return 0
                pid = os.fork()
                if not pid:
                    os.close(reading)
                    os.close(writing)
                    _serve(json.loads(line))
                _say(f"forked {pid}")


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        _say(f"ended {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    sys.exit(main())
