"""A VM's console: CONNECT /console, after which the connection carries RFB.

Source: ocaml/xapi/console.ml.
"""

from __future__ import annotations

import ssl
import threading

from ..state import State
from .request import Refused, Request
from .rfb import RfbServer

_POLL = 0.5
"""Seconds after which it is noticed that a console has gone."""

_guard = threading.Lock()


def connect(request: Request) -> None:
    """Let the client see the console of a running VM. 404 without one, 503 when only one client may see it."""
    state = request.state
    console = _console(request)
    vm = state.database.get("console", console, "VM")
    record = state.database.record("VM", vm)
    if record["power_state"] != "Running" or record["resident_on"] != request.host.ref:
        raise Refused(404)
    _enter(state, console)
    try:
        request.answer({})
        _serve(request, console, record["name_label"])
    finally:
        with _guard:
            state.open_consoles.remove(console)


def _enter(state: State, console: str) -> None:
    with _guard:
        if state.database.get("pool", state.pool, "limit_console_sessions") and console in state.open_consoles:
            raise Refused(503)
        state.open_consoles.append(console)


def _console(request: Request) -> str:
    """The console that is named by its own reference or uuid, or by its VM's."""
    database, parameters = request.state.database, request.parameters
    if "uuid" in parameters:
        uuid = parameters["uuid"]
        found = database.find("VM", "uuid", uuid) or database.find("console", "uuid", uuid)
    else:
        found = [parameters.get("ref", "")]
    named = found[0] if found else ""
    if database.exists("console", named):
        return named
    if database.exists("VM", named):
        for console in database.get("VM", named, "consoles"):
            if database.get("console", console, "protocol") == "rfb":
                return str(console)
    raise Refused(404)


def _serve(request: Request, console: str, name: str) -> None:
    connection = request.http.connection
    server = RfbServer(f"QEMU ({name})")
    connection.settimeout(_POLL)
    connection.sendall(server.greeting)
    received = _buffered(request)
    while request.state.database.exists("console", console):
        answer = server.receive(received)
        if answer is None:
            return
        if answer:
            connection.sendall(answer)
        try:
            received = connection.recv(65536)
        except TimeoutError:
            received = b""
            continue
        if not received:
            return


def _buffered(request: Request) -> bytes:
    """What came together with the request. From there on the socket itself can be waited for."""
    connection = request.http.connection
    connection.settimeout(0.0)
    try:
        return request.http.rfile.read1(65536)
    except (BlockingIOError, ssl.SSLWantReadError):
        return b""
    finally:
        connection.settimeout(_POLL)
