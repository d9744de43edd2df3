"""The store is lost in the middle of something: whatever it was, there is one answer, and it is the right one."""

from __future__ import annotations

import base64
import os
import threading
from pathlib import Path
from typing import Callable

import pytest

from agent_protocol.adverts import verify_advert
from agent_protocol.frames import FRAMES, MAX_ALIVE, Joiner
from agent_protocol.messages import ADVERT, CLAIMS, REPLIES, REQUESTS, MessageError, new_request_id, parse_advert
from agent_protocol.outcomes import Outcome
from agent_protocol.sealed import open_reply, parse_sealed_reply, verify_receipt
from agent_protocol.wire import Operation
from agent_protocol.xenstore import Client, StoreClosed, StoreTimeout, connect
from guest_agent import agent as agent_module
from guest_agent.agent import Agent
from guest_agent.commands import COMMANDS, SEALED_COMMANDS, Command, Context, Result
from guest_agent.nodes import Events
from guest_agent.session import Session
from guest_agent.transfer import Progress, Transfer
from tests.agent_protocol.store import in_background

from .conftest import DEADLINE, VM, Host, Store, agent_in_thread, wait_for
from .sealing import SealedHost
from .test_agent import made_up, noting

OTHER_VM = "00000000-0000-4000-8000-000000000002"


