"""A XenStore client of a few lines for these tests.

It packs its own packets on purpose: an error in agent_protocol could not hide behind the same error here.
"""

from __future__ import annotations

import collections
import socket
import struct
from pathlib import Path

DIRECTORY, READ, GET_PERMS, WATCH, UNWATCH, TRANSACTION_START, TRANSACTION_END = range(1, 8)
INTRODUCE, RELEASE, GET_DOMAIN_PATH, WRITE, MKDIR, RM, SET_PERMS, WATCH_EVENT, ERROR = range(8, 17)
IS_DOMAIN_INTRODUCED, RESUME, SET_TARGET = range(17, 20)
RESET_WATCHES, DIRECTORY_PART = 21, 22

DEADLINE = 10.0


class Refused(Exception):
    """The daemon answered with an ERROR; its text is the errno name."""


class Client:
    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(str(path))
        self.events: collections.deque[tuple[bytes, bytes]] = collections.deque()
        self._request = 0

    def close(self) -> None:
        self.socket.close()

    def send(self, operation: int, payload: bytes, request: int = 0, transaction: int = 0) -> None:
        self.socket.sendall(struct.pack("<IIII", operation, request, transaction, len(payload)) + payload)

    def receive(self) -> tuple[int, int, int, bytes]:
        operation, request, transaction, length = struct.unpack("<IIII", self._exactly(16))
        return operation, request, transaction, self._exactly(length)

    def call(self, operation: int, payload: bytes, transaction: int = 0) -> bytes:
        self._request += 1
        self.send(operation, payload, self._request, transaction)
        while True:
            answered, request, answered_transaction, data = self.receive()
            if answered == WATCH_EVENT:
                self._keep(data)
                continue
            assert (request, answered_transaction) == (self._request, transaction)
            if answered == ERROR:
                assert data.endswith(b"\0")
                raise Refused(data[:-1].decode())
            assert answered == operation
            return data

    def event(self) -> tuple[bytes, bytes]:
        """The next watch event: path and token."""
        if not self.events:
            operation, _, _, data = self.receive()
            assert operation == WATCH_EVENT
            self._keep(data)
        return self.events.popleft()

    def all_events(self) -> list[tuple[bytes, bytes]]:
        """What has arrived up to now. One thread serves everybody, so a round trip is enough to know."""
        self.call(GET_DOMAIN_PATH, b"0\0")
        events = list(self.events)
        self.events.clear()
        return events

    def read(self, path: str, transaction: int = 0) -> bytes:
        return self.call(READ, path.encode() + b"\0", transaction)

    def write(self, path: str, value: bytes = b"", transaction: int = 0) -> None:
        assert self.call(WRITE, path.encode() + b"\0" + value, transaction) == b"OK\0"

    def mkdir(self, path: str, transaction: int = 0) -> None:
        assert self.call(MKDIR, path.encode() + b"\0", transaction) == b"OK\0"

    def rm(self, path: str, transaction: int = 0) -> None:
        assert self.call(RM, path.encode() + b"\0", transaction) == b"OK\0"

    def list(self, path: str, transaction: int = 0) -> list[str]:
        data = self.call(DIRECTORY, path.encode() + b"\0", transaction)
        assert not data or data.endswith(b"\0")
        return [name.decode() for name in data.split(b"\0")[:-1]]

    def perms(self, path: str) -> list[str]:
        return [entry.decode() for entry in self.call(GET_PERMS, path.encode() + b"\0").split(b"\0")[:-1]]

    def set_perms(self, path: str, *perms: str, transaction: int = 0) -> None:
        payload = b"".join(part.encode() + b"\0" for part in (path, *perms))
        assert self.call(SET_PERMS, payload, transaction) == b"OK\0"

    def watch(self, path: str, token: str) -> None:
        assert self.call(WATCH, f"{path}\0{token}\0".encode()) == b"OK\0"

    def unwatch(self, path: str, token: str) -> None:
        assert self.call(UNWATCH, f"{path}\0{token}\0".encode()) == b"OK\0"

    def begin(self) -> int:
        return int(self.call(TRANSACTION_START, b"\0")[:-1])

    def end(self, transaction: int, commit: bool = True) -> None:
        assert self.call(TRANSACTION_END, b"T\0" if commit else b"F\0", transaction) == b"OK\0"

    def closed_by_server(self) -> bool:
        """Whether the daemon ends the connection; what it still sends is skipped. Waits for it."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionError:
            pass
        return True

    def _keep(self, data: bytes) -> None:
        path, token, rest = data.split(b"\0")
        assert rest == b""
        self.events.append((path, token))

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            part = self.socket.recv(length - len(data))
            if not part:
                raise ConnectionError("the daemon closed the connection")
            data += part
        return data
