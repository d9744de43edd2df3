"""A guest that is a throw-away directory, a simulated store, and the host's side of the conversation."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable, Protocol

import pytest

from agent_protocol.frames import FRAMES
from agent_protocol.legacy import AgentExchange
from agent_protocol.messages import ADVERT, CLAIMS, REPLIES, REQUESTS, new_request_id
from agent_protocol.xenstore import StoreError, connect
from guest_agent.agent import Agent
from guest_agent.commands import COMMANDS, SEALED_COMMANDS, Command, Context, features, served
from guest_agent.system.directory import DirectorySystem
from tools.simulator.xenstore.server import XenStoreServer

DOMID = 7
VM = "6d2f9d0e-3a4b-4c5d-8e6f-708192a3b4c5"
DEADLINE = 20.0
"""Seconds that anything may take before a test gives up on it."""

ANNOUNCED = features(*(served(table, (), DirectorySystem.lacks) for table in (COMMANDS, SEALED_COMMANDS)))
"""The features of an agent of this platform."""

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A guest's root directory, with the accounts root and ann; ann is whoever runs the tests."""
    directory = tmp_path / "guest"
    (directory / "etc").mkdir(parents=True)
    (directory / "root").mkdir()
    (directory / "home" / "ann").mkdir(parents=True)
    uid, gid = os.getuid(), os.getgid()
    passwd = f"root:x:0:0:root:/root:/bin/bash\nann:x:{uid}:{gid}:Ann:/home/ann/:/bin/bash\n"
    (directory / "etc/passwd").write_text(passwd)
    (directory / "etc/group").write_text(f"root:x:0:\nann:x:{gid}:\n")
    (directory / "etc/shadow").write_text("daemon:*:19000:0:99999:7:::\nroot:!:19000:0:99999:7:::\nann:x:1::::::\n")
    (directory / "etc/shadow").chmod(0o640)
    return directory


@pytest.fixture
def updates(tmp_path: Path) -> Path:
    """The directory of updates."""
    directory = tmp_path / "lib" / "update"
    directory.mkdir(0o700, parents=True)
    directory.parent.chmod(0o755)
    return directory


@pytest.fixture
def context(root: Path) -> Context:
    """What commands work with, for that guest."""
    return Context(DirectorySystem(str(root)), AgentExchange(), "1.2.3", features(COMMANDS))


class Host:
    """The host's side: writes requests, waits for nodes to change, reads and removes replies."""

    def __init__(self, server: XenStoreServer) -> None:
        self.guest_socket = server.introduce(DOMID)
        self.store = connect(str(server.socket))
        self.store.mkdir(self.path("data"))
        self.store.set_permissions(self.path(""), ["n0", f"r{DOMID}"])
        self.store.set_permissions(self.path("data"), [f"n{DOMID}"])
        self.become(VM)
        self.store.watch(self.path("data"), "data")

    def become(self, vm: str) -> None:
        """Make the domain that of another VM."""
        self.write("vm", f"/vm/{vm}".encode())

    @staticmethod
    def path(relative: str) -> str:
        return f"/local/domain/{DOMID}/{relative}".rstrip("/")

    def children(self, relative: str) -> list[str]:
        try:
            return self.store.directory(self.path(relative))
        except StoreError as error:
            assert error.code == "ENOENT", error
            return []

    def read(self, relative: str) -> bytes | None:
        try:
            return self.store.read(self.path(relative))
        except StoreError as error:
            assert error.code == "ENOENT", error
            return None

    def write(self, relative: str, value: bytes) -> None:
        self.store.write(self.path(relative), value)

    def remove(self, relative: str) -> None:
        self.store.remove(self.path(relative))

    def send(self, name: str, value: str = "", request_id: str | None = None) -> str:
        return self.send_bytes(json.dumps({"name": name, "value": value}).encode(), request_id)

    def send_bytes(self, value: bytes, request_id: str | None = None) -> str:
        request_id = request_id or new_request_id()
        self.write(f"{REQUESTS}/{request_id}", value)
        return request_id

    def wait(self, ready: Callable[[], bool], what: str) -> None:
        """Until `ready`, looking again whenever something below data changes."""
        deadline = time.monotonic() + DEADLINE
        while not ready():
            remaining = deadline - time.monotonic()
            assert remaining > 0, f"waited in vain for {what}"
            self.store.next_event(remaining)

    def reply(self, request_id: str) -> dict[str, Any]:
        """The whole end of a request: its reply, once the agent has cleared request and claim away."""
        self.wait(lambda: self.read(f"{REPLIES}/{request_id}") is not None, "a reply")
        self.wait(lambda: request_id not in self.children(REQUESTS), "the request's removal")
        self.wait(lambda: request_id not in self.children(CLAIMS), "the claim's removal")
        value = self.read(f"{REPLIES}/{request_id}")
        assert value is not None
        self.remove(f"{REPLIES}/{request_id}")
        reply = json.loads(value)
        assert isinstance(reply, dict)
        return reply

    def ask(self, name: str, value: str = "") -> dict[str, Any]:
        return self.reply(self.send(name, value))

    def wait_for_agent(self) -> None:
        self.wait(lambda: self.read(ADVERT) is not None, "the advert")

    def assert_nothing_left(self) -> None:
        assert [self.children(where) for where in (REQUESTS, REPLIES, CLAIMS, FRAMES)] == [[], [], [], []]


