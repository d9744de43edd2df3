"""The one way in which the simulator runs other programs: guests' agents and dom0 plugins.

Each gets a process group of its own, which ends as a whole, is always reaped, and dies with the simulator.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from typing import IO, Callable

from .watchdog import Watchdog


class Program:
    """A running program and its process group.

    arguments: the program's path and its arguments.
    environment: all of it; nothing is inherited.
    output, errors: open files for standard output and standard error. Standard input is empty.
    on_exit: called once, by a thread, when the program has ended by itself or not.
    stop_ends: whether being stopped, as by SIGSTOP, counts as an end: the group is killed, and `was_stopped` tells.

    OSError when it cannot be executed, or the simulator is ending.
    """

    def __init__(
        self,
        watchdog: Watchdog,
        arguments: list[str],
        environment: dict[str, str],
        output: IO[bytes],
        errors: IO[bytes],
        on_exit: Callable[[], None] = lambda: None,
        stop_ends: bool = False,
    ) -> None:
        self._watchdog = watchdog
        self._process = watchdog.start(
            lambda: subprocess.Popen(
                arguments,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                cwd="/",
                start_new_session=True,
            )
        )
        self._on_exit = on_exit
        self._guard = threading.Lock()
        self._reaped = False
        self._ended = threading.Event()
        self._stop_ends = stop_ends
        self.was_stopped = False
        threading.Thread(target=self._reap, name=f"reaper-{self.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        """The program's process id, which is its group's id too."""
        return self._process.pid

    @property
    def exit_code(self) -> int:
        """How it ended, as subprocess says it: negative for a signal. Only once wait() has returned True."""
        code = self._process.returncode
        assert code is not None
        return code

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended. False when `timeout` seconds have passed before."""
        return self._ended.wait(timeout)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group, if it still lives."""
        with self._guard:
            if not self._reaped:
                os.killpg(self.pid, number)

    def stop(self, grace: float) -> None:
        """End the group: SIGTERM, and after `grace` seconds SIGKILL. With no grace, SIGKILL at once."""
        if grace > 0:
            self.signal(signal.SIGTERM)
            if self.wait(grace):
                return
        self.signal(signal.SIGKILL)
        self.wait()

    def _reap(self) -> None:
        if self._stop_ends:
            found = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            if found is not None and found.si_code == os.CLD_STOPPED:
                self.was_stopped = True
                os.killpg(self.pid, signal.SIGKILL)
        # While the leader is a zombie nobody else can get its number, so the rest of its group can be killed safely.
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with self._guard:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._watchdog.release(self.pid)
            self._process.wait()
            self._reaped = True
        self._on_exit()
        self._ended.set()
