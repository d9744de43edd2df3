"""A computer that runs Windows, with a disk, and perhaps with a XenStore."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tools.labs.cache import LabError
from tools.labs.wine.programs import Wine
from tools.labs.wine.running import Running, children

BOOT_SECONDS = 60.0
"""Until Windows must have booted: it takes two, this is for a machine that is very busy."""

SHUTDOWN_SECONDS = 20.0
"""How long each service may take to stop."""

_STOP_SECONDS = 10.0

_CHECKOUT = Path(__file__).resolve().parents[3]

_NAMESPACES = ("--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc")


class Machine(Running):
    """Boots when it is made. It ends with this process, however that happens: its standard input is then closed.

    disk: as of disk.py, and used by no other machine. store: the path of the XenStore socket of the guest's domain;
    without one, its drivers wait for a store. program: Wine, if it is known where it is.

    Of a network it has nothing but 127.0.0.1, and that is its own.
    LabError when Windows does not boot.
    """

    def __init__(self, disk: Path, store: Path | None = None, program: Wine | None = None) -> None:
        if os.geteuid() != 0:
            raise LabError("a Windows of a test's own needs the superuser: it has namespaces of its own")
        super().__init__(disk, 0, program)
        arguments = [str(self._wine.loader), *([str(store)] if store else [])]
        self._log = self.disk / "inside.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["unshare", *_NAMESPACES, "--", sys.executable, "-m", "tools.labs.wine.inside", *arguments],
                cwd=self.disk / "drive_c",
                env={**self._environment, "PYTHONPATH": str(_CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._await_boot()
            self._first = children(self._process.pid)[0]
        except BaseException:
            self.close()
            raise

    def _await_boot(self) -> None:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            is_told = selector.select(BOOT_SECONDS)
        if not is_told or not self._process.stdout.readline():
            why = self._log.read_text("utf-8", "replace")[-2000:]
            raise LabError(f"Windows {'does not boot' if is_told else f'did not boot in {BOOT_SECONDS:g} s'}: {why}")

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def ended(self) -> bool:
        """Whether it is off."""
        return self._process.poll() is not None

    def shut_down(self, services: Sequence[str] = ()) -> None:
        """Stop these services, as Windows does when it shuts down, and end everything. Idempotent."""
        if not self.ended:
            for name in services:
                with contextlib.suppress(subprocess.TimeoutExpired, TimeoutError):
                    self.run(["net.exe", "stop", name], timeout=SHUTDOWN_SECONDS, check=False)
                    self.await_service(name, "STOPPED", SHUTDOWN_SECONDS)
            # What is in the registry reaches the disk when its server ends.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._do([str(self._wine.server), "--kill"])
                self._do([str(self._wine.server), "--wait"])
        self.close()

    def close(self) -> None:
        """Cut its power: every process is gone when this returns. Idempotent."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            for child in children(self._process.pid):
                os.kill(child, signal.SIGKILL)
            self._process.wait()

    def _do(self, command: Sequence[str]) -> None:
        subprocess.run(
            self.enter(command),
            cwd="/",
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_STOP_SECONDS,
            check=False,
        )
