"""A simulated XenStore with two running guests, whose agents the tests play."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any, Callable

import pytest

from agent_protocol import frames
from agent_protocol.xenstore import Client, StoreError, Transaction, WatchEvent, connect
from dom0_plugins.exchange import exchange
from tests.agent_protocol.store import DEADLINE, in_background, lay_out, running_server
from tools.simulator.xenstore.server import XenStoreServer


def read_or_none(client: Client, path: str) -> bytes | None:
    """A node's value, None when it is missing."""
    try:
        return client.read(path)
    except StoreError as error:
        assert error.code == "ENOENT", error
        return None


class Guest:
    """A domain with its own connection to the store."""

    def __init__(self, server: XenStoreServer, dom0: Client, domid: int) -> None:
        self._server = server
        self._dom0 = dom0
        self.domid = domid
        self.vm = str(uuid.UUID(int=domid))
        self.domain = lay_out(dom0, domid, self.vm)
        self.store = connect(str(server.introduce(domid)))
        self.store.watch("data", "data")

    def take(self, identity: str) -> bytes:
        """Wait for a request and read it."""
        return self.wait_for(f"data/host/{identity}")

    def wait_for(self, path: str) -> bytes:
        """Wait until somebody writes a node, and read it."""
        deadline = time.monotonic() + DEADLINE
        while (value := read_or_none(self.store, path)) is None:
            assert self.store.next_event(deadline - time.monotonic()), f"{path} does not come"
        return value

    def take_frames(self, identity: str, numbers: Iterable[int]) -> list[str]:
        """Read frames in order, removing each, as agents do."""
        taken = []
        for number in numbers:
            path = f"data/xenward/frames/{identity}/{number}"
            taken.append(self.wait_for(path).decode("ascii"))
            self.store.remove(path)
        return taken

    def reply_in_frames(self, identity: str, text: str, *, alive: int = 32, **announced: object) -> bytes:
        """Reply as agents do when it does not fit one node; returns the reply itself. announced: lies, if any."""
        info = frames.FramesInfo.of(text).members()
        reply = json.dumps({"returncode": "0", "frames": {**info, **announced}}).encode()
        pieces = frames.split(text)
        directory = f"data/xenward/frames/{identity}"
        for number, piece in enumerate(pieces):
            if number >= alive:
                self.wait_until_gone(f"{directory}/{number - alive}")
            self.store.write(f"{directory}/{number}", piece.encode())
            if number == min(alive, len(pieces)) - 1:
                self.reply(identity, reply)
        return reply

    def wait_until_gone(self, path: str) -> None:
        """Wait until somebody removes a node."""
        deadline = time.monotonic() + DEADLINE
        while read_or_none(self.store, path) is not None:
            assert self.store.next_event(deadline - time.monotonic()), f"{path} is still there"

    def reply(self, identity: str, value: bytes) -> None:
        """Write a reply as agents do: the reply first, then the request is removed."""
        self.store.write(f"data/guest/{identity}", value)
        with contextlib.suppress(StoreError):
            self.store.remove(f"data/host/{identity}")

    def promise(self) -> None:
        """Tell that an agent of ours is there."""
        self.store.write("data/xenward/agent", b"{}")

    def claim(self, identity: str) -> None:
        """Mark a request as begun."""
        self.store.write(f"data/xenward/claims/{identity}", b"")

    def end(self) -> None:
        """Let the domain disappear, as at a shutdown."""
        self._dom0.remove(self.domain)
        self._server.release(self.domid)

    def leftovers(self) -> list[str]:
        """Requests, replies and frames that nobody deleted."""
        found = []
        for directory in ("data/host", "data/guest", "data/xenward/frames"):
            try:
                found += [f"{directory}/{name}" for name in self._dom0.directory(f"{self.domain}/{directory}")]
            except StoreError as error:
                assert error.code == "ENOENT", error
        return found


class HookedTransaction(Transaction):
    """A transaction around which others can act."""

    def __init__(self, client: HookedClient, identity: int) -> None:
        super().__init__(client, identity)
        self._hooks = client

    def write(self, path: str, value: bytes) -> None:
        self._hooks.before_write(path)
        super().write(path, value)

    def commit(self) -> bool:
        self._hooks.before_commit()
        return super().commit()

    def abort(self) -> None:
        super().abort()
        self._hooks.after_abort()


