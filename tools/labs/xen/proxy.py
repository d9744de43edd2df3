"""dom0's XenStore as a unix socket of this machine, so that any client of XenStore works on the real one."""

from __future__ import annotations

import select
import socket
import threading
from pathlib import Path

from .control import Door

_CHUNK = 65536


class StoreProxy:
    """Listens at `path`, which must not exist, until it is stopped; each connection is one to dom0's daemon."""

    def __init__(self, path: Path, door: Door) -> None:
        self._path = path
        self._door = door
        self._guard = threading.Lock()
        self._stopped = False
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._acceptor = threading.Thread(target=self._accept, name="xen-store", daemon=True)
        self._acceptor.start()

    def stop(self) -> None:
        """Close all connections and the socket."""
        with self._guard:
            self._stopped = True
            for connection in self._connections:
                connection.shutdown(socket.SHUT_RDWR)
        # Wakes the thread that accepts, which closing would not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        for thread in self._threads:
            thread.join()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), name="xen-store-client", daemon=True)
            self._threads = [known for known in self._threads if known.is_alive()] + [thread]
            thread.start()

    def _serve(self, near: socket.socket) -> None:
        with near:
            try:
                with self._door.open("xenstore") as far:
                    with self._guard:
                        if self._stopped:
                            return
                        self._connections |= {near, far}
                    try:
                        far.settimeout(None)
                        _join(near, far)
                    finally:
                        with self._guard:
                            self._connections -= {near, far}
            except OSError:
                # The client sees that its connection ends, as when the daemon dies.
                return


def _join(near: socket.socket, far: socket.socket) -> None:
    """Carry bytes between the two until either closes."""
    ends = {near: far, far: near}
    while True:
        for end in select.select(list(ends), [], [])[0]:
            data = end.recv(_CHUNK)
            if not data:
                return
            ends[end].sendall(data)
