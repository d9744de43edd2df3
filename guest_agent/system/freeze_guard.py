"""The processes that freeze file systems and thaw them again, whatever happens to the agent.

The worker freezes one after the other and may have to wait for the kernel. The guard waits for the agent's word. It
thaws when it is told to, when the agent's end of its pipe is closed, at the deadline, and on a signal. If the guard is
killed the worker thaws.

Nothing can be written to a frozen disk. So both are made before the first file system is frozen, and use nothing but
what is in memory: they start no program, load no module and write no log. Both hold the lock on the mark's directory.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import json
import os
import select
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from .mounts import Mount

CLOCK_SECONDS = 1.0
"""How late the guard may be. Waiting does not count the time that the guest is suspended, so it looks at the clock."""

FIFREEZE = 0xC0045877
FITHAW = 0xC0045878
"""linux/fs.h: _IOWR('X', 119, int) and _IOWR('X', 120, int)."""

ASKED, CLOSED, DEADLINE, SIGNAL, KILLED, ERROR = "asked", "closed", "deadline", "signal", "killed", "error"
"""Why all was thawed: the agent said so, the agent ended, it was time, a signal came, the guard or the worker was
killed, a file system could not be frozen."""

_END_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)

_UNKNOWN_CALL = (errno.EOPNOTSUPP, errno.ENOTTY)
"""What file systems say that do not know how to be frozen."""

_STOP, _DONE = b"s", b"d"
"""What the guard tells the worker: freeze no more; everything is thawed."""

_STOPPED = 255
"""What the worker tells when it was stopped. All else that it tells are numbers of errors, 0 for none."""


class Kernel:
    """The calls that freeze and thaw, and the clock; the edge at which tests put something else."""

    def open(self, mount: Mount) -> int:
        """A descriptor of the mount's directory. OSError when that cannot be reached because something lies over it."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(mount.mount_point, flags)
        told = Path(f"/proc/self/fdinfo/{descriptor}").read_text("ascii")
        if f"\nmnt_id:\t{mount.mount_id}\n" not in told:
            os.close(descriptor)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return descriptor

    def freeze(self, descriptor: int) -> None:
        """Bring the file system to a halt. OSError EBUSY when it is already, EOPNOTSUPP when it cannot be."""
        fcntl.ioctl(descriptor, FIFREEZE, 0)

    def thaw(self, descriptor: int) -> None:
        """Let it go on. OSError EINVAL when it is not frozen."""
        fcntl.ioctl(descriptor, FITHAW, 0)

    def now(self) -> float:
        """Seconds of a clock that runs while the guest is suspended."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class Watch:
    """The agent's side of a running guard.

    orders, reports: the agent's ends of two pipes, which close() closes; then the guard thaws, unless it is over.
    """

    def __init__(self, orders: int, reports: int) -> None:
        self._orders = orders
        self._reports = reports
        self._pending = b""

    def receive(self, seconds: float) -> dict[str, Any] | None:
        """The next report, None when there is none after that many seconds. EOFError when all were killed.

        The first tells what is `frozen` and `skipped`, as indices, and for how many seconds `until` the deadline. The
        last tells `why` it ended, what was `thawed`, was thawed `early` by somebody else or is still `unthawed`, how
        many `seconds` all had been frozen, and the `error`, an index and an errno, that a freeze ended with.
        """
        deadline = time.monotonic() + seconds
        while b"\n" not in self._pending:
            if not self._wait(deadline):
                return None
            received = os.read(self._reports, 65536)
            if not received:
                raise EOFError
            self._pending += received
        line, _, self._pending = self._pending.partition(b"\n")
        report: dict[str, Any] = json.loads(line)
        return report

    def thaw(self) -> None:
        """Tell the guard to thaw."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._orders, _STOP)

    def close(self) -> None:
        """Give the guard up."""
        os.close(self._orders)
        os.close(self._reports)

    def _wait(self, deadline: float) -> bool:
        return bool(select.select([self._reports], [], [], max(0.0, deadline - time.monotonic()))[0])