@pytest.fixture
def store(store: Store) -> Store:
    """One that runs."""
    store.start()
    return store


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that does not wait before it looks for its store."""
    monkeypatch.setattr(agent_module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(agent_module, "LONGEST_PAUSE", 0.001)


def advertised(host: Host) -> bytes | None:
    """The identity of the agent of VM, once its advert stands in the store."""
    try:
        return verify_advert(host.read(ADVERT) or b"", VM).identity
    except MessageError:
        return None


def test_another_vm_after_the_store_is_back(store: Store, context: Context, quick: None) -> None:
    with agent_in_thread(store, context, COMMANDS):
        before = SealedHost(store.host)
        store.cut()
        store.host.become(OTHER_VM)
        store.host.remove(ADVERT)
        store.mend()
        store.host.wait_for_agent()
        assert context.vm == OTHER_VM
        store.host.become(VM)
        store.host.wait(
            lambda: advertised(store.host) not in (None, before.identity), "an advert with another identity"
        )
        assert context.vm == VM


def test_a_vm_that_is_told_late(host: Host, context: Context) -> None:
    host.remove("vm")
    with agent_in_thread(host, context, COMMANDS):
        host.wait_for_agent()
        host.become(VM)
        host.wait(lambda: "ping" in parse_advert(host.read(ADVERT) or b"").features, "the sealed commands")
        assert SealedHost(host).ask("ping").outcome is Outcome.SUCCEEDED


class Flaky(Client):
    """A connection that is lost at its n-th operation: before the daemon has it, or after, with its answer."""

    operations = 0
    lost_at = 0
    heard = False
    error: type[Exception] = StoreClosed

    def _ask(self, operation: Operation, path: str, payload: bytes, transaction: int = 0) -> bytes:
        cls = type(self)
        cls.operations += 1
        lost = cls.operations == cls.lost_at
        if not lost or cls.heard:
            result = super()._ask(operation, path, payload, transaction)
        if lost:
            if cls.error is StoreClosed:
                self._fail("lost")
            raise cls.error("lost")
        return result


def flaky(host: Host) -> Client:
    with connect(str(host.guest_socket)) as plain:
        return Flaky(os.dup(plain._descriptor))


def lose_everywhere(host: Host, serve: Callable[[], None]) -> int:
    """Call `serve` with the store lost at the first operation, the second, and so on until it is lost at none."""
    for lost_at in range(1, 500):
        Flaky.operations, Flaky.lost_at = 0, lost_at
        serve()
        host.assert_nothing_left()
        if Flaky.operations < lost_at:
            return lost_at - 1
    raise AssertionError("it never ends")


@pytest.mark.parametrize(("heard", "error"), [(False, StoreClosed), (True, StoreClosed), (True, StoreTimeout)])
def test_lost_at_each_operation_of_a_request(
    host: Host,
    context: Context,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    heard: bool,
    error: type[Exception],
) -> None:
    """Whatever the agent was about to tell the store: one answer, the right one, and one execution."""
    monkeypatch.setattr(Flaky, "heard", heard)
    monkeypatch.setattr(Flaky, "error", error)
    runs: list[str] = []
    agent = Agent(lambda: flaky(host), made_up("note", noting(runs)), {}, context)
    thread = threading.Thread(target=agent.run, daemon=True)
    thread.start()
    host.wait_for_agent()

    def serve() -> None:
        request_id = host.send("note", "x")
        # Until the agent is done with it, so that a reply that it takes back is missed here.
        wait_for(lambda: agent._memory.has_taken(request_id) and not agent._memory.answers)
        assert host.reply(request_id) == {"returncode": "0", "message": "x", "outcome": "succeeded"}

    times = lose_everywhere(host, serve)
    agent.stop()
    thread.join(DEADLINE)
    assert times >= 8
    assert runs == ["x"] * (times + 1)


class LostReply(Client):
    """A connection that is lost once, right after a reply was written."""

    written: list[str] = []

    def write(self, path: str, value: bytes) -> None:
        super().write(path, value)
        if path.startswith(REPLIES):
            self.written.append(path)
            if len(self.written) == 1:
                self._fail("lost")


@pytest.mark.parametrize("kept", [True, False])
def test_lost_right_after_the_reply(
    host: Host, context: Context, quick: None, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """The host has read the reply by then; or, as after a migration, it stands where nobody will ever look."""
    monkeypatch.setattr(LostReply, "written", [])
    there = threading.Event()
    there.set()
    claimed: list[bool] = []

    def open_store() -> Client:
        assert there.wait(DEADLINE)
        there.clear()
        with connect(str(host.guest_socket)) as plain:
            return LostReply(os.dup(plain._descriptor))

    write_reply = Session._write_reply

    def noted(self: Session, request_id: str, value: bytes) -> None:
        claimed.append(self._nodes.read(f"{CLAIMS}/{request_id}") is not None)
        write_reply(self, request_id, value)

    monkeypatch.setattr(Session, "_write_reply", noted)
    runs: list[str] = []
    agent = Agent(open_store, made_up("note", noting(runs)), {}, context)
    thread = threading.Thread(target=agent.run, daemon=True)
    thread.start()
    request_id = host.send("note", "x")
    wait_for(lambda: len(LostReply.written) == 1)
    for directory in (REPLIES,) if kept else (REQUESTS, REPLIES, CLAIMS):
        host.remove(directory)
    if not kept:
        host.send("note", "x", request_id)
    there.set()
    if not kept:
        assert host.reply(request_id)["outcome"] == "succeeded"
    wait_for(lambda: not agent._memory.answers)
    assert (runs, claimed) == (["x"], [True] if kept else [True, True])
    agent.stop()
    thread.join(DEADLINE)
    host.assert_nothing_left()


TEXT = "x" * 90_000
"""Takes so many frames that the last one is not written yet whenever the store is cut."""


def talking() -> dict[str, Command]:
    return {**SEALED_COMMANDS, "talk": Command("talk", lambda context, untrusted: Result("", {"text": TEXT}))}


def test_a_reply_in_frames_goes_on_where_it_was(store: Store, context: Context, quick: None) -> None:
    with agent_in_thread(store, context, COMMANDS, talking()):
        talker = SealedHost(store.host)
        asked = talker.seal("talk")
        talker.send(asked)
        host = store.host
        host.wait(lambda: talker.replied(asked.request_id), "a reply")
        reply = parse_sealed_reply(host.read(f"{REPLIES}/{asked.request_id}") or b"")
        receipt = verify_receipt(reply, talker.identity, VM, asked.request_id)
        assert reply.frames is not None
        joiner = Joiner(reply.frames)
        box = None
        while not joiner.complete:
            if joiner.next_index in (3, MAX_ALIVE, 2 * MAX_ALIVE + 1):
                path = f"{FRAMES}/{asked.request_id}/{joiner.next_index}"
                host.wait(lambda: host.read(path) is not None, "the frame that is taken meanwhile")  # noqa: B023
                store.cut()
                box = talker.take_frame(asked.request_id, joiner)
                store.mend()
            else:
                box = talker.take_frame(asked.request_id, joiner)
        assert open_reply(receipt, asked.box.reply_key, VM, asked.request_id, box).data == {"text": TEXT}
        host.reply(asked.request_id)
        host.assert_nothing_left()


def test_a_frame_that_was_read_before_the_store_confirmed_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written again, since nobody knows; and taken away again once the host is seen to be past it."""
    request_id, progress, frames = new_request_id(), Progress(), [str(number) for number in range(40)]
    directory = f"{FRAMES}/{request_id}"
    host.write(f"{REQUESTS}/{request_id}", b"")
    host.write(f"{REPLIES}/{request_id}", b"")
    write = Client.write

    def lose(self: Client, path: str, value: bytes) -> None:
        write(self, path, value)
        if path == f"{directory}/5":
            self.close()
            raise StoreClosed("the daemon closed the connection")

    with connect(str(host.guest_socket)) as store, monkeypatch.context() as losing:
        losing.setattr(Client, "write", lose)
        with pytest.raises(StoreClosed):
            Transfer(store, Events(store), request_id, lambda: False).send(frames, progress)
    assert (progress.written, progress.in_doubt) == (5, True)
    taken = []

    def take(number: int) -> None:
        path = f"{directory}/{number}"
        host.wait(lambda: host.read(path) is not None, "a frame")
        taken.append((host.read(path) or b"").decode())
        host.remove(path)

    for number in range(6):
        take(number)
    with connect(str(host.guest_socket)) as store:
        transfer = Transfer(store, Events(store), request_id, lambda: False)
        sending = in_background(lambda: transfer.send(frames, progress))
        for number in range(6, 40):
            take(number)
        sending.result(DEADLINE)
    assert taken == frames
    assert host.children(directory) == []


