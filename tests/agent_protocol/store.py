"""What the tests of XenStore's client and of the dom0 plugin share: a store, a domain in it, work in the background."""

from __future__ import annotations

import contextlib
import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Callable, TypeVar

from agent_protocol import wire
from agent_protocol.wire import Packet
from agent_protocol.xenstore import Client
from tools.simulator.xenstore.server import XenStoreServer

DEADLINE = 20.0
"""Seconds that anything may take before a test gives up on it."""

_T = TypeVar("_T")


@contextlib.contextmanager
def running_server() -> Iterator[XenStoreServer]:
    """A simulated daemon whose sockets have short paths."""
    with tempfile.TemporaryDirectory(prefix="xs-") as directory:
        server = XenStoreServer(Path(directory))
        server.start()
        try:
            yield server
        finally:
            server.stop()


def lay_out(dom0: Client, domid: int, vm: str) -> str:
    """Write a domain's nodes as the toolstack does; returns the domain's path."""
    domain = f"/local/domain/{domid}"
    dom0.mkdir(domain)
    dom0.set_permissions(domain, ["n0", f"r{domid}"])
    dom0.write(f"{domain}/vm", f"/vm/{vm}".encode())
    dom0.mkdir(f"{domain}/data")
    dom0.set_permissions(f"{domain}/data", [f"n{domid}"])
    return domain


def in_background(function: Callable[[], _T]) -> Future[_T]:
    """Run `function` in a thread of its own, which cannot keep the test run from ending."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


class StandIn:
    """A daemon of which the test plays every packet; `client` is connected to it."""

    def __init__(self, timeout: float = DEADLINE) -> None:
        self._ours, theirs = socket.socketpair()
        self._ours.settimeout(DEADLINE)
        # Small, so that it is full soon when the test does not read.
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.client = Client(theirs.detach(), timeout)

    def request(self) -> Packet:
        """The next request of the client."""
        operation, request_id, transaction_id, length = struct.unpack("<IIII", self._exactly(16))
        return Packet(operation, request_id, transaction_id, self._exactly(length))

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._ours.sendall(data)

    def answer(self, request: Packet, payload: bytes, operation: int | None = None) -> None:
        """Answer one request, with its own packet type unless told otherwise."""
        kind = request.operation if operation is None else operation
        self.send(wire.encode(Packet(kind, request.request_id, request.transaction_id, payload)))

    def die(self) -> None:
        """Close the daemon's end."""
        self._ours.close()

    def close(self) -> None:
        """Close both ends."""
        self._ours.close()
        self.client.close()

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._ours.recv(size - len(data))
            assert part, "the client closed the connection"
            data += part
        return data