class HookedClient(Client):
    """The plugin's connection, which lets a test act at a chosen moment: an order of events without sleeping."""

    before_transaction: Callable[[], None] = staticmethod(lambda: None)
    before_commit: Callable[[], None] = staticmethod(lambda: None)
    after_abort: Callable[[], None] = staticmethod(lambda: None)
    before_write: Callable[[str], None] = staticmethod(lambda path: None)
    before_wait: Callable[[], None] = staticmethod(lambda: None)

    def transaction(self) -> Transaction:
        self.before_transaction()
        return HookedTransaction(self, super().transaction()._identity)

    def next_event(self, timeout: float | None) -> WatchEvent | None:
        self.before_wait()
        return super().next_event(timeout)


def at(turn: int, act: Callable[[], object]) -> Callable[[], None]:
    """A hook that acts when it is called for the `turn`th time, from 1."""
    calls = 0

    def hook() -> None:
        nonlocal calls
        calls += 1
        if calls == turn:
            act()

    return hook


def request(guest: Guest | str, value: str = "a request") -> dict[str, Any]:
    """One entry of the argument `requests`, with a fresh id."""
    vm = guest if isinstance(guest, str) else guest.vm
    return {"vm": vm, "id": str(uuid.uuid4()), "value": value}


def slices(entry: dict[str, Any], text: str, size: int) -> list[dict[str, Any]]:
    """The entries of the calls that bring `text` in slices of `size` frames."""
    pieces = frames.split(text)
    parts = [(first, pieces[first : first + size]) for first in range(0, len(pieces), size)]
    return [
        {**entry, "frames": {"first": first, "values": values, "last": first + size >= len(pieces)}}
        for first, values in parts
    ]


HOOKS = ("before_transaction", "before_commit", "after_abort", "before_write", "before_wait")


class Plugin:
    """dom0's side: calls to `exchange`, each on a hooked connection of its own, as each has a process of its own.

    store: the connection of the next call, or of the one that runs.
    """

    def __init__(self, server: XenStoreServer) -> None:
        self._socket = os.fspath(server.socket)
        self.store = self._connect()
        self._used = False

    def _connect(self) -> HookedClient:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._socket)
        return HookedClient(connection.detach(), DEADLINE)

    def _renew(self) -> None:
        old, self.store = self.store, self._connect()
        for name in HOOKS:
            setattr(self.store, name, getattr(old, name))
        old.close()

    def call(self, *requests: dict[str, Any], timeout: float = 0) -> list[dict[str, str]]:
        """Make a call, and wait for its end."""
        return self.start(*requests, timeout=timeout).result(DEADLINE)

    def start(self, *requests: dict[str, Any], timeout: float = 10 * DEADLINE) -> Future[list[dict[str, str]]]:
        """Begin a call, which outlasts the test unless something ends it."""
        if self._used:
            self._renew()
        self._used = True
        store = self.store

        def run() -> list[dict[str, str]]:
            results: Any = json.loads(exchange({"requests": json.dumps(requests), "timeout": str(timeout)}, store))
            assert [result["id"] for result in results] == [entry["id"] for entry in requests]
            return list(results)

        return in_background(run)


@pytest.fixture
def server() -> Iterator[XenStoreServer]:
    """A running daemon."""
    with running_server() as running:
        yield running


@pytest.fixture
def dom0(server: XenStoreServer) -> Iterator[Client]:
    """The toolstack's connection, which is not the plugin's."""
    with connect(str(server.socket)) as client:
        client.mkdir("/local/domain/0")
        yield client


@pytest.fixture
def guest(server: XenStoreServer, dom0: Client) -> Iterator[Guest]:
    """Domain 7."""
    running = Guest(server, dom0, 7)
    yield running
    running.store.close()


@pytest.fixture
def other(server: XenStoreServer, dom0: Client) -> Iterator[Guest]:
    """Domain 8."""
    running = Guest(server, dom0, 8)
    yield running
    running.store.close()


@pytest.fixture
def plugin(server: XenStoreServer, dom0: Client) -> Iterator[Plugin]:
    """The plugin on its own connection."""
    calls = Plugin(server)
    yield calls
    calls.store.close()
