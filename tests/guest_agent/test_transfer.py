from __future__ import annotations

import base64
import os
import signal
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_protocol.frames import FRAMES, MAX_ALIVE, Joiner
from agent_protocol.messages import ADVERT, CLAIMS, REPLIES, REQUESTS
from agent_protocol.outcomes import Outcome
from agent_protocol.sealed import SealedResult, parse_sealed_reply
from agent_protocol.wire import Operation
from agent_protocol.xenstore import Client, StoreError
from guest_agent.commands import COMMANDS, SEALED_COMMANDS, Command, Context, Result

from .conftest import DEADLINE, AgentProcess, Host, agent_in_thread
from .sealing import FRAMES_ALLOWED, Asked, SealedHost
from .test_agent import StartAgent

WINDOW = [str(number) for number in range(MAX_ALIVE)]


def large_file(sealed: SealedHost, size: int = 60_000) -> Asked:
    """A request in several windows of frames."""
    content = base64.b64encode(os.urandom(size)).decode()
    asked = sealed.seal("file_put", {"path": "/etc/large", "content": content})
    assert len(asked.message.frames) > 2 * MAX_ALIVE
    return asked


def begin(sealed: SealedHost, asked: Asked, frames: int) -> None:
    """Write the request and some of its frames, and wait until those were taken."""
    sealed.host.send_bytes(asked.message.node, asked.request_id)
    for number in range(frames):
        sealed.host.write(f"{FRAMES}/{asked.request_id}/{number}", asked.message.frames[number].encode())
    sealed.host.wait(lambda: not sealed.alive(asked.request_id), "the frames to be taken")
    assert sealed.host.children(CLAIMS) == [asked.request_id]


def ended(sealed: SealedHost, asked: Asked) -> tuple[Outcome, str]:
    result = sealed.finish(asked)[1]
    return result.outcome, result.code


@pytest.fixture
def sealed(agent: AgentProcess, host: Host) -> SealedHost:
    return SealedHost(host)


def test_a_file_of_a_mebibyte(sealed: SealedHost, root: Path) -> None:
    content = os.urandom(1024 * 1024)
    result = sealed.ask("file_put", {"path": "/etc/large", "content": base64.b64encode(content).decode()})
    assert result == SealedResult(Outcome.SUCCEEDED)
    assert (root / "etc/large").read_bytes() == content
    assert 0 < sealed.most_alive <= FRAMES_ALLOWED
    sealed.host.assert_nothing_left()


def test_a_byte_more_is_refused(sealed: SealedHost, root: Path) -> None:
    content = base64.b64encode(bytes(1024 * 1024 + 1)).decode()
    result = sealed.ask("file_put", {"path": "/etc/large", "content": content})
    assert (result.outcome, result.code) == (Outcome.REFUSED, "bad_arguments")
    assert not (root / "etc/large").exists()


def test_killed_between_frames(start_agent: StartAgent, host: Host, root: Path) -> None:
    killed = start_agent()
    sealed = SealedHost(host)
    asked = large_file(sealed)
    begin(sealed, asked, 5)
    host.write(f"{FRAMES}/{asked.request_id}/9", b"left over")
    killed.process.kill()
    killed.process.wait(DEADLINE)
    host.remove(ADVERT)
    start_agent()
    host.wait_for_agent()
    assert ended(sealed, asked) == (Outcome.UNKNOWN, "agent_restarted")
    assert sealed.ask("ping").outcome is Outcome.SUCCEEDED
    host.assert_nothing_left()
    assert not (root / "etc/large").exists()


def test_frames_of_nobody_are_removed_at_the_start(start_agent: StartAgent, host: Host) -> None:
    host.write(f"{FRAMES}/orphan/0", b"x")
    host.write(f"{FRAMES}/waiting/0", b"x")
    host.write(f"{REQUESTS}/waiting", b"")
    start_agent()
    host.wait(lambda: "orphan" not in host.children(FRAMES), "the removal")
    assert "waiting" in host.children(FRAMES)


def test_sigterm_between_frames_refuses(sealed: SealedHost, agent: AgentProcess, host: Host, root: Path) -> None:
    asked = large_file(sealed)
    begin(sealed, asked, 5)
    agent.process.send_signal(signal.SIGTERM)
    assert ended(sealed, asked) == (Outcome.REFUSED, "frames_incomplete")
    assert agent.process.wait(DEADLINE) == 0
    assert not (root / "etc/large").exists()
    host.assert_nothing_left()


@pytest.fixture
def in_thread(host: Host, context: Context) -> Iterator[SealedHost]:
    with agent_in_thread(host, context, COMMANDS):
        yield SealedHost(host)


