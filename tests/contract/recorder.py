"""Everything that a run leaves on its way, edge by edge, and the search for secrets in it."""

from __future__ import annotations

import base64
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.packages import dom0_plugin
from tools.simulator.process import SimulatorProcess

from .house import CHECKOUT, Done, House
from .sparse import stored

BUS_LOG = "XENWARD_TEST_BUS_LOG"
"""Environment variable that names the file in which recorded_xenward.py writes down the embedded bus's messages."""

_PLUGIN = """#!{python} -IS
import json, os, sys
with open({log!r}, "a") as log:
    log.write(json.dumps([sys.argv, dict(os.environ)]) + "\\n")
os.execv({plugin!r}, [{plugin!r}, *sys.argv[1:]])
"""


def needles(secret: bytes) -> list[bytes]:
    """The secret as it would appear: itself, in hexadecimal, in base64 at each alignment, and in base64 of base64."""
    once = [secret, *_base64(secret)]
    return [*once, *(again for needle in once[1:] for again in _base64(needle)), secret.hex().encode()]


def _base64(data: bytes) -> Iterator[bytes]:
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + data + b"\0")
        # The first and last characters depend on what stands around the secret.
        yield encoded[4 if before else 0 : -4]


def leaks(data: bytes, secrets: Collection[bytes]) -> list[bytes]:
    """Every spelling of a secret that is in the data; case does not hide hexadecimal."""
    lower = data.lower()
    return [
        needle
        for secret in secrets
        for needle in needles(secret)
        if needle in data or (needle == secret.hex().encode() and needle in lower)
    ]


@dataclass
class RecordedHouse(House):
    """A house in which each edge writes down what crosses it. said: what commands wrote to standard error."""

    said: list[str] = field(default_factory=list)

    @property
    def plugin_calls(self) -> list[tuple[list[str], dict[str, str]]]:
        """Command line and environment of every run of the plugin."""
        lines = (self.directory / "plugin-calls").read_text().splitlines()
        return [(line[0], line[1]) for line in map(json.loads, lines)]

    def start(self, *arguments: str, stdin: str | None = None) -> subprocess.Popen[str]:
        """As House.start, with the embedded bus written down."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.contract.recorded_xenward", "--config-file", str(self.conf), *arguments],
            cwd=CHECKOUT,
            env={**os.environ, BUS_LOG: str(self.directory / "bus")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(stdin or "")
        process.stdin.close()
        process.stdin = None
        return process

    def verbose(self, *arguments: str, stdin: str | None = None) -> Done:
        """Run a command with all the logging that it has."""
        done = self.xenward("-vv", "--debug", *arguments, stdin=stdin)
        self.said.append(done.stderr)
        return done

    def traffic(self) -> list[dict[str, Any]]:
        """XenStore's packets so far; `payload` is in base64."""
        with (self.directory / "xenstore").open() as file:
            return [json.loads(line) for line in file]

    def written_by_dom0(self) -> list[tuple[str, bytes]]:
        """Path and value of everything that dom0 wrote, in order."""
        packets = [
            base64.b64decode(packet["payload"]).partition(b"\0")
            for packet in self.traffic()
            if (packet["domid"], packet["direction"], packet["operation"]) == (0, "request", "WRITE")
        ]
        return [(path.decode(), value) for path, _, value in packets]

    def edges(self) -> dict[str, bytes]:
        """What crossed each edge, and every file that was left, but for the guests' own disks."""
        found = {"standard error": "\n".join(self.said).encode()}
        for path in sorted(self.directory.rglob("*")):
            name = str(path.relative_to(self.directory))
            if path.is_file() and "/root/" not in name:
                found[name] = stored(path)
        payloads = [base64.b64decode(packet["payload"]) for packet in self.traffic()]
        found["xenstore"] = b"\n".join(payloads)
        # Frames cut a text into pieces; joined, they show what was cut.
        found["xenstore, joined"] = b"".join(payload.partition(b"\0")[2] for payload in payloads)
        return found


@contextmanager
def recorded_house(directory: Path, *simulator_arguments: str) -> Iterator[RecordedHouse]:
    """A house that records XenStore's traffic, the plugin's command lines and the bus below its directory."""
    plugins = directory / "plugins"
    plugins.mkdir()
    dom0_plugin.build(directory / "plugin", sys.executable)
    recorder = plugins / "xenward"
    log = str(directory / "plugin-calls")
    recorder.write_text(_PLUGIN.format(python=sys.executable, log=log, plugin=str(directory / "plugin")))
    recorder.chmod(0o755)
    options = ["--login-failure-delay", "0", "--state", str(directory / "xenserver"), "--plugins", str(plugins)]
    options += ["--record-xenstore", str(directory / "xenstore"), *simulator_arguments]
    with SimulatorProcess(options, log=directory / "simulator-errors") as simulator:
        it = RecordedHouse(directory, simulator)
        it.configure()
        yield it


class RecordingProxy:
    """Forwards TCP connections to a broker on this machine, and keeps all bytes of both directions.

    It sees more than a queue that is bound to the exchanges could: replies go through AMQP's default exchange, to
    which nothing can be bound.
    """

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._guard = threading.Lock()
        self._seen: list[bytearray] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def seen(self) -> bytes:
        """All of it, one direction of one connection after the other."""
        with self._guard:
            return b"\n".join(bytes(stream) for stream in self._seen)

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        there, back = bytearray(), bytearray()
        with self._guard:
            self._seen += [there, back]
        with client, socket.create_connection(self._target) as broker:
            ways = {client: (broker, there), broker: (client, back)}
            try:
                while True:
                    for source in select.select(list(ways), [], [])[0]:
                        target, stream = ways[source]
                        data = source.recv(65536)
                        if not data:
                            return
                        with self._guard:
                            stream += data
                        target.sendall(data)
            except OSError:
                return
