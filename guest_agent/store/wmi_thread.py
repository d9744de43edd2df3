"""A thread that owns a connection to WMI: COM objects belong to the apartment of the thread that made them."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import Callable, TypeVar

from .wmi_connection import WmiConnection, WmiError

T = TypeVar("T")


class Late(Exception):
    """Raised when a job did not end in time. It may still take effect."""


class Ended(Exception):
    """Raised for a job that comes after end()."""


class _Job:
    """What the thread is to do, and what came of it."""

    def __init__(self, work: Callable[[WmiConnection], object]) -> None:
        self.work = work
        self.done = threading.Event()
        self.result: object = None
        self.error: BaseException | None = None

    def run(self, connection: WmiConnection) -> None:
        try:
            self.result = self.work(connection)
        except BaseException as error:
            # The frames it went through would keep COM objects alive in the thread of who asked.
            self.error = error.with_traceback(None)
            error.__context__ = None
        self.done.set()

    def refuse(self, error: BaseException) -> None:
        self.error = error
        self.done.set()


class WmiThread:
    """One thread, one connection, one job at a time.

    connect: called in the thread; when it fails, so does every job. The thread does not keep the process alive.
    """

    def __init__(self, connect: Callable[[], WmiConnection]) -> None:
        self._connect = connect
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._ending = threading.Lock()  # held where a job is added, or the last one
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="xenward-wmi", daemon=True)
        self._thread.start()

    def do(self, work: Callable[[WmiConnection], T], timeout: float) -> T:
        """What `work` gives or raises. Late after `timeout` seconds, Ended after end()."""
        job = _Job(work)
        with self._ending:
            if self._ended:
                raise Ended
            self._jobs.put(job)
        if not job.done.wait(timeout):
            raise Late
        if job.error is not None:
            raise job.error
        result: T = job.result  # type: ignore[assignment]
        return result

    def end(self, last: Callable[[WmiConnection], object], timeout: float) -> None:
        """Do `last` after the job in hand, close the connection, and end; wait for that for `timeout` seconds.

        When it takes longer it happens without anybody waiting. Whatever `last` raises is lost.
        """
        with self._ending:
            if not self._ended:
                self._ended = True
                self._jobs.put(_Job(last))
                self._jobs.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            connection = self._connect()
        except BaseException as error:
            while (job := self._jobs.get()) is not None:
                job.refuse(error)
            return
        try:
            while (job := self._jobs.get()) is not None:
                job.run(connection)
                del job
        finally:
            with contextlib.suppress(WmiError):
                connection.close()
