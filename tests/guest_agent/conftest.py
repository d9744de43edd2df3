"""A guest that is a throw-away directory, a simulated store, and the host's side of the conversation."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from agent_protocol.frames import FRAMES
from agent_protocol.legacy import AgentExchange
from agent_protocol.messages import ADVERT, CLAIMS, REPLIES, REQUESTS, new_request_id
from agent_protocol.xenstore import Client, StoreError, connect
from guest_agent.agent import Agent
from guest_agent.commands import COMMANDS, SEALED_COMMANDS, Command, Context, features
from guest_agent.system.directory import DirectorySystem
from tools.simulator.xenstore.server import XenStoreServer

DOMID = 7
VM = "6d2f9d0e-3a4b-4c5d-8e6f-708192a3b4c5"
DEADLINE = 20.0
"""Seconds that anything may take before a test gives up on it."""

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


class AgentProcess:
    """The agent as a process of its own. Its log is complete once it ended."""

    def __init__(self, host: Host, root: Path, log: Path, code: str | None = None) -> None:
        program = ["-m", "guest_agent"] if code is None else ["-c", code]
        options = ["--root", str(root), "--store", f"unix:{host.guest_socket}"]
        self._log = log
        with log.open("ab") as stderr:
            self.process = subprocess.Popen([sys.executable, *program, *options], cwd=REPOSITORY, stderr=stderr)

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

    def start(code: str | None = None) -> AgentProcess:
        agents.append(AgentProcess(host, root, tmp_path / "agent.log", code))
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
    host: Host, context: Context, commands: dict[str, Command], sealed: dict[str, Command] = SEALED_COMMANDS
) -> Iterator[Client]:
    """An agent in this process, for commands that a test makes up. Gives its connection to the store."""
    store = connect(str(host.guest_socket))
    agent = Agent(store, commands, sealed, context)
    thread = threading.Thread(target=agent.run, daemon=True)
    thread.start()
    try:
        yield store
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
