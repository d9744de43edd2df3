"""The lab's end of the door into dom0; the other end is dom0/control.py."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tools.labs.cache import LabError

CONNECT_SECONDS = 20.0
"""How long a connection and its greeting may take. The machine is busy when guests boot."""

_MARGIN = 20.0
"""Seconds that an answer may come after the time that the request itself has."""


class DoorClosed(LabError):
    """Raise when dom0 gave no answer; LabError itself is for what it could not do."""


@dataclass(frozen=True)
class Completed:
    """How a program in dom0 ended: negative for a signal, as subprocess has it."""

    status: int
    output: bytes
    errors: bytes


class Door:
    """Connections into dom0 through a port of this machine's loopback. Any thread may use it.

    token: what dom0 expects of whoever may command it.
    """

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._token = token
        self._guard = threading.Lock()
        self._idle: list[socket.socket] = []

    def open(self, channel: str) -> socket.socket:
        """A new connection to a channel. OSError when nobody answers in time."""
        connection = socket.create_connection(("127.0.0.1", self._port), CONNECT_SECONDS)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(json.dumps({"token": self._token, "channel": channel}).encode("ascii") + b"\n")
            if _line(connection, time.monotonic() + CONNECT_SECONDS) != b"{}\n":
                raise ConnectionError("dom0 does not let us in")
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Close the connections that wait for use."""
        with self._guard:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def run(
        self,
        arguments: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float,
        environment: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run a program in dom0 to its end. environment: all of it; that of the control program unless given.

        LabError when it cannot be run, takes longer than `timeout` seconds, or dom0 does not answer.
        """
        answer = self._ask(
            timeout,
            request="run",
            arguments=list(arguments),
            stdin=_text(stdin),
            timeout=timeout,
            environment=None if environment is None else dict(environment),
        )
        return Completed(answer["status"], base64.b64decode(answer["output"]), base64.b64decode(answer["errors"]))

    def put(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Write a file in dom0. LabError when that fails."""
        self._ask(CONNECT_SECONDS, request="put", path=path, content=_text(content), mode=mode)

    def get(self, path: str) -> bytes:
        """A file of dom0. LabError when there is none."""
        return base64.b64decode(self._ask(CONNECT_SECONDS, request="get", path=path)["content"])

    def copy(self, source: str, destination: str) -> None:
        """Copy a file in dom0, without its holes. LabError when that fails."""
        self._ask(CONNECT_SECONDS, request="copy", source=source, destination=destination)

    def console(self, terminal: str, command: str, timeout: float) -> tuple[int, str]:
        """Exit status and output of a shell command that a guest runs for its console, whose terminal this is.

        LabError when the guest does not answer within `timeout` seconds.
        """
        command = _text(command.encode("utf-8"))
        answer = self._ask(timeout, request="console", tty=terminal, command=command, timeout=timeout)
        output, _, status = base64.b64decode(answer["output"]).decode("utf-8", "replace").rpartition("status ")
        return int(status), output

    def _ask(self, seconds: float, **request: Any) -> Any:
        deadline = time.monotonic() + seconds + _MARGIN
        try:
            connection = self._take()
            try:
                connection.settimeout(max(0.0, deadline - time.monotonic()))
                connection.sendall(json.dumps(request).encode("ascii") + b"\n")
                answer = json.loads(_line(connection, deadline))
            except BaseException:
                connection.close()
                raise
        except (OSError, ValueError) as error:
            raise DoorClosed(f"dom0 does not answer: {error}") from None
        with self._guard:
            self._idle.append(connection)
        if "error" in answer:
            raise LabError(f"in dom0: {answer['error']}")
        return answer

    def _take(self) -> socket.socket:
        with self._guard:
            if self._idle:
                return self._idle.pop()
        return self.open("control")


def _line(connection: socket.socket, deadline: float) -> bytes:
    """The next line; nothing follows it before the next request, so nothing is lost behind it."""
    line = bytearray()
    while not line.endswith(b"\n"):
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("no answer in time")
        connection.settimeout(remaining)
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError("the connection ended early")
        line += piece
    return bytes(line)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
