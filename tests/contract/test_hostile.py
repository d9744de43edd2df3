"""Hostile inputs for the agent: it lives, and answers each request once. Those for hosts are in test_hostile_guest.py.

Each test prints its seed; XENWARD_TEST_SEED draws the same again.
"""

from __future__ import annotations

import collections
import contextlib
import json
import socket
import struct
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_protocol.adverts import verify_advert
from agent_protocol.frames import FRAME_SIZE, FRAMES, FramesInfo
from agent_protocol.legacy import AgentExchange
from agent_protocol.messages import ADVERT, CLAIMS, REPLIES, REQUESTS, new_request_id
from agent_protocol.sealed import seal_request
from agent_protocol.xenstore import Client, StoreClosed
from guest_agent import transfer
from guest_agent.agent import Agent
from guest_agent.commands import COMMANDS, SEALED_COMMANDS, Context, features
from guest_agent.system.directory import DirectorySystem
from tests.guest_agent.conftest import DOMID, Host, agent_in_thread
from tests.guest_agent.conftest import VM as VM_UUID
from tools.simulator.guest import make_root
from tools.simulator.xenstore.server import TapRecord, XenStoreServer

from .hostile import (
    FRAMED_SENT,
    PACKETS_TO_THE_AGENT,
    PACKETS_TO_THE_STORE,
    REQUESTS_SENT,
    SEALED_SENT,
    Hostile,
    from_environment,
)

AT_ONCE = 40
"""Replies that stand in the store together: of more than 53, C xenstored would not hold the names."""


@pytest.fixture
def hostile() -> Hostile:
    return from_environment()


class Guest:
    """A guest with the real agent, and the number of replies that it wrote for each id."""

    def __init__(self, directory: Path) -> None:
        self.replies: collections.Counter[str] = collections.Counter()
        self.server = XenStoreServer(directory / "store", tap=self._see)
        self.server.start()
        self.host = Host(self.server)
        make_root(directory / "guest")
        self.context = Context(
            DirectorySystem(str(directory / "guest")), AgentExchange(), "1", features(COMMANDS)
        )  # fmt: skip

    def _see(self, record: TapRecord) -> None:
        if (record.domid, record.direction, record.operation) == (DOMID, "request", 11):
            path = record.payload.partition(b"\0")[0].decode()
            if path.startswith(REPLIES + "/"):
                self.replies[path.rpartition("/")[2]] += 1

    def ask_all(self, requests: dict[str, bytes]) -> list[dict[str, Any]]:
        """Send them, and give back the replies: exactly one each, and nothing else remains."""
        host = self.host
        for request_id, value in requests.items():
            host.send_bytes(value, request_id)
        host.wait(lambda: not host.children(REQUESTS) and not host.children(CLAIMS), "the requests to be answered")
        assert sorted(host.children(REPLIES)) == sorted(requests)
        found = []
        for request_id in requests:
            found.append(json.loads(host.read(f"{REPLIES}/{request_id}") or b""))
            host.remove(f"{REPLIES}/{request_id}")
            assert self.replies.pop(request_id) == 1
        return found

    def assert_well(self) -> None:
        assert self.host.ask("version")["returncode"] == "0"
        self.replies.clear()
        assert self.host.children(FRAMES) == []


@pytest.fixture
def guest(directory: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Guest]:
    it = Guest(directory)
    with agent_in_thread(it.host, it.context, COMMANDS):
        it.host.wait_for_agent()
        yield it
        it.assert_well()
    it.host.store.close()
    it.server.stop()
    # Only an error of the agent's own is logged as one.
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def outcomes(replies: list[dict[str, Any]]) -> collections.Counter[str]:
    return collections.Counter(f"{reply.get('outcome')} {reply.get('code', '')}".strip() for reply in replies)


def test_requests(guest: Guest, hostile: Hostile) -> None:
    told: collections.Counter[str] = collections.Counter()
    sent = 0
    while sent < REQUESTS_SENT:
        ids = [new_request_id() for _ in range(AT_ONCE)]
        told += outcomes(guest.ask_all({request_id: hostile.request() for request_id in ids}))
        sent += AT_ONCE
    # Ids that no host of ours would choose.
    told += outcomes(guest.ask_all({name: hostile.request() for name in ("x", "@", "-", "0", "a" * 200)}))
    print(f"{sent} requests: {dict(told)}")
    assert "failed internal_error" not in told


