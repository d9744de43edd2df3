"""A real XenStore daemon behind the interface of the simulated one (tools/simulator/xenstore/server.py)."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from agent_protocol.wire import Operation
from tools.labs.cache import LabError
from tools.labs.xenstored.daemon import Daemon, Implementation
from tools.labs.xenstored.hypervisor import MAX_EVENTS, Hypervisor
from tools.labs.xenstored.kernel import Kernel
from tools.labs.xenstored.loop import Loop
from tools.simulator.xenstore.daemon import socket_path
from tools.simulator.xenstore.permissions import DOM0
from tools.simulator.xenstore.requests import FIRST_RESERVED_DOMID
from tools.simulator.xenstore.server import MAX_SOCKET_PATH
from tools.simulator.xenstore.tap import Tap

_FRAME, _PORT = 1, 1
"""Where a guest's ring is, as INTRODUCE says it. The hypervisor's business, which is another one here."""


class XenstoredServer:
    """A XenStore daemon with its sockets and its log in `directory`, which is created when it is missing.

    implementation: which of the two real daemons.
    tap: must be None; a real daemon shows its packets to nobody. ValueError otherwise, and when the sockets' paths
    would be longer than the system allows.

    To the daemon's permissions every domain lives until it is released: as under a toolstack that creates a domain,
    lays out its nodes, and introduces it then. When it is released, the daemon does what it does when a domain dies.
    Methods may be called from any thread. A store that is started again after `stop` is empty.
    """

    def __init__(self, directory: Path, implementation: Implementation = "c", tap: Tap | None = None) -> None:
        if tap is not None:
            raise ValueError("the packets of a real XenStore daemon cannot be recorded")
        longest = os.fsencode(socket_path(directory, FIRST_RESERVED_DOMID - 1))
        if len(longest) > MAX_SOCKET_PATH:
            raise ValueError(
                f"{directory}: too long by {len(longest) - MAX_SOCKET_PATH} bytes; "
                f"the path of a socket in it may have {MAX_SOCKET_PATH}"
            )
        # The daemon's own directory is another process's: it needs the whole path.
        self._directory = directory.absolute()
        self._implementation: Implementation = implementation
        self._guard = threading.Lock()
        self._running: _Running | None = None

    @property
    def socket(self) -> Path:
        """dom0's socket."""
        return socket_path(self._directory, DOM0)

    @property
    def pid(self) -> int:
        """The daemon's process id, while it runs."""
        assert self._running is not None
        return self._running.daemon.pid

    def start(self) -> None:
        """Serve. Clients can connect when this returns.

        RuntimeError when it runs already, OSError when the daemon cannot be had or does not start.
        """
        with self._guard:
            if self._running is not None:
                raise RuntimeError("the XenStore daemon runs already")
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                self._running = _Running(self._directory, self._implementation)
            except LabError as error:
                raise OSError(str(error)) from None

    def stop(self) -> None:
        """End the daemon, close every connection and remove the sockets. Idempotent."""
        with self._guard:
            running, self._running = self._running, None
            if running is not None:
                running.stop()
                self.socket.unlink(missing_ok=True)

    def introduce(self, domid: int) -> Path:
        """Give a guest its socket, and fire @introduceDomain. A guest that has one keeps it, and nothing fires.

        ValueError when no guest can have this domid, RuntimeError when the daemon does not run, OSError when the
        socket cannot be made or the daemon refuses.
        """
        if not DOM0 < domid < FIRST_RESERVED_DOMID:
            raise ValueError(f"{domid} is no guest's domid")
        with self._guard:
            try:
                return self._here().introduce(domid)
            except LabError as error:
                raise OSError(str(error)) from None

    def release(self, domid: int) -> None:
        """End a domain: its connections, watches and transactions are gone and @releaseDomain fires.

        LookupError when the guest is not introduced, RuntimeError when the daemon does not run, OSError when it does
        not answer.
        """
        with self._guard:
            running = self._here()
            if domid not in running.kernels:
                raise LookupError(f"domain {domid} is not introduced")
            try:
                running.release(domid)
            except LabError as error:
                raise OSError(str(error)) from None

    def _here(self) -> _Running:
        if self._running is None:
            raise RuntimeError("the XenStore daemon does not run")
        return self._running


class _Running:
    """Everything that there is between start and stop."""

    def __init__(self, directory: Path, implementation: Implementation) -> None:
        self._directory = directory
        self.kernels: dict[int, Kernel] = {}
        self._hypervisor = Hypervisor(directory / "lab")
        try:
            self.daemon = Daemon(directory, implementation, self._hypervisor)
        except BaseException:
            self._hypervisor.close()
            raise
        self._loop = Loop("kernels")

    def introduce(self, domid: int) -> Path:
        path = socket_path(self._directory, domid)
        if domid not in self.kernels:
            shared = self._hypervisor.build(domid)
            try:
                self.daemon.ask(Operation.INTRODUCE, domid, _FRAME, _PORT)
                self.kernels[domid] = self._loop.do(lambda: Kernel(shared, path, self._loop.selector))
            except BaseException:
                shared.close()
                raise
        return path

    def release(self, domid: int) -> None:
        kernel = self.kernels.pop(domid)
        self._loop.do(kernel.close)
        self._hypervisor.destroy(domid)
        # The daemon takes one event in each of its rounds, and at least one round goes by until it answers.
        for _ in range(MAX_EVENTS + 1):
            if self.daemon.ask(Operation.IS_DOMAIN_INTRODUCED, domid) == b"F\0":
                return
        raise LabError(f"the XenStore daemon did not notice the end of domain {domid}")

    def stop(self) -> None:
        for kernel in self.kernels.values():
            self._loop.do(kernel.close)
        self._loop.stop()
        self.daemon.stop()
        self._hypervisor.close()
