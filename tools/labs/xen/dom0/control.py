"""The lab's door into dom0: a root shell for whoever knows the token, and dom0's XenStore as it is.

Runs in dom0, with nothing but the standard library. A connection begins with one line of JSON: `token`, and `channel`,
either `xenstore`, after which the connection is one to XenStore's daemon, or `control`, after which each line is a
request, answered by one line each. Bytes travel in base64. A request that fails is answered with `error`.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hmac
import json
import os
import select
import socket
import subprocess
import threading
import time
import tty
from typing import Any, BinaryIO, Callable

PORT = 7000
XENSTORE = "/run/xenstored/socket"
KNOCK = "/lab/token"
CHUNK = 65536
INTERFACE = "/sys/class/net/eth0/carrier"


def run(request: Any) -> Any:
    """Run a program: `arguments`, `stdin`, `timeout` in seconds; also `environment`, which then is all of it."""
    ended = subprocess.run(
        request["arguments"],
        input=base64.b64decode(request.get("stdin", "")),
        capture_output=True,
        timeout=request["timeout"],
        env=request.get("environment"),
        cwd="/",
        check=False,
    )
    return {"status": ended.returncode, "output": _text(ended.stdout), "errors": _text(ended.stderr)}


def put(request: Any) -> Any:
    """Write a file: `path`, `content`, `mode`."""
    descriptor = os.open(request["path"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, request["mode"])
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64decode(request["content"]))
    return {}


def get(request: Any) -> Any:
    """Read a file: `path`."""
    with open(request["path"], "rb") as file:  # noqa: PTH123
        return {"content": _text(file.read())}


def copy(request: Any) -> Any:
    """Copy a file with holes, as disk images are, `source`, to `destination`, and leave the holes out."""
    with open(request["source"], "rb") as source, open(request["destination"], "wb") as destination:  # noqa: PTH123
        size = os.fstat(source.fileno()).st_size
        destination.truncate(size)
        end = 0
        while end < size:
            try:
                begin = os.lseek(source.fileno(), end, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break  # nothing but a hole follows
            end = os.lseek(source.fileno(), begin, os.SEEK_HOLE)
            os.pwrite(destination.fileno(), os.pread(source.fileno(), end - begin, begin), begin)
    return {}


def console(request: Any) -> Any:
    """Let a guest run a shell `command` from its console, whose terminal is `tty`, within `timeout` seconds.

    The guest's side is guest/system. What stood on the console before is passed over.
    """
    deadline = time.monotonic() + request["timeout"]
    number = os.urandom(8).hex()
    terminal = os.open(request["tty"], os.O_RDWR | os.O_NOCTTY)
    try:
        tty.setraw(terminal)
        os.write(terminal, b"%s %s\n" % (number.encode(), request["command"].encode()))
        begin, end = b"#ran %s " % number.encode(), b"#"
        seen = b""
        while True:
            found = seen.find(begin)
            answer, ended, _ = seen[found + len(begin) :].partition(end) if found >= 0 else (b"", b"", b"")
            if ended:
                return {"output": answer.strip().decode("ascii")}
            if not select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError("the guest's console does not answer")
            seen += os.read(terminal, CHUNK)
    finally:
        os.close(terminal)


REQUESTS: dict[str, Callable[[Any], Any]] = {"run": run, "put": put, "get": get, "copy": copy, "console": console}


def serve(connection: socket.socket, token: str) -> None:
    """One connection, to its end."""
    with connection, connection.makefile("rb") as lines:
        # Unbuffered beyond its first line: what follows may be packets for the daemon.
        greeting = json.loads(_first_line(connection))
        if not hmac.compare_digest(greeting["token"], token):
            return
        connection.sendall(b"{}\n")
        # Whoever goes away without a word ends this connection, and nothing else.
        with contextlib.suppress(OSError):
            if greeting["channel"] == "xenstore":
                _join(connection)
            else:
                _answer(connection, lines)


def _first_line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            raise ConnectionError("the connection ended early")
        line += byte
    return line


def _answer(connection: socket.socket, lines: BinaryIO) -> None:
    for line in lines:
        request = json.loads(line)
        try:
            answer = REQUESTS[request["request"]](request)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        connection.sendall(json.dumps(answer).encode("ascii") + b"\n")


def _join(connection: socket.socket) -> None:
    """Carry bytes between the connection and the daemon until either of them closes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as daemon:
        daemon.connect(XENSTORE)
        ends = {connection: daemon, daemon: connection}
        while True:
            for end in select.select(list(ends), [], [])[0]:
                data = end.recv(CHUNK)
                if not data:
                    return
                ends[end].sendall(data)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _await_network() -> None:
    """The card's carrier comes seconds after it was switched on, and nobody can reach us before."""
    for _ in range(400):
        with open(INTERFACE, encoding="ascii") as file:  # noqa: PTH123
            if file.read().strip() == "1":
                return
        time.sleep(0.05)
    print("the network card has no carrier", flush=True)


def main() -> None:
    """Serve for ever."""
    with open(KNOCK, encoding="ascii") as file:  # noqa: PTH123
        token = file.read()
    with socket.create_server(("", PORT)) as listener:
        _await_network()
        print("dom0 is up", flush=True)
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=serve, args=(connection, token), daemon=True).start()


if __name__ == "__main__":
    main()
