"""The admin socket: the methods of Faults (faults/operations.py) for other processes.

One JSON object per line each way: {"command": "add_rule", "pattern": "VM.start", …} is answered with
{"ok": true, "result": …} or {"ok": false, "error": "…"}. Whoever can open the socket, its owner, may do everything.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import logging
import math
import os
import socket
import socketserver
import threading
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import ApiError
from .faults.errors import FaultError
from .faults.operations import Faults, commands

LOG = logging.getLogger("xenward.simulator.admin")

SOCKET_NAME = "admin.sock"
"""The socket, below the state directory."""

MAX_LINE = 256 * 1024
"""Bytes of a request. Beyond it the connection is closed, with an answer."""

MAX_CLIENTS = 64
"""How many are served at once; further ones are answered with an error."""


class CommandError(ValueError):
    """Raised for a request that means nothing. The message holds none of its content but the names we know."""


@dataclasses.dataclass(frozen=True)
class Command:
    """A request that was understood: a method of Faults, and arguments of the types that it takes."""

    name: str
    arguments: Mapping[str, Any]

    @classmethod
    def parse(cls, untrusted_line: bytes) -> Command:
        """What a line means. CommandError when it means nothing."""
        try:
            untrusted = json.loads(untrusted_line.decode("utf-8"), parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            raise CommandError("a line must be a JSON object") from None
        if not isinstance(untrusted, dict):
            raise CommandError("a line must be a JSON object")
        name = untrusted.pop("command", None)
        method = commands().get(name) if isinstance(name, str) else None
        if method is None:
            raise CommandError(f"command: one of {', '.join(commands())}")
        hints = typing.get_type_hints(method)
        arguments: dict[str, Any] = {}
        for parameter in list(inspect.signature(method).parameters.values())[1:]:
            if parameter.name in untrusted:
                value = untrusted.pop(parameter.name)
                if not _fits(value, hints[parameter.name]):
                    raise CommandError(f"{name}: {parameter.name} has a wrong type")
                arguments[parameter.name] = value
            elif parameter.default is inspect.Parameter.empty:
                raise CommandError(f"{name}: {parameter.name} is missing")
        if untrusted:
            raise CommandError(f"{name}: it has only {', '.join([*arguments]) or 'no'} arguments of those given")
        return cls(name, arguments)


def _refuse_constant(name: str) -> Any:
    raise CommandError(f"{name} is no JSON")


def _fits(untrusted_value: Any, hint: Any) -> bool:
    """Whether a value out of JSON is of a type that Faults' methods use."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(untrusted_value, choice) for choice in inner)
    if origin is typing.Literal:
        return isinstance(untrusted_value, str) and untrusted_value in inner
    if origin is list:
        return isinstance(untrusted_value, list) and all(_fits(item, inner[0]) for item in untrusted_value)
    if origin is Mapping:
        return isinstance(untrusted_value, dict) and all(_fits(item, inner[1]) for item in untrusted_value.values())
    if hint is float:
        return type(untrusted_value) in (int, float) and abs(untrusted_value) < 2**53 and math.isfinite(untrusted_value)
    if hint is int:
        return type(untrusted_value) is int and abs(untrusted_value) < 2**63
    return type(untrusted_value) is hint


def _plain(value: Any) -> Any:
    """A result as JSON can hold it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def answer(faults: Faults, untrusted_line: bytes) -> dict[str, Any]:
    """Do what a line asks for; gives what goes back. Never raises an Exception."""
    try:
        command = Command.parse(untrusted_line)
        return {"ok": True, "result": _plain(getattr(faults, command.name)(**command.arguments))}
    except (CommandError, FaultError) as error:
        return {"ok": False, "error": str(error)}
    except ApiError as error:
        return {"ok": False, "error": " ".join(error.description)}
    except Exception as error:
        LOG.exception("a command failed")
        return {"ok": False, "error": f"the simulator failed with {type(error).__name__}"}


class _Connection(socketserver.StreamRequestHandler):
    server: AdminServer

    def handle(self) -> None:
        """Obey one line after the other, until either side closes."""
        if not self.server.enter(self.connection):
            self._reply({"ok": False, "error": f"there are {MAX_CLIENTS} clients already"})
            return
        try:
            with contextlib.suppress(OSError):
                while line := self.rfile.readline(MAX_LINE + 1):
                    if len(line) > MAX_LINE:
                        self._reply({"ok": False, "error": f"a line has at most {MAX_LINE} bytes"})
                        return
                    self._reply(answer(self.server.faults, line))
        finally:
            self.server.leave(self.connection)

    def _reply(self, reply: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self.wfile.write(json.dumps(reply).encode("ascii") + b"\n")


class AdminServer(socketserver.ThreadingUnixStreamServer):
    """Listens at `path`, for its owner only, and serves each client in a thread. start() once, then stop() once.

    OSError when the socket cannot be made. What another simulator, now dead, has left at the path is replaced.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = MAX_CLIENTS

    def __init__(self, path: Path, faults: Faults) -> None:
        self.path = path
        self.faults = faults
        self._guard = threading.Lock()
        self._clients: set[socket.socket] = set()
        path.unlink(missing_ok=True)
        super().__init__(str(path), _Connection)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="admin", daemon=True)

    def server_bind(self) -> None:
        """Make the socket. It does not listen yet when others are shut out."""
        super().server_bind()
        os.chmod(self.path, 0o600)  # noqa: PTH101 (nobody else's path)

    def start(self) -> None:
        """Begin to accept clients."""
        self._thread.start()

    def stop(self) -> None:
        """Accept nobody more, cut all connections, and remove the socket."""
        self.shutdown()
        self._thread.join()
        self.server_close()
        with self._guard:
            clients = list(self._clients)
        for client in clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        self.path.unlink(missing_ok=True)

    def enter(self, client: socket.socket) -> bool:
        """A client is here; whether there is room for it."""
        with self._guard:
            if len(self._clients) >= MAX_CLIENTS:
                return False
            self._clients.add(client)
            return True

    def leave(self, client: socket.socket) -> None:
        """A client has gone."""
        with self._guard:
            self._clients.discard(client)
