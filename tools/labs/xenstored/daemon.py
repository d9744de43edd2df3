"""A daemon's process: started, awaited, asked for what only dom0 may ask, and ended."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from typing import Literal

from agent_protocol import wire
from agent_protocol.wire import Operation, Packet
from tools.labs.cache import LabError
from tools.labs.xenstored.hypervisor import Hypervisor
from tools.labs.xenstored.programs import Programs, programs

Implementation = Literal["c", "ocaml"]
"""Xen's own xenstored, or oxenstored, which XenServer and XCP-ng run."""

_START_SECONDS = 20.0
"""Until the daemon must be ready. It takes less than a tenth of a second; this is for a machine that is very busy."""

_STOP_SECONDS = 5.0

_ANSWER_SECONDS = 10.0

_CONFIGURATION = """\
pid-file = {lab}/pid
xenstored-log-file = {directory}/oxenstored.log
access-log-file = {directory}/oxenstored-access.log
"""
"""What is added to Debian's own configuration of oxenstored, which would write below /var."""


class Daemon:
    """A running daemon whose socket for dom0 is `directory`/socket.

    LabError when it cannot be started, with its last words. It ends with this process, however that happens: its
    standard input is then closed.
    """

    def __init__(self, directory: Path, implementation: Implementation, hypervisor: Hypervisor) -> None:
        found = programs()
        log = directory / "daemon.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                _command(found, implementation, directory, hypervisor.directory),
                env={
                    "LD_PRELOAD": str(found.standin),
                    "LD_LIBRARY_PATH": str(found.libraries),
                    "XENSTORED_RUNDIR": str(directory),
                    "XENSTORED_ROOTDIR": str(hypervisor.directory),
                    "XENWARD_LAB": str(hypervisor.directory),
                },
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd="/",
                # Ctrl-C at the terminal is not for the daemon.
                start_new_session=True,
            )
        try:
            self._await(hypervisor, log)
            self._dom0 = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._dom0.settimeout(_ANSWER_SECONDS)
            self._dom0.connect(os.fspath(directory / "socket"))
        except BaseException:
            self.stop()
            raise
        self._guard = threading.Lock()

    def _await(self, hypervisor: Hypervisor, log: Path) -> None:
        """As soon as it serves anybody, the daemon tells dom0's kernel so, by the event channel of its ring."""
        ended = os.pidfd_open(self._process.pid)
        try:
            ready, _, _ = select.select([hypervisor.dom0.events, ended], [], [], _START_SECONDS)
        finally:
            os.close(ended)
        if hypervisor.dom0.events not in ready:
            said = log.read_text("utf-8", "replace")[-2000:]
            raise LabError(f"the XenStore daemon {'ended' if ready else 'was not ready in time'}: {said}")

    def ask(self, operation: Operation, *arguments: str | int) -> bytes:
        """Dom0's request and the answer to it. LabError when it is refused or nothing answers."""
        payload = wire.strings(*(str(argument) for argument in arguments))
        with self._guard:
            try:
                self._dom0.sendall(wire.encode(Packet(operation, 0, 0, payload)))
                header = wire.decode_header(self._exactly(wire.HEADER.size))
                answer = self._exactly(header.length)
            except OSError as error:
                raise LabError(f"the XenStore daemon does not answer {operation.name}: {error}") from None
        if header.operation != operation:
            raise LabError(f"the XenStore daemon refuses {operation.name}: {answer.rstrip(bytes(1)).decode('ascii')}")
        return answer

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._dom0.recv(size - len(data))
            if not part:
                raise ConnectionError("it closed the connection")
            data += part
        return data

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        return self._process.pid

    def stop(self) -> None:
        """End it. Idempotent."""
        if hasattr(self, "_dom0"):
            self._dom0.close()
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _command(found: Programs, implementation: Implementation, directory: Path, lab: Path) -> list[str]:
    if implementation == "c":
        return [str(found.xenstored), "--no-fork", "--pid-file", str(lab / "pid")]
    configuration = lab / "oxenstored.conf"
    shutil.copyfile(found.oxenstored_configuration, configuration)
    with configuration.open("a", encoding="utf-8") as file:
        file.write(_CONFIGURATION.format(directory=directory, lab=lab))
    return [str(found.oxenstored), "--no-fork", "--config-file", str(configuration)]
