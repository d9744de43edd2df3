"""One client's socket: packets in, packets out, and never a wait."""

from __future__ import annotations

import selectors
import socket
from typing import Callable

from agent_protocol import wire
from agent_protocol.wire import Packet

MAX_BACKLOG = 1 << 20
"""In bytes. A client that leaves more than this unread is disconnected, so that it costs no more than this."""

_READ = 16 * 1024
"""In bytes. What is taken from one client before the others have their turn."""


class Connection:
    """A non-blocking socket, registered with the loop's selector.

    receive: called for every whole packet. closed: called once, when the connection ends for whatever reason.
    """

    def __init__(
        self,
        peer: socket.socket,
        selector: selectors.BaseSelector,
        receive: Callable[[Packet], None],
        closed: Callable[[], None],
    ) -> None:
        self._socket = peer
        self._selector = selector
        self._receive = receive
        self._on_closed = closed
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._open = True
        self._wanted = selectors.EVENT_READ
        peer.setblocking(False)
        selector.register(peer, self._wanted, self.ready)

    def ready(self, events: int) -> None:
        """The selector found the socket readable or writable."""
        if self._open and events & selectors.EVENT_WRITE:
            self._flush()
        if self._open and events & selectors.EVENT_READ:
            self._read()

    def send(self, packet: Packet) -> None:
        """Send a packet, now or when the client reads. Nothing happens on a connection that has ended."""
        if not self._open:
            return
        waiting = bool(self._outgoing)
        self._outgoing += wire.encode(packet)
        if not waiting:
            self._flush()
        if len(self._outgoing) > MAX_BACKLOG:
            self.close()

    def close(self) -> None:
        """End the connection. Idempotent."""
        if not self._open:
            return
        self._open = False
        self._selector.unregister(self._socket)
        self._socket.close()
        self._on_closed()

    def _read(self) -> None:
        try:
            received = self._socket.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self.close()
            return
        self._incoming += received
        position = 0
        # A request can end this very connection, through a full backlog.
        while self._open and len(self._incoming) - position >= wire.HEADER.size:
            try:
                header = wire.decode_header(bytes(self._incoming[position : position + wire.HEADER.size]))
            except wire.WireError:
                self.close()
                return
            end = position + wire.HEADER.size + header.length
            if len(self._incoming) < end:
                break
            payload = bytes(self._incoming[position + wire.HEADER.size : end])
            position = end
            self._receive(Packet(header.operation, header.request_id, header.transaction_id, payload))
        del self._incoming[:position]

    def _flush(self) -> None:
        try:
            sent = self._socket.send(self._outgoing)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        del self._outgoing[:sent]
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._outgoing else 0)
        if wanted != self._wanted:
            self._wanted = wanted
            self._selector.modify(self._socket, wanted, self.ready)