def test_the_last_frame_was_read_before_the_store_confirmed_it(host: Host) -> None:
    request_id = new_request_id()
    host.write(f"{REQUESTS}/{request_id}", b"")
    # The host has read all frames, and then removed the reply.
    with connect(str(host.guest_socket)) as store:
        transfer = Transfer(store, Events(store), request_id, lambda: False)
        transfer.send(["0", "1"], Progress(written=1, in_doubt=True))
    assert host.children(f"{FRAMES}/{request_id}") == []


def test_a_request_in_frames_is_refused(store: Store, context: Context, quick: None, root: Path) -> None:
    with agent_in_thread(store, context, COMMANDS):
        sealed = SealedHost(store.host)
        content = base64.b64encode(os.urandom(60_000)).decode()
        asked = sealed.seal("file_put", {"path": "/etc/large", "content": content})
        store.host.send_bytes(asked.message.node, asked.request_id)
        for number in range(5):
            store.host.write(f"{FRAMES}/{asked.request_id}/{number}", asked.message.frames[number].encode())
        store.host.wait(lambda: not sealed.alive(asked.request_id), "the frames to be taken")
        store.cut()
        store.host.write(f"{FRAMES}/{asked.request_id}/5", asked.message.frames[5].encode())
        store.mend()
        result = sealed.finish(asked)[1]
        assert (result.outcome, result.code) == (Outcome.REFUSED, "frames_incomplete")
        assert not (root / "etc/large").exists()
        assert sealed.ask("ping").outcome is Outcome.SUCCEEDED
        store.host.assert_nothing_left()


@pytest.mark.parametrize("kept", [True, False])
def test_a_command_that_needs_the_store_itself(store: Store, context: Context, quick: None, kept: bool) -> None:
    """How far it came is told by nobody: the answer says so."""

    def read(context: Context, untrusted: str) -> Result:
        assert context.nodes is not None
        if not kept:
            store.cut()
            wait_for(lambda: not store.guest_socket.exists())
        return Result(str(context.nodes.read("vm")))

    with agent_in_thread(store, context, made_up("read", read)):
        store.host.wait_for_agent()
        request_id = store.host.send("read")
        if not kept:
            wait_for(lambda: not store.guest_socket.exists())
            store.mend()
        reply = store.host.reply(request_id)
    assert (reply["outcome"], reply.get("code")) == (("succeeded", None) if kept else ("unknown", "store_lost"))
