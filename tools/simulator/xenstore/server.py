"""The simulated XenStore daemon, as the rest of the simulator holds it: start, stop, introduce, release.

One thread serves all clients. It wakes up for them and for these calls only: nothing is polled, nothing blocks.
"""

from __future__ import annotations

import collections
import contextlib
import os
import socket
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Callable, Protocol, TypeVar

from tools.simulator.xenstore.daemon import Daemon, socket_path
from tools.simulator.xenstore.permissions import DOM0
from tools.simulator.xenstore.requests import FIRST_RESERVED_DOMID
from tools.simulator.xenstore.tap import Tap, TapRecord

__all__ = ["StoreServer", "Tap", "TapRecord", "XenStoreServer"]

MAX_SOCKET_PATH = 107
"""In bytes: sun_path of struct sockaddr_un, without the final NUL."""

_T = TypeVar("_T")
_Socket = socket.socket


class StoreServer(Protocol):
    """What the simulator needs of a XenStore daemon, simulated or real. XenStoreServer says what each of them does."""

    @property
    def socket(self) -> Path: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def introduce(self, domid: int) -> Path: ...

    def release(self, domid: int) -> None: ...


class XenStoreServer:
    """A XenStore daemon with its sockets in `directory`, which is created when it is missing.

    tap: called with every packet in both directions, in the daemon's thread, which it must not keep waiting. What it
    raises is logged by the name of its type and otherwise ignored.

    ValueError when the sockets' paths would be longer than the system allows. Methods may be called from any thread,
    and from the tap. A store that is started again after `stop` is empty.
    """

    def __init__(self, directory: Path, tap: Tap | None = None) -> None:
        longest = os.fsencode(socket_path(directory, FIRST_RESERVED_DOMID - 1))
        if len(longest) > MAX_SOCKET_PATH:
            raise ValueError(
                f"{directory}: too long by {len(longest) - MAX_SOCKET_PATH} bytes; "
                f"the path of a socket in it may have {MAX_SOCKET_PATH}"
            )
        self._directory = directory
        self._tap = tap
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        """Guards the two below: no command is left behind when the loop ends."""
        self._running = False
        self._commands: collections.deque[Callable[[], None]] = collections.deque()

    @property
    def socket(self) -> Path:
        """dom0's socket."""
        return socket_path(self._directory, DOM0)

    def start(self) -> None:
        """Serve. Clients can connect when this returns.

        RuntimeError when it runs already, OSError when dom0's socket cannot be made, as when another daemon serves it.
        """
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                raise RuntimeError("the XenStore daemon runs already")
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._daemon = Daemon(self._directory, self._tap)
            self._wake_up, woken = socket.socketpair()
            self._wake_up.setblocking(False)
            woken.setblocking(False)
            self._daemon.when_readable(woken, lambda: self._obey(woken))
            self._thread = threading.Thread(target=self._loop, args=(woken,), name="xenstored", daemon=True)
            self._running = True
            self._thread.start()

    def stop(self) -> None:
        """Close every connection, remove the sockets, and end the thread. Idempotent."""
        with contextlib.suppress(RuntimeError):
            self._submit(self._end)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def introduce(self, domid: int) -> Path:
        """Give a guest its socket, and fire @introduceDomain. A guest that has one keeps it, and nothing fires.

        ValueError when no guest can have this domid, RuntimeError when the daemon does not run, OSError when the
        socket cannot be made.
        """
        if not DOM0 < domid < FIRST_RESERVED_DOMID:
            raise ValueError(f"{domid} is no guest's domid")
        return self._submit(lambda: self._daemon.introduce(domid))

    def release(self, domid: int) -> None:
        """Close a guest's connections, drop its watches and transactions, remove its socket, fire @releaseDomain.

        The nodes that it owned go, with all below them; to remove the others is up to the toolstack. LookupError when
        the guest is not introduced, RuntimeError when the daemon does not run.
        """
        self._submit(lambda: self._daemon.release(domid))

    def _submit(self, command: Callable[[], _T]) -> _T:
        """Run `command` in the loop's thread, and return or raise what it does."""
        if threading.current_thread() is self._thread:
            return command()
        done: Future[_T] = Future()

        def run() -> None:
            try:
                done.set_result(command())
            except Exception as error:
                done.set_exception(error)

        with self._lock:
            if not self._running:
                raise RuntimeError("the XenStore daemon does not run")
            self._commands.append(run)
            # When the buffer is full, the loop has enough to wake up for.
            with contextlib.suppress(BlockingIOError):
                self._wake_up.send(b"\0")
        return done.result()

    def _loop(self, woken: _Socket) -> None:
        try:
            while self._running:
                self._daemon.serve()
        finally:
            # From here on no command is accepted, and none may be left without an answer.
            self._end()
            self._obey_all()
            self._daemon.close()
            self._wake_up.close()
            woken.close()

    def _end(self) -> None:
        with self._lock:
            self._running = False

    def _obey(self, woken: _Socket) -> None:
        with contextlib.suppress(BlockingIOError):
            woken.recv(4096)
        self._obey_all()

    def _obey_all(self) -> None:
        while self._commands:
            self._commands.popleft()()
