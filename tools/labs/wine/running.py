"""Windows that runs: its programs are run, its files and processes are found."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath

from tools.labs.wine.programs import Wine, wine

_POLL_SECONDS = 0.1


class Running:
    """Windows on a disk, in the namespaces of the process `first`. It is looked at from outside, and not ended here.

    program: Wine, if it is known where it is. LabError when it cannot be had.
    """

    def __init__(self, disk: Path, first: int, program: Wine | None = None) -> None:
        self.disk = disk.absolute()
        self._first = first
        self._wine = program or wine()
        self._environment = self._wine.environment(self.disk)

    def path(self, inside: str) -> Path:
        r"""Where a file of Windows, such as `C:\Windows`, is on this machine; by the case that it has on the disk."""
        place = self.disk / "drive_c"
        for name in PureWindowsPath(inside).parts[1:]:
            alike = [entry for entry in _names(place) if entry.lower() == name.lower()]
            place /= alike[0] if alike else name
        return place

    def run(
        self,
        command: Sequence[str],
        *,
        stdin: str = "",
        timeout: float = 60.0,
        check: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a Windows program to its end, with standard error behind standard output.

        command: its name or path, and its arguments. stdin: at most 64 KiB. timeout: seconds; TimeoutExpired after
        that, while the program may go on. check: whether AssertionError, with the output, is raised for an exit status
        other than 0. environment: further variables.
        """
        # Windows' Python does not start when its standard input or output is a file.
        process = subprocess.Popen(
            self.enter([str(self._wine.loader), *command]),
            cwd="/",
            env={**self._environment, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        with process:
            try:
                output = _talk(process, stdin.encode(), timeout)
            except BaseException:
                process.kill()
                raise
        told = output.decode("utf-8", "replace").replace("\r\n", "\n")
        if check and process.returncode != 0:
            raise AssertionError(f"{' '.join(command)} ended with {process.returncode}: {told}")
        return subprocess.CompletedProcess(list(command), process.returncode, told)

    def pids(self) -> list[int]:
        """All of its processes, Windows' own and Wine's, as this machine numbers them."""
        return descendants(self._first)

    def service_state(self, name: str) -> str:
        """Of a service: such as `RUNNING` or `STOPPED`; empty when there is none of that name."""
        said = self.run(["sc.exe", "query", name], check=False).stdout
        states = [line.split()[-1] for line in said.splitlines() if line.strip().startswith("STATE")]
        return states[0] if states else ""

    def await_service(self, name: str, state: str, timeout: float) -> None:
        """Until a service is in that state: `net stop` does not wait for it in Wine. TimeoutError after `timeout` s."""
        deadline = time.monotonic() + timeout
        while (found := self.service_state(name)) != state:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the service {name} is {found or 'missing'}, not {state}, after {timeout:g} s")
            time.sleep(_POLL_SECONDS)

    def enter(self, command: Sequence[str]) -> list[str]:
        """The command with which this machine runs one of its own programs in the namespaces."""
        # --wd: in the directory that the first process is in, which is C:\.
        return ["nsenter", f"--target={self._first}", "--all", "--wd", "--", *command]


def _talk(process: subprocess.Popen[bytes], said: bytes, timeout: float) -> bytes:
    """What a process has written when it ended: others that it left behind may keep its output open for ever."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(said)
        process.stdin.close()
    os.set_blocking(process.stdout.fileno(), False)
    output, deadline = b"", time.monotonic() + timeout
    ended = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            selector.register(ended, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select(max(0.0, deadline - time.monotonic()))}
                if not ready:
                    raise subprocess.TimeoutExpired(process.args, timeout, output)
                # Its last words were there before its end.
                piece = process.stdout.read()
                output += piece or b""
                if piece == b"":
                    selector.unregister(process.stdout)
                    process.wait(max(0.0, deadline - time.monotonic()))
                if ended in ready or piece == b"":
                    return output
    finally:
        os.close(ended)


def _names(directory: Path) -> list[str]:
    return os.listdir(directory) if directory.is_dir() else []  # noqa: PTH208


def children(pid: int) -> list[int]:
    """The children of a process, none when it is gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def descendants(pid: int) -> list[int]:
    """A process with its children, their children and so on."""
    return [pid, *(each for child in children(pid) for each in descendants(child))]
