"""What Linux does in a guest between /dev/xen/xenbus and the ring: many clients share one connection to the daemon.

Source of the behaviour: drivers/xen/xenbus/xenbus_dev_frontend.c and xenbus_comms.c. One thing differs, because a
socket has no errno: where the kernel lets write() fail (a WATCH or UNWATCH that is refused), the client gets an ERROR.
"""

from __future__ import annotations

import os
import selectors
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from agent_protocol import wire
from agent_protocol.wire import Operation, Packet
from tools.labs.xenstored.hypervisor import Shared
from tools.simulator.xenstore.connection import Connection

_MAX_CLIENTS = 128
"""How many connections may wait to be accepted."""

_MAX_REQUEST_ID = 0xFFFFFFFF


@dataclass
class _Client:
    """An open file of the guest: what must be undone when it is closed, and how many answers it still waits for."""

    connection: Connection | None = None
    transactions: set[int] = field(default_factory=set)
    watches: dict[bytes, tuple[bytes, bytes]] = field(default_factory=dict)
    """Path and token in the client's words, by the token that the daemon knows."""
    outstanding: int = 0


_Answer = Callable[[Packet], None]


class Kernel:
    """The kernel of one guest. Everything here belongs to the thread of the selector.

    path: the guest's view of XenStore is served there. OSError when the socket cannot be made.
    """

    def __init__(self, shared: Shared, path: Path, selector: selectors.BaseSelector) -> None:
        self._shared = shared
        self._selector = selector
        self._path = path
        self._clients: list[_Client] = []
        self._answers: dict[int, _Answer] = {}
        self._last_request = 0
        self._last_watch = 0
        self._outgoing = bytearray()
        self._incoming = bytearray()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.setblocking(False)
            path.unlink(missing_ok=True)
            self._listener.bind(os.fspath(path))
            path.chmod(0o600)
            self._listener.listen(_MAX_CLIENTS)
        except OSError:
            self._listener.close()
            raise
        selector.register(self._listener, selectors.EVENT_READ, lambda _events: self._accept())
        selector.register(shared.events, selectors.EVENT_READ, lambda _events: self._woken())

    def close(self) -> None:
        """The guest is gone from one moment to the next: nothing is cleaned up with the daemon."""
        self._selector.unregister(self._listener)
        self._selector.unregister(self._shared.events)
        self._listener.close()
        self._path.unlink(missing_ok=True)
        clients, self._clients = self._clients, []
        for client in clients:
            if client.connection is not None:
                client.connection.close()
        self._shared.close()

    # The guest's processes

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        client = _Client()
        self._clients.append(client)
        client.connection = Connection(
            peer, self._selector, lambda packet: self._request(client, packet), lambda: self._closed(client)
        )

    def _closed(self, client: _Client) -> None:
        client.connection = None
        self._clean_up(client)

    def _clean_up(self, client: _Client) -> None:
        """Undo what a closed file left, once nothing is under way that could leave more."""
        if client.connection is not None or client.outstanding or client not in self._clients:
            return
        self._clients.remove(client)
        for transaction in client.transactions:
            self._ask(Packet(Operation.TRANSACTION_END, 0, transaction, wire.strings("F")), _ignore)
        for token, (path, _) in client.watches.items():
            self._ask(Packet(Operation.UNWATCH, 0, 0, wire.strings(path, token)), _ignore)

    def _request(self, client: _Client, untrusted: Packet) -> None:
        if untrusted.operation == Operation.WATCH:
            self._watch(client, untrusted)
        elif untrusted.operation == Operation.UNWATCH:
            self._unwatch(client, untrusted)
        elif (
            untrusted.operation != Operation.TRANSACTION_START
            and untrusted.transaction_id
            and untrusted.transaction_id not in client.transactions
        ):
            # The kernel keeps the clients' transactions apart; to the daemon they all belong to one connection.
            _reply(client, untrusted, Operation.ERROR, wire.strings("ENOENT"))
        else:
            self._forward(client, untrusted, untrusted)

    def _watch(self, client: _Client, untrusted: Packet) -> None:
        parts = untrusted.payload.split(b"\0")
        if len(parts) != 3 or parts[2]:
            _reply(client, untrusted, Operation.ERROR, wire.strings("EINVAL"))
            return
        # A token of the kernel's own, so that clients with the same one do not collide.
        self._last_watch += 1
        token = b"%X" % self._last_watch
        client.watches[token] = (parts[0], parts[1])
        self._forward(client, untrusted, untrusted._replace(payload=wire.strings(parts[0], token)), token)

    def _unwatch(self, client: _Client, untrusted: Packet) -> None:
        for token, (path, clients_token) in client.watches.items():
            if wire.strings(path, clients_token) == untrusted.payload:
                del client.watches[token]
                self._forward(client, untrusted, untrusted._replace(payload=wire.strings(path, token)))
                return
        _reply(client, untrusted, Operation.ERROR, wire.strings("ENOENT"))

    def _forward(self, client: _Client, request: Packet, forwarded: Packet, watch: bytes | None = None) -> None:
        client.outstanding += 1

        def answered(answer: Packet) -> None:
            client.outstanding -= 1
            if request.operation == Operation.TRANSACTION_START and answer.operation != Operation.ERROR:
                client.transactions.add(int(answer.payload.rstrip(b"\0")))
            elif request.operation == Operation.TRANSACTION_END:
                client.transactions.discard(request.transaction_id)
            elif watch is not None and answer.operation == Operation.ERROR:
                del client.watches[watch]
            _reply(client, request, answer.operation, answer.payload)
            self._clean_up(client)

        self._ask(forwarded, answered)

    # The daemon

    def _ask(self, packet: Packet, answered: _Answer) -> None:
        while True:
            self._last_request = (self._last_request + 1) & _MAX_REQUEST_ID
            if self._last_request not in self._answers:
                break
        self._answers[self._last_request] = answered
        self._outgoing += wire.encode(packet._replace(request_id=self._last_request))
        self._put()

    def _put(self) -> None:
        if self._outgoing:
            count = self._shared.ring.put(bytes(self._outgoing))
            if count:
                del self._outgoing[:count]
                self._shared.notify()

    def _woken(self) -> None:
        self._shared.drain()
        received = self._shared.ring.take()
        if received:
            # There is room again, and the daemon may wait for it.
            self._shared.notify()
        self._incoming += received
        self._put()
        while len(self._incoming) >= wire.HEADER.size:
            header = wire.decode_header(bytes(self._incoming[: wire.HEADER.size]))
            end = wire.HEADER.size + header.length
            if len(self._incoming) < end:
                break
            payload = bytes(self._incoming[wire.HEADER.size : end])
            del self._incoming[:end]
            self._received(Packet(header.operation, header.request_id, header.transaction_id, payload))

    def _received(self, packet: Packet) -> None:
        if packet.operation == Operation.WATCH_EVENT:
            path, token, *_ = packet.payload.split(b"\0")
            for client in self._clients:
                if token in client.watches and client.connection is not None:
                    payload = wire.strings(path, client.watches[token][1])
                    client.connection.send(Packet(Operation.WATCH_EVENT, 0, 0, payload))
        else:
            self._answers.pop(packet.request_id)(packet)


def _reply(client: _Client, request: Packet, operation: int, payload: bytes) -> None:
    if client.connection is not None:
        client.connection.send(Packet(operation, request.request_id, request.transaction_id, payload))


def _ignore(_answer: Packet) -> None:
    pass
