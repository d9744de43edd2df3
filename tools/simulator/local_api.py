"""The API as dom0's own programs reach it: over a Unix socket, as root and without a password.

A plugin says XenAPI.xapi_local(), which connects to /var/lib/xcp/xapi; in_dom0.py leads that here. Source:
ocaml/xapi/xapi_session.ml (who comes over the socket is dom0's superuser, whatever name and password he gives).
"""

from __future__ import annotations

import importlib.util
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Callable

from . import in_dom0
from .http import Handler, HttpServer, Protocol
from .http_request import RequestHandler
from .protocols import Answer
from .rpc import MethodCall, Result

DIRECTORY = "dom0"
"""What stands for a dom0, below a host's directory."""

SOCKET_NAME = "xapi"
"""The socket, below that."""

_PYTHON = "python"

SDK = "XenAPI"
"""The package that every dom0 has installed."""

_LOGINS = frozenset(
    f"session{separator}{login}"
    for separator in "._"
    for login in ("login_with_password", "slave_local_login_with_password")
)
_CREDENTIALS = 2


def python_path(directory: Path) -> Path:
    """What belongs on the PYTHONPATH of the plugins, in the directory that stands for a dom0."""
    return directory / _PYTHON


def lay_out(directory: Path) -> None:
    """Make the directory that stands for a dom0.

    On its python_path() are in_dom0.py as `sitecustomize`, and the SDK that this interpreter finds, if it finds one.
    OSError when it cannot be written.
    """
    # Whoever reaches the socket is root: nobody else may enter.
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    python = python_path(directory)
    shutil.rmtree(python, ignore_errors=True)
    python.mkdir()
    shutil.copyfile(in_dom0.__file__, python / "sitecustomize.py")
    found = importlib.util.find_spec(SDK)
    # A copy: the plugins' interpreters leave their bytecode beside what they import.
    if found is not None and found.submodule_search_locations:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(found.submodule_search_locations[0], python / SDK, ignore=ignored)
    elif found is not None and found.origin is not None:
        shutil.copyfile(found.origin, python / f"{SDK}.py")


def as_root(answer: Answer, credentials: Callable[[], tuple[str, str]]) -> Answer:
    """Answers as `answer` does, but every login succeeds, as if it had come with `credentials`: name and password.

    On a supporter, whose calls are forwarded from here, `answer` is the coordinator's.
    """

    def answer_root(call: MethodCall) -> Result:
        if call.name in _LOGINS and len(call.parameters) >= _CREDENTIALS:
            call = MethodCall(call.name, [*credentials(), *call.parameters[_CREDENTIALS:]])
        return answer(call)

    return answer_root


class _LocalRequestHandler(RequestHandler):
    # A Unix socket has no such algorithm.
    disable_nagle_algorithm = False


class LocalServer(HttpServer):
    """Answers on a Unix socket, as HttpServer does on TCP. OSError when the path is too long or cannot be bound."""

    address_family = socket.AF_UNIX

    def __init__(
        self,
        path: Path,
        protocols: Mapping[str, Protocol],
        handlers: Mapping[tuple[str, str], Handler] | None = None,
    ) -> None:
        self.path = path
        # Left by one that was killed: the state directory has one owner at a time.
        path.unlink(missing_ok=True)
        super().__init__(0, protocols, handlers)
        self.RequestHandlerClass = _LocalRequestHandler

    def server_bind(self) -> None:
        """Bind the socket to its path instead of to a port."""
        self.socket.bind(str(self.path))

    def stop(self) -> None:
        """As HttpServer.stop(); the socket is gone afterwards."""
        super().stop()
        self.path.unlink(missing_ok=True)
