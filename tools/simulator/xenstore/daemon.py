"""The simulated XenStore's sockets and the loop that serves them. Everything here belongs to the loop's thread."""

from __future__ import annotations

import logging
import os
import selectors
import socket
from pathlib import Path
from typing import Callable, Literal

from agent_protocol.wire import Operation, Packet
from tools.simulator.xenstore.connection import Connection
from tools.simulator.xenstore.permissions import DOM0
from tools.simulator.xenstore.requests import Requests
from tools.simulator.xenstore.tap import Tap, TapRecord

MAX_CONNECTIONS = 128
"""Connections to one socket. A further one is closed at once, so that a guest cannot use up file descriptors."""

_LOG = logging.getLogger(__name__)


class Daemon:
    """The store and its sockets: dom0's at once, one for each guest from `introduce` to `release`.

    OSError when dom0's socket cannot be made, as when another daemon serves it.
    """

    def __init__(self, directory: Path, tap: Tap | None) -> None:
        self._directory = directory
        self._tap = tap
        self._requests = Requests(self)
        self._listeners: dict[int, _Listener] = {}
        self._selector = selectors.DefaultSelector()
        try:
            self.add(DOM0)
        except OSError:
            self._selector.close()
            raise

    def when_readable(self, source: socket.socket, act: Callable[[], None]) -> None:
        """Call `act` whenever there is something to read from `source`, which stays the caller's."""
        self._selector.register(source, selectors.EVENT_READ, lambda _events: act())

    def serve(self) -> None:
        """Wait until something happens, however long that takes, and deal with it."""
        for key, events in self._selector.select():
            key.data(events)

    def close(self) -> None:
        """Close every connection and remove every socket."""
        for domid in list(self._listeners):
            self.discard(domid)
        self._selector.close()

    def introduce(self, domid: int) -> Path:
        """Give a guest its socket and fire @introduceDomain. A guest that has one keeps it, and nothing fires."""
        if not self.introduced(domid):
            self.add(domid)
            self._requests.announce("@introduceDomain")
        return self._listeners[domid].path

    def release(self, domid: int) -> None:
        """Take a guest's socket and its nodes away and fire @releaseDomain. LookupError when it has none."""
        if domid == DOM0 or not self.introduced(domid):
            raise LookupError(f"domain {domid} is not introduced")
        self.discard(domid)
        self._requests.released(domid)

    def introduced(self, domid: int) -> bool:
        """Whether the domain has its socket."""
        return domid in self._listeners

    def add(self, domid: int) -> None:
        """Make the domain's socket. OSError when that fails."""
        listener = _Listener(socket_path(self._directory, domid))
        self._listeners[domid] = listener
        self._listen(domid, listener)

    def discard(self, domid: int) -> None:
        """Close the domain's socket and its connections."""
        listener = self._listeners.pop(domid)
        if not listener.resting:
            self._selector.unregister(listener.socket)
        listener.close()

    def _listen(self, domid: int, listener: _Listener) -> None:
        listener.resting = False
        self._selector.register(listener.socket, selectors.EVENT_READ, lambda _events: self._accept(domid, listener))

    def _accept(self, domid: int, listener: _Listener) -> None:
        # The socket may have been closed since the selector looked.
        if self._listeners.get(domid) is not listener:
            return
        try:
            peer, _ = listener.socket.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            # Without a rest the loop would spin on a connection that it cannot take.
            _LOG.warning("no connection for domain %d until another ends: %s", domid, error)
            self._selector.unregister(listener.socket)
            listener.resting = True
            return
        if len(listener.connections) >= MAX_CONNECTIONS:
            _LOG.warning("domain %d has %d connections already", domid, MAX_CONNECTIONS)
            peer.close()
            return
        self._connect(domid, listener, peer)

    def _connect(self, domid: int, listener: _Listener, peer: socket.socket) -> None:
        def send(packet: Packet) -> None:
            direction: Literal["reply", "event"] = "event" if packet.operation == Operation.WATCH_EVENT else "reply"
            self._tell(TapRecord(domid, direction, packet.operation, packet.payload))
            connection.send(packet)

        def receive(packet: Packet) -> None:
            self._tell(TapRecord(domid, "request", packet.operation, packet.payload))
            try:
                self._requests.answer(session, packet)
            except Exception as error:
                # An error of ours must not take the store away from everybody else. Its text may quote the packet.
                _LOG.error("%s while answering domain %d", type(error).__name__, domid)
                connection.close()

        def closed() -> None:
            listener.connections.discard(connection)
            self._requests.close(session)
            for rested_domid, rested in self._listeners.items():
                if rested.resting:
                    self._listen(rested_domid, rested)

        session = self._requests.open(domid, send)
        connection = Connection(peer, self._selector, receive, closed)
        listener.connections.add(connection)

    def _tell(self, record: TapRecord) -> None:
        if self._tap is None:
            return
        try:
            self._tap(record)
        except Exception as error:
            _LOG.error("%s in the tap", type(error).__name__)


def socket_path(directory: Path, domid: int) -> Path:
    """Where the domain's socket is."""
    return directory / ("socket" if domid == DOM0 else f"domain-{domid}")


class _Listener:
    """A listening socket that belongs to a domain, and the connections that came through it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connections: set[Connection] = set()
        self.resting = False
        """Not watched by the loop, because the process has no file descriptor left for a connection."""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        try:
            _unlink_stale(path)
            self.socket.bind(os.fspath(path))
            # Nobody can connect before listen(), so nobody profits from the mode that the umask gave.
            path.chmod(0o600)
            self.socket.listen(MAX_CONNECTIONS)
        except OSError:
            self.socket.close()
            raise

    def close(self) -> None:
        self.socket.close()
        self.path.unlink(missing_ok=True)
        for connection in list(self.connections):
            connection.close()


def _unlink_stale(path: Path) -> None:
    """Remove the socket that a dead daemon left. One that is served stays, and bind() will say so."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
        except BlockingIOError:
            pass  # its backlog is full, so somebody listens