def start(kernel: Kernel, descriptors: Sequence[int], directory: int, mark: str, seconds: float) -> Watch:
    """Make the processes, which freeze what the descriptors are open on, in their order, for that many seconds.

    directory, mark: the directory that is locked, and the name of the file in it that is removed when all is thawed.
    OSError when the system has no room for processes or pipes.
    """
    deadline = kernel.now() + seconds
    ours: list[int] = []
    theirs: list[int] = []
    # No handler of the agent's may run in the guard.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        for kept, given in ((1, 0), (0, 1)):
            pipe = os.pipe()
            ours.append(pipe[kept])
            theirs.append(pipe[given])
        guard = _Guard(kernel, descriptors, directory, mark, deadline, theirs[0], theirs[1])
        between = os.fork()
        if between == 0:
            # The guard is nobody's child, so that nobody has to wait for its end.
            guard.run_detached()
        if os.waitpid(between, 0)[1] != 0:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return Watch(ours[0], ours[1])
    except BaseException:
        for descriptor in ours:
            os.close(descriptor)
        raise
    finally:
        for descriptor in theirs:
            os.close(descriptor)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Guard:
    """What guard and worker know. Each process has its own copy of what changes."""

    def __init__(
        self,
        kernel: Kernel,
        descriptors: Sequence[int],
        directory: int,
        mark: str,
        deadline: float,
        orders: int,
        reports: int,
    ) -> None:
        self._kernel = kernel
        self._descriptors = descriptors
        self._directory = directory
        self._mark = mark
        self._deadline = deadline
        self._orders = orders
        self._reports = reports
        self._signals = -1
        self._steps: int | None = None  # while the worker freezes
        self._worker = -1
        self._worker_pid = -1
        self._count = 0  # of those that the worker is through with
        self._stopped = False
        self._frozen: list[int] = []
        self._skipped: list[int] = []
        self._since: float | None = None
        self._error: tuple[int, int] | None = None
        self._ends: dict[str, list[int]] = {"thawed": [], "early": [], "unthawed": []}

    def run_detached(self) -> NoReturn:
        """Become the guard in a new process, and end this one. Its exit status is 0 when there is a guard."""
        status = 1
        try:
            if os.fork() == 0:
                self._run()
            status = 0
        finally:
            os._exit(status)

    def _run(self) -> NoReturn:
        # An error in here ends the guard, and then the worker thaws.
        try:
            self._settle()
            self._guard()
        finally:
            os._exit(0)

    def _settle(self) -> None:
        """Depend on nothing of the agent's and keep nothing of it open, above all not its connection to the store."""
        gc.disable()  # what it would collect holds descriptors of the agent's, whose numbers are used again
        os.setsid()
        kept = {self._directory, self._orders, self._reports, *self._descriptors}
        null = os.open(os.devnull, os.O_RDWR)
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
        for descriptor in {0, 1, 2} - kept:
            os.dup2(null, descriptor)
        edges = [2, *sorted(kept - {0, 1, 2}), highest + 1]
        for low, high in zip(edges, edges[1:]):
            os.closerange(low + 1, high)
        self._signals, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(self._reports, False)
        for number in signal.valid_signals():
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_IGN if number == signal.SIGPIPE else signal.SIG_DFL)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in _END_SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        # Whatever else has to go when memory is short.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("-1000", "ascii")

    def _guard(self) -> None:
        self._start_worker()
        why = self._wait()
        now = self._kernel.now()
        if self._steps is not None:
            self._tell_worker(_STOP)
        while self._steps is not None and select.select([self._steps], [], [], 0)[0]:
            self._take_steps()
        self._thaw()
        while self._steps is not None:
            # The worker may sit in the kernel for long.
            self._take_steps()
            self._thaw()
        self._tell_worker(_DONE)
        os.waitpid(self._worker_pid, 0)
        self._end(why, now)

    def _tell_worker(self, word: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._worker, word)

    def _start_worker(self) -> None:
        self._steps, steps = os.pipe()
        words, self._worker = os.pipe()
        self._worker_pid = os.fork()
        if self._worker_pid == 0:
            try:
                for descriptor in (self._steps, self._worker, self._orders):
                    os.close(descriptor)
                self._work(steps, words)
            finally:
                os._exit(0)
        os.close(steps)
        os.close(words)

    def _wait(self) -> str:
        """Until all is to be thawed; tells why."""
        while True:
            remaining = self._deadline - self._kernel.now()
            if remaining <= 0:
                return DEADLINE
            sources = [self._orders, self._signals, *([] if self._steps is None else [self._steps])]
            ready = select.select(sources, [], [], min(remaining, CLOCK_SECONDS))[0]
            if self._orders in ready:
                return ASKED if os.read(self._orders, 1) else CLOSED
            if self._signals in ready:
                return SIGNAL
            if self._steps in ready and self._take_steps():
                if self._error is not None:
                    return ERROR
                if self._is_cut_short():
                    return KILLED
                if not self._frozen:
                    return ERROR
                self._since = self._kernel.now()
                until = self._deadline - self._since
                self._report({"frozen": self._frozen, "skipped": self._skipped, "until": until})

    def _take_steps(self) -> bool:
        """Take in what the worker has done; whether that was its last step."""
        assert self._steps is not None
        steps = os.read(self._steps, 4096)
        for number in steps:
            if number == _STOPPED:
                self._stopped = True
                break
            if number == 0:
                self._frozen.append(self._count)
            elif number in _UNKNOWN_CALL:
                self._skipped.append(self._count)
            else:
                self._error = (self._count, number)
            self._count += 1
        if steps:
            return False
        os.close(self._steps)
        self._steps = None
        if self._is_cut_short():
            # Whoever killed the worker may have done so between its freezing this one and telling so.
            self._frozen.append(self._count)
        return True

    def _is_cut_short(self) -> bool:
        """Whether the worker ended without a reason."""
        return self._error is None and not self._stopped and self._count < len(self._descriptors)

    def _thaw(self) -> None:
        while self._frozen:
            index = self._frozen.pop()
            try:
                self._kernel.thaw(self._descriptors[index])
            except OSError as error:
                self._ends["early" if error.errno == errno.EINVAL else "unthawed"].append(index)
            else:
                self._ends["thawed"].append(index)

    def _end(self, why: str, now: float) -> None:
        if not self._ends["unthawed"]:
            with contextlib.suppress(OSError):
                os.unlink(self._mark, dir_fd=self._directory)
        # Only now, when no process is left that would thaw what the next freeze freezes.
        fcntl.flock(self._directory, fcntl.LOCK_UN)
        seconds = 0.0 if self._since is None else now - self._since
        self._report({"why": why, "seconds": seconds, "error": self._error, **self._ends})

    def _report(self, report: dict[str, Any]) -> None:
        # The pipe takes 64 KiB from an agent that hangs. More is lost, but does not keep the guard from thawing.
        with contextlib.suppress(BrokenPipeError, BlockingIOError):
            os.write(self._reports, json.dumps(report).encode("ascii") + b"\n")

    def _work(self, steps: int, words: int) -> None:
        """What the worker does."""
        for index, descriptor in enumerate(self._descriptors):
            if select.select([words], [], [], 0)[0]:
                with contextlib.suppress(BrokenPipeError):
                    os.write(steps, bytes([_STOPPED]))
                break
            number = 0
            try:
                self._kernel.freeze(descriptor)
                self._frozen.append(index)
            except OSError as error:
                number = error.errno or errno.EIO
            with contextlib.suppress(BrokenPipeError):
                os.write(steps, bytes([number]))
            if number != 0 and number not in _UNKNOWN_CALL:
                break
        os.close(steps)
        while True:
            word = os.read(words, 16)
            if _DONE in word:
                return
            # Told to stop, it thaws too. The guard may not know of what was frozen last, and may wait for just that:
            # to thaw what lies in a file takes a write to that file.
            now = self._kernel.now()
            self._thaw()
            if not word:
                self._end(KILLED, now)
                return