@contextlib.contextmanager
def simulated_host() -> Iterator[Host]:
    """A store with one guest in it. Its directory has a short name, as sockets need."""
    with tempfile.TemporaryDirectory(prefix="xs") as directory:
        server = XenStoreServer(Path(directory))
        server.start()
        try:
            host = Host(server)
            yield host
            host.store.close()
        finally:
            server.stop()


@pytest.fixture
def host() -> Iterator[Host]:
    with simulated_host() as simulated:
        yield simulated


class Store:
    """A daemon that can be restarted, and a guest whose way to it can be cut.

    host: dom0's client, a new one after each restart. guest_socket: where the guest's way to the daemon begins.
    """

    def __init__(self, directory: Path) -> None:
        self.server = XenStoreServer(directory / "daemon")
        self.guest_socket = directory / "guest"
        self._listener: socket.socket | None = None
        self._ways: list[socket.socket] = []

    def start(self) -> Host:
        self.server.start()
        self.host = Host(self.server)
        self.mend()
        return self.host

    def stop(self) -> None:
        """The daemon ends, and with it the tree."""
        self.cut()
        self.server.stop()

    def cut(self) -> None:
        """The guest's connection ends, and no other comes about; the tree stays."""
        self.guest_socket.unlink(missing_ok=True)
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for way in self._ways:
            with contextlib.suppress(OSError):
                way.shutdown(socket.SHUT_RDWR)
        self._ways = []

    def mend(self) -> None:
        """From now on the guest can connect again."""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.guest_socket))
        self._listener.listen()
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                guest, _ = listener.accept()
                daemon = socket.socket(socket.AF_UNIX)
                daemon.connect(str(self.host.guest_socket))
                self._ways += [guest, daemon]
                for pair in ((guest, daemon), (daemon, guest)):
                    threading.Thread(target=_carry, args=pair, daemon=True).start()


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def store() -> Iterator[Store]:
    with tempfile.TemporaryDirectory(prefix="xs") as directory:
        made = Store(Path(directory))
        yield made
        made.stop()


def wait_for(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Reachable(Protocol):
    """What an agent can be started for."""

    guest_socket: Path


class AgentProcess:
    """The agent as a process of its own. Its log is complete once it ended.

    code: a program to run in place of the agent's own. prefix: the program that runs it, with its arguments.
    """

    def __init__(
        self,
        host: Reachable,
        root: Path,
        log: Path,
        code: str | None = None,
        *,
        prefix: Sequence[str] = (),
        interpreter: str = sys.executable,
    ) -> None:
        program = ["-m", "guest_agent"] if code is None else ["-c", code]
        options = ["--root", str(root), "--store", f"unix:{host.guest_socket}"]
        self._log = log
        with log.open("ab") as stderr:
            self.process = subprocess.Popen([*prefix, interpreter, *program, *options], cwd=REPOSITORY, stderr=stderr)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(DEADLINE)


@pytest.fixture
def start_agent(host: Host, root: Path, tmp_path: Path) -> Iterator[Callable[..., AgentProcess]]:
    """Starts agents for the host's guest; `code` is a program to run in place of the agent's own."""
    agents: list[AgentProcess] = []

    def start(code: str | None = None, **options: Any) -> AgentProcess:
        agents.append(AgentProcess(host, root, tmp_path / "agent.log", code, **options))
        return agents[-1]

    yield start
    for agent in agents:
        agent.process.kill()
        agent.process.wait(DEADLINE)


@pytest.fixture
def agent(start_agent: Callable[..., AgentProcess], host: Host) -> AgentProcess:
    """A running agent."""
    started = start_agent()
    host.wait_for_agent()
    return started


@contextlib.contextmanager
def agent_in_thread(
    host: Reachable, context: Context, commands: dict[str, Command], sealed: dict[str, Command] = SEALED_COMMANDS
) -> Iterator[Agent]:
    """An agent in this process, for commands that a test makes up."""
    agent = Agent(lambda: connect(str(host.guest_socket)), commands, sealed, context)
    thread = threading.Thread(target=agent.run, daemon=True)
    thread.start()
    try:
        yield agent
        assert thread.is_alive(), "the agent died"
    finally:
        agent.stop()
        thread.join(DEADLINE)
    assert not thread.is_alive()


def ssh_key(number: int, comment: str = "", kind: str = "ssh-ed25519") -> str:
    """A key of the right shape, different for each number."""
    blob = len(kind).to_bytes(4, "big") + kind.encode() + (32).to_bytes(4, "big") + number.to_bytes(32, "big")
    return re.sub(" $", "", f"{kind} {base64.b64encode(blob).decode()} {comment}")


def names(directory: Path) -> list[str]:
    """What a directory holds, in order."""
    return sorted(entry.name for entry in directory.iterdir())
