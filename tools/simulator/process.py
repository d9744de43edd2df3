"""A simulated XenServer as a process of its own, for tests and for the quickstart.

with SimulatorProcess() as simulator:
    session = XenAPI.Session(simulator.url)
    session.login_with_password(simulator.username, simulator.password)
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from .control import Control
from .initial_guests import InitialGuest

START_TIMEOUT = 30.0
"""Seconds until the simulator must be ready. It needs less than one; this is for a machine that is very busy."""

STOP_TIMEOUT = 20.0
"""Seconds until it must have ended. Guests have five to end by themselves."""

_CHECKOUT = Path(__file__).resolve().parents[2]


class SimulatorError(RuntimeError):
    """Raised when the simulator does not start. Its own words are on standard error."""


class SimulatedHost(NamedTuple):
    """A host of a simulated pool. url: HTTPS with --tls, plain_url without. fingerprint: empty without --tls."""

    name: str
    uuid: str
    url: str
    plain_url: str
    fingerprint: str
    xenstore_socket: Path


class SimulatorProcess:
    """Starts a simulator when it is made or entered, and ends it when it is left.

    arguments: of `xenward-simulator`, besides --exit-with-stdin.
    start_timeout: seconds until it must be ready; SimulatorError otherwise.
    detached: let it outlive this process. Otherwise it ends when this process dies, however that happens: its
    standard input is then closed.
    log: where what it and its children say on standard error goes; this process's standard error otherwise.
    """

    def __init__(
        self,
        arguments: Sequence[str] = (),
        start_timeout: float = START_TIMEOUT,
        *,
        detached: bool = False,
        log: Path | None = None,
    ) -> None:
        self._arguments = [*arguments] if detached else ["--exit-with-stdin", *arguments]
        self._detached = detached
        self._log = log
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._ready: dict[str, Any] = {}

    def __enter__(self) -> SimulatorProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it is ready. SimulatorError when it ends or the time is over before."""
        environment = dict(os.environ)
        # The child must import the same code as this process, from wherever it is started.
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_CHECKOUT), environment.get("PYTHONPATH")]))
        with self._log.open("ab") if self._log else nullcontext() as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tools.simulator", *self._arguments],
                stdin=subprocess.DEVNULL if self._detached else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=self._detached,
                env=environment,
            )
        try:
            self._ready = json.loads(self._read_line())
        except BaseException:
            self.stop()
            raise

    def _read_line(self) -> bytes:
        assert self._process is not None
        output = self._process.stdout
        assert output is not None
        deadline = time.monotonic() + self._start_timeout
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise SimulatorError(f"the simulator was not ready within {self._start_timeout:g} s")
                piece = os.read(output.fileno(), 4096)
                if not piece:
                    raise SimulatorError(f"the simulator ended with status {self._process.wait()} before it was ready")
                line += piece
        return line

    def stop(self) -> None:
        """End it and everything that it started. Does nothing when it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdout is not None
        if process.stdin is None:
            process.terminate()
        else:
            process.stdin.close()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            # Its watchdog then ends what it leaves behind.
            process.kill()
            process.wait()
        process.stdout.close()

    @property
    def pid(self) -> int:
        """The simulator's process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def url(self) -> str:
        """Where its API is: HTTPS with --tls, plain HTTP otherwise."""
        return str(self._ready["url"])

    @property
    def plain_url(self) -> str:
        """Where its API is without TLS."""
        return str(self._ready["plain_url"])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its certificate, such as `0A:1B:…`; empty without --tls."""
        return str(self._ready["fingerprint"] or "")

    @property
    def hosts(self) -> list[SimulatedHost]:
        """The hosts of its pool, which share the rest. The first one began as the coordinator."""
        return [
            SimulatedHost(
                str(host["name"]),
                str(host["uuid"]),
                str(host["url"]),
                str(host["plain_url"]),
                str(host["fingerprint"] or ""),
                Path(host["xenstore_socket"]),
            )
            for host in self._ready["hosts"]
        ]

    @property
    def guests(self) -> list[InitialGuest]:
        """The guests that run from the start (--guests). Their agents need a moment more."""
        return [InitialGuest(str(guest["name"]), str(guest["uuid"])) for guest in self._ready["guests"]]

    @property
    def username(self) -> str:
        """Who may log in."""
        return str(self._ready["username"])

    @property
    def password(self) -> str:
        """With which password."""
        return str(self._ready["password"])

    @property
    def control(self) -> Control:
        """What lets it misbehave, and tells what it was asked (control.py)."""
        return Control(Path(self._ready["admin_socket"]))

    @property
    def xenstore_socket(self) -> Path:
        """dom0's XenStore socket."""
        return Path(self._ready["xenstore_socket"])

    @property
    def state(self) -> Path:
        """Its state directory."""
        return Path(self._ready["state"])

    @property
    def plugins(self) -> Path:
        """The directory of its dom0 plugins."""
        return Path(self._ready["plugins"])

    def guest_root(self, vm_uuid: str) -> Path:
        """The root directory of a VM's guest; it exists from the first boot until VM.destroy."""
        return self.state / "guests" / vm_uuid / "root"

    def agent_pid(self, vm_uuid: str) -> int:
        """The process id of the agent in a VM's guest. FileNotFoundError while there is none."""
        return int((self.state / "guests" / vm_uuid / "agent.pid").read_text("ascii"))