def test_sealed_requests(guest: Guest, hostile: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    # Some announce frames, which never come.
    monkeypatch.setattr(transfer, "PATIENCE", 0.02)
    told: collections.Counter[str] = collections.Counter()
    sent = 0
    while sent < SEALED_SENT:
        advert = verify_advert(guest.host.read(ADVERT) or b"", VM_UUID)
        requests = {}
        for _ in range(AT_ONCE):
            request_id = new_request_id()
            command, value = hostile.random.choice(sorted(SEALED_COMMANDS)), json.dumps(hostile.value())
            box = seal_request(advert.key, VM_UUID, request_id, command, value[:500], expires=2**31)
            as_it_is = json.dumps({"v": 2, "key_id": advert.key.id, "box": box.text})
            nearly = hostile.sealed_value(advert.key.id, box.text)
            text = json.dumps({"name": "sealed", "value": as_it_is if hostile.random.random() < 0.2 else nearly})
            requests[request_id] = text.encode()[:2000]
        replies = guest.ask_all(requests)
        sent += AT_ONCE
        told += outcomes(replies)
    print(f"{sent} sealed requests: {dict(told)}")
    assert "failed internal_error" not in told
    assert {"refused bad_box", "refused unknown_key", "refused bad_request"} <= set(told)


def test_frames(guest: Guest, hostile: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PATIENCE", 0.02)
    told: collections.Counter[str] = collections.Counter()
    for _ in range(FRAMED_SENT):
        key = verify_advert(guest.host.read(ADVERT) or b"", VM_UUID).key
        request_id = new_request_id()
        count = hostile.random.randint(1, 3)
        text = "A" * (FRAME_SIZE * (count - 1) + hostile.random.randint(1, FRAME_SIZE))
        info = FramesInfo.of(text).members()
        if hostile.random.random() < 0.3:
            info["sha256"] = "0" * 64
        for index in range(count):
            frame = text[index * FRAME_SIZE : (index + 1) * FRAME_SIZE].encode()
            kind = hostile.random.randrange(6)
            if kind == 0:
                continue
            frame = hostile.mangled(frame)[:2000] if kind == 1 else frame
            guest.host.write(f"{FRAMES}/{request_id}/{index + (7 if kind == 2 else 0)}", frame)
        value = json.dumps({"v": 2, "key_id": key.id, "frames": info})
        told += outcomes(guest.ask_all({request_id: json.dumps({"name": "sealed", "value": value}).encode()}))
        assert guest.host.children(FRAMES) == []
    print(f"{FRAMED_SENT} requests in frames: {dict(told)}")
    assert set(told) == {"refused frames_incomplete", "refused frames_corrupt", "refused bad_box"}


PATHS = ("data/junk", "data/junk/a/b", "data/xenward/junk", "attr/x", "/local/domain/0/x", "/local/domain/9/x", "/vm",
         "@releaseDomain", "data/junk/", "//", "é", "/" * 3000)  # fmt: skip


def test_packets_to_the_store(guest: Guest, hostile: Hostile) -> None:
    """What other programs in the guest send to XenStore does not come between the agent and its host."""
    sent = connections = 0
    while sent < PACKETS_TO_THE_STORE:
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.settimeout(5.0)
            stranger.connect(str(guest.host.guest_socket))
            connections += 1
            with contextlib.suppress(OSError):
                for _ in range(hostile.random.randint(1, 30)):
                    stranger.sendall(hostile.packet(PATHS))
                    sent += 1
        if connections % 50 == 0:
            guest.assert_well()
    print(f"{sent} packets to the store, over {connections} connections")


def test_packets_to_the_agent(hostile: Hostile, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that has gone mad costs the agent its connection, or lets it wait, and does nothing else to it."""
    monkeypatch.setattr("guest_agent.agent.FIRST_PAUSE", 0.001)
    make_root(directory / "guest")
    sent = sessions = 0
    while sent < PACKETS_TO_THE_AGENT:
        ours, theirs = socket.socketpair()
        # By then the agent has nothing to ask, and waits.
        ours.settimeout(0.003)
        system = DirectorySystem(str(directory / "guest"))
        context = Context(system, AgentExchange(), "1", features(COMMANDS))
        store = _OneConnection(Client(theirs.detach(), timeout=0.2))
        agent = Agent(store.open, COMMANDS, SEALED_COMMANDS, context)
        ended: list[BaseException | None] = []
        thread = threading.Thread(target=_run, args=(agent, ended), daemon=True)
        thread.start()
        with ours, contextlib.suppress(OSError):
            for _ in range(hostile.random.randint(5, 60)):
                ours.sendall(_packet(hostile, _received(ours)))
                sent += 1
        assert store.asked_again.wait(20.0)
        agent.stop()
        thread.join(20.0)
        assert not thread.is_alive()
        assert ended == [None]
        sessions += 1
    print(f"{sent} packets to the agent, in {sessions} sessions")


class _OneConnection:
    """A store that can be opened once."""

    def __init__(self, client: Client) -> None:
        self._clients = [client]
        self.asked_again = threading.Event()

    def open(self) -> Client:
        if not self._clients:
            self.asked_again.set()
            raise StoreClosed("there is no other")
        return self._clients.pop()


def _run(agent: Agent, ended: list[BaseException | None]) -> None:
    try:
        agent.run()
        ended.append(None)
    except BaseException as error:
        ended.append(error)


def _received(ours: socket.socket) -> bytes:
    """The agent's next packet; nothing when it waits for an event. OSError when it is gone."""
    try:
        received = ours.recv(65536)
    except TimeoutError:
        return b""
    if not received:
        raise OSError
    return received


def _packet(hostile: Hostile, request: bytes) -> bytes:
    """What the agent takes for an answer, mostly; sometimes with an event before it."""
    words = [b"data/host", b"stop", ADVERT.encode(), b"\xff", b""]
    event = b"\0".join(hostile.random.choice(words) for _ in range(2))
    event = struct.pack("<IIII", 15, 0, 0, len(event)) + event
    if not request:
        return event
    operation, request_id = struct.unpack_from("<II", request)
    kind = hostile.random.randrange(30)
    if kind == 0:
        return hostile.packet(PATHS)
    names = [str(uuid.UUID(int=hostile.random.getrandbits(128))), "x", "0"]
    payload = hostile.random.choice(
        [b"", b"\0", b"OK\0", b"/vm/" + VM_UUID.encode(), names[0].encode() + b"\0", b"1\0", hostile.request(),
         b"\xff\0x\0", b"\0".join(name.encode() for name in names) + b"\0"]
    )  # fmt: skip
    if kind < 6:
        operation, payload = (
            16,
            hostile.random.choice([b"ENOENT\0", b"EACCES\0", b"ENOSPC\0", b"E2BIG\0", b"\xff", b""]),
        )
    data = struct.pack("<IIII", operation, request_id, 0, len(payload)) + payload
    return event + data if kind > 24 else data