def test_a_writer_that_stops(in_thread: SealedHost, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guest_agent.transfer.PATIENCE", 0.2)
    asked = large_file(in_thread)
    in_thread.host.send_bytes(asked.message.node, asked.request_id)
    in_thread.host.write(f"{FRAMES}/{asked.request_id}/0", asked.message.frames[0].encode())
    in_thread.host.write(f"{FRAMES}/{asked.request_id}/2", asked.message.frames[2].encode())
    next_one = in_thread.host.send("version")
    assert ended(in_thread, asked) == (Outcome.REFUSED, "frames_incomplete")
    assert in_thread.host.reply(next_one)["returncode"] == "0"
    assert not (root / "etc/large").exists()
    in_thread.host.assert_nothing_left()


def test_patience_is_counted_from_the_last_frame(in_thread: SealedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guest_agent.transfer.PATIENCE", 0.6)
    asked = in_thread.seal("file_put", {"path": "/etc/f", "content": "A" * 4000})
    assert len(asked.message.frames) == 3
    in_thread.host.send_bytes(asked.message.node, asked.request_id)
    for number, frame in enumerate(asked.message.frames):
        time.sleep(0.25)
        in_thread.host.write(f"{FRAMES}/{asked.request_id}/{number}", frame.encode())
    assert ended(in_thread, asked)[0] is Outcome.SUCCEEDED


def test_nothing_else_is_served_meanwhile(in_thread: SealedHost, root: Path) -> None:
    asked = large_file(in_thread)
    begin(in_thread, asked, 3)
    other = in_thread.host.send("version")
    in_thread.host.write(f"{FRAMES}/{asked.request_id}/3", asked.message.frames[3].encode())
    in_thread.host.wait(lambda: not in_thread.alive(asked.request_id), "the frame to be taken")
    assert in_thread.host.read(f"{REPLIES}/{other}") is None
    rest = dict(enumerate(asked.message.frames))
    for number in range(4, len(rest)):
        in_thread.host.wait(lambda: len(in_thread.alive(asked.request_id)) < MAX_ALIVE, "room")
        in_thread.host.write(f"{FRAMES}/{asked.request_id}/{number}", rest[number].encode())
    assert ended(in_thread, asked)[0] is Outcome.SUCCEEDED
    assert in_thread.host.reply(other)["returncode"] == "0"


@pytest.mark.parametrize("what", ["content", "length", "bytes"])
def test_corrupt_frames(in_thread: SealedHost, root: Path, what: str) -> None:
    asked = large_file(in_thread)
    frames = list(asked.message.frames)
    broken = {
        "content": ("B" if frames[1][0] == "A" else "A") + frames[1][1:],
        "length": frames[1][1:],
        "bytes": "\xff" + frames[1][1:],
    }
    in_thread.host.send_bytes(asked.message.node, asked.request_id)
    frames[1] = broken[what]
    for number, frame in enumerate(frames):
        in_thread.host.wait(
            lambda: len(in_thread.alive(asked.request_id)) < MAX_ALIVE or in_thread.replied(asked.request_id), "room"
        )
        if in_thread.replied(asked.request_id):
            break
        in_thread.host.write(f"{FRAMES}/{asked.request_id}/{number}", frame.encode("latin-1"))
    assert ended(in_thread, asked) == (Outcome.REFUSED, "frames_corrupt")
    assert not (root / "etc/large").exists()
    # What was written between the agent's answer and its being seen is for the writer to remove.
    in_thread.host.remove(FRAMES)
    assert in_thread.ask("ping").outcome is Outcome.SUCCEEDED


def test_withdrawn_between_frames(in_thread: SealedHost, root: Path) -> None:
    asked = large_file(in_thread)
    begin(in_thread, asked, 3)
    transaction = in_thread.host.store.transaction()
    for directory in (REQUESTS, FRAMES):
        transaction.remove(in_thread.host.path(f"{directory}/{asked.request_id}"))
    started = time.monotonic()
    assert transaction.commit()
    in_thread.host.wait(lambda: in_thread.host.children(CLAIMS) == [], "the claim's removal")
    assert time.monotonic() - started < 5
    in_thread.host.assert_nothing_left()
    assert in_thread.ask("ping").outcome is Outcome.SUCCEEDED
    assert not (root / "etc/large").exists()


def test_what_happens_meanwhile_is_not_forgotten(in_thread: SealedHost) -> None:
    host, asked = in_thread.host, large_file(in_thread)
    begin(in_thread, asked, 3)
    host.remove(ADVERT)
    other = host.send("version")
    host.write(f"{FRAMES}/{asked.request_id}/3", asked.message.frames[3].encode())
    host.wait(lambda: not in_thread.alive(asked.request_id), "the frame to be taken")
    host.remove(f"{REQUESTS}/{asked.request_id}")
    host.wait_for_agent()
    assert host.reply(other)["returncode"] == "0"


def test_unknown_keys_are_told_before_the_frames(in_thread: SealedHost) -> None:
    key = in_thread.key
    for _ in range(2):
        in_thread.ask("ping")
    in_thread.key, current = key, in_thread.key
    asked = large_file(in_thread)
    in_thread.host.write(f"{FRAMES}/{asked.request_id}/0", asked.message.frames[0].encode())
    in_thread.host.send_bytes(asked.message.node, asked.request_id)
    assert ended(in_thread, asked) == (Outcome.REFUSED, "unknown_key")
    in_thread.host.assert_nothing_left()
    in_thread.key = current
    assert in_thread.ask("ping").outcome is Outcome.SUCCEEDED


def test_frames_that_cannot_be_read(in_thread: SealedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Client.read

    def refuse(self: Client, path: str) -> bytes:
        if path.startswith(FRAMES):
            raise StoreError(Operation.READ, path, "EACCES")
        return read(self, path)

    monkeypatch.setattr(Client, "read", refuse)
    asked = large_file(in_thread)
    in_thread.host.send_bytes(asked.message.node, asked.request_id)
    assert ended(in_thread, asked) == (Outcome.FAILED, "unreadable_request")


# Replies in frames

TEXT = "é" * 20_000


def talking() -> dict[str, Command]:
    return {**SEALED_COMMANDS, "talk": Command("talk", lambda context, untrusted: Result("", {"text": TEXT}))}


@pytest.fixture
def talker(host: Host, context: Context) -> Iterator[SealedHost]:
    with agent_in_thread(host, context, COMMANDS, talking()):
        yield SealedHost(host)


def test_a_large_reply(talker: SealedHost) -> None:
    assert talker.ask("talk").data == {"text": TEXT}
    assert 0 < talker.most_alive <= MAX_ALIVE
    talker.host.assert_nothing_left()
    assert talker.ask("ping").outcome is Outcome.SUCCEEDED


def ask_and_wait_for_frames(talker: SealedHost) -> tuple[Asked, Joiner]:
    asked = talker.seal("talk")
    talker.send(asked)
    talker.host.wait(lambda: len(talker.alive(asked.request_id)) == MAX_ALIVE, "the first window")
    reply = parse_sealed_reply(talker.host.read(f"{REPLIES}/{asked.request_id}") or b"")
    assert reply.frames is not None
    return asked, Joiner(reply.frames)


def test_a_reader_that_stops(
    talker: SealedHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("guest_agent.transfer.PATIENCE", 0.3)
    asked, joiner = ask_and_wait_for_frames(talker)
    talker.take_frame(asked.request_id, joiner)
    talker.host.wait(lambda: talker.host.children(CLAIMS) == [], "the claim's removal")
    talker.host.assert_nothing_left()
    assert f"request {asked.request_id}: the host did not read all of the reply" in caplog.text
    assert talker.host.ask("version")["returncode"] == "0"


def test_a_reply_that_is_withdrawn(talker: SealedHost) -> None:
    asked, joiner = ask_and_wait_for_frames(talker)
    talker.take_frame(asked.request_id, joiner)
    started = time.monotonic()
    talker.host.remove(f"{REQUESTS}/{asked.request_id}")
    talker.host.wait(lambda: talker.host.children(CLAIMS) == [], "the claim's removal")
    assert time.monotonic() - started < 5
    talker.host.assert_nothing_left()


def test_the_quota_makes_a_reply_wait(talker: SealedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Client.write
    refused = threading.Event()
    left = 3

    def refuse(self: Client, path: str, value: bytes) -> None:
        nonlocal left
        if left and path.startswith(FRAMES) and path.endswith("/20"):
            left -= 1
            refused.set()
            raise StoreError(Operation.WRITE, path, "ENOSPC")
        write(self, path, value)

    monkeypatch.setattr(Client, "write", refuse)
    assert talker.ask("talk").data == {"text": TEXT}
    assert refused.is_set()


def test_the_end_in_the_middle_of_a_reply_is_told_by_the_next_run(host: Host, context: Context) -> None:
    with agent_in_thread(host, context, COMMANDS, talking()):
        talker = SealedHost(host)
        asked, _ = ask_and_wait_for_frames(talker)
    assert host.children(CLAIMS) == [asked.request_id]
    with agent_in_thread(host, context, COMMANDS, talking()):
        host.wait(lambda: host.children(CLAIMS) == [], "the answer")
        assert ended(talker, asked) == (Outcome.UNKNOWN, "agent_restarted")
        host.assert_nothing_left()


def test_killed_in_the_middle_of_a_reply(start_agent: StartAgent, host: Host) -> None:
    code = textwrap.dedent(
        """
        import sys
        from guest_agent.commands.table import SEALED, Result, command
        from guest_agent.__main__ import main

        @command("talk", tables=SEALED, parse=str)
        def talk(context, untrusted):
            return Result("", {"text": "x" * 100_000})

        sys.exit(main())
        """
    )
    killed = start_agent(code)
    talker = SealedHost(host)
    asked, _ = ask_and_wait_for_frames(talker)
    killed.process.kill()
    killed.process.wait(DEADLINE)
    host.remove(ADVERT)
    start_agent(code)
    host.wait_for_agent()
    host.wait(lambda: host.children(CLAIMS) == [], "the answer")
    assert ended(talker, asked) == (Outcome.UNKNOWN, "agent_restarted")
    host.assert_nothing_left()
