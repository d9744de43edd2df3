"""Requests and replies that are larger than one node: who writes which frames when, and what is left behind."""

from __future__ import annotations

import hashlib
import json
import random
import string
import threading

import pytest

from agent_protocol.wire import Operation
from agent_protocol.xenstore import Client, StoreError
from dom0_plugins import frames
from dom0_plugins.frames import FRAME_SIZE, MAX_ALIVE
from tests.agent_protocol.store import DEADLINE, in_background
from tests.dom0_plugins.conftest import Guest, Plugin, at, read_or_none, request, slices
from tools.simulator.xenstore.server import XenStoreServer


def text_of(characters: int) -> str:
    """Text in which no two frames are alike."""
    return "".join(random.Random(characters).choices(string.ascii_letters, k=characters))


def alive(dom0: Client, guest: Guest, identity: str) -> list[int]:
    """The frames that stand in the store."""
    try:
        return sorted(int(name) for name in dom0.directory(f"{guest.domain}/data/xenward/frames/{identity}"))
    except StoreError as error:
        assert error.code == "ENOENT"
        return []


class TestRequests:
    @pytest.mark.parametrize("characters", [1, FRAME_SIZE, FRAME_SIZE + 1, FRAME_SIZE * MAX_ALIVE, FRAME_SIZE * 40 + 7])
    def test_one_call(self, plugin: Plugin, guest: Guest, characters: int) -> None:
        text = text_of(characters)
        entry = request(guest)
        (only,) = slices(entry, text, 1000)
        call = plugin.start(only)
        assert guest.take(entry["id"]) == b"a request"
        assert "".join(guest.take_frames(entry["id"], range(-(-characters // FRAME_SIZE)))) == text
        guest.reply(entry["id"], b"received")
        assert call.result(DEADLINE) == [{"id": entry["id"], "delivery": "answered", "value": "received"}]
        assert guest.leftovers() == []

    @pytest.mark.parametrize("size", [1, 15, 16, 17, 50])
    def test_several_calls(self, plugin: Plugin, guest: Guest, dom0: Client, size: int) -> None:
        text = text_of(FRAME_SIZE * 60 + 1)
        entry = request(guest)
        read = in_background(lambda: "".join(guest.take_frames(entry["id"], range(61))))
        *first, last = slices(entry, text, size)
        for part in first:
            assert plugin.call(part, timeout=DEADLINE) == [{"id": entry["id"], "delivery": "continue"}]
            assert len(alive(dom0, guest, entry["id"])) <= MAX_ALIVE
            assert read_or_none(dom0, f"{guest.domain}/data/host/{entry['id']}") == b"a request"
        call = plugin.start(last)
        assert read.result(DEADLINE) == text
        guest.reply(entry["id"], b"received")
        assert call.result(DEADLINE)[0]["value"] == "received"
        assert guest.leftovers() == []

    def test_never_more_alive_than_agreed(self, plugin: Plugin, guest: Guest, dom0: Client) -> None:
        entry = request(guest)
        (only,) = slices(entry, text_of(FRAME_SIZE * 40), 1000)
        call = plugin.start(only)
        guest.take(entry["id"])
        for number in range(40):
            standing = alive(dom0, guest, entry["id"]) or [number]
            assert standing == list(range(number, standing[-1] + 1)) and len(standing) <= MAX_ALIVE
            guest.take_frames(entry["id"], [number])
        guest.reply(entry["id"], b"received")
        assert call.result(DEADLINE)[0]["delivery"] == "answered"

    def test_a_slice_waits_for_room(self, plugin: Plugin, guest: Guest, dom0: Client) -> None:
        entry = request(guest)
        first, second = slices(entry, text_of(FRAME_SIZE * 20), 16)
        assert plugin.call(first, timeout=DEADLINE)[0]["delivery"] == "continue"
        assert alive(dom0, guest, entry["id"]) == list(range(16))
        waiting = threading.Event()
        plugin.store.before_wait = waiting.set
        call = plugin.start(second)
        assert waiting.wait(DEADLINE)
        assert alive(dom0, guest, entry["id"]) == list(range(16))
        guest.take_frames(entry["id"], range(20))
        guest.reply(entry["id"], b"received")
        assert call.result(DEADLINE)[0]["delivery"] == "answered"

    def test_two_guests_at_their_own_pace(self, plugin: Plugin, guest: Guest, other: Guest) -> None:
        """One never reads: the other is served."""
        slow, quick = request(guest), request(other)
        (first,), (second,) = slices(slow, text_of(FRAME_SIZE * 40), 100), slices(quick, text_of(FRAME_SIZE * 60), 100)
        call = plugin.start(first, second, timeout=0.7)
        other.take_frames(quick["id"], range(60))
        other.reply(quick["id"], b"received")
        assert [result["delivery"] for result in call.result(DEADLINE)] == ["withdrawn", "answered"]
        assert guest.leftovers() == other.leftovers() == []


class TestEarlyEnds:
    @pytest.mark.parametrize("number", [0, 1])
    def test_the_agent_answers_before_it_has_everything(self, plugin: Plugin, guest: Guest, number: int) -> None:
        entry = request(guest)
        parts = slices(entry, text_of(FRAME_SIZE * 70), 35)
        if number:
            reading = in_background(lambda: guest.take_frames(entry["id"], range(32)))
            assert plugin.call(parts[0], timeout=DEADLINE)[0]["delivery"] == "continue"
            reading.result(DEADLINE)
        call = plugin.start(parts[number])
        guest.take(entry["id"])
        guest.reply(entry["id"], b"frames_corrupt")
        assert call.result(DEADLINE)[0] == {"id": entry["id"], "delivery": "answered", "value": "frames_corrupt"}
        assert guest.leftovers() == []

    def test_the_answer_stands_already_when_the_next_slice_comes(self, plugin: Plugin, guest: Guest) -> None:
        entry = request(guest)
        first, second = slices(entry, text_of(FRAME_SIZE * 20), 16)
        plugin.call(first, timeout=DEADLINE)
        guest.reply(entry["id"], b"too late")
        assert plugin.call(second, timeout=DEADLINE)[0]["value"] == "too late"
        assert guest.leftovers() == []

    @pytest.mark.parametrize("promising", [True, False])
    @pytest.mark.parametrize("claimed", [True, False])
    def test_time_is_up_before_all_was_written(
        self, plugin: Plugin, guest: Guest, promising: bool, claimed: bool
    ) -> None:
        """Nobody can have carried out what nobody could read."""
        entry = request(guest)
        if promising:
            guest.promise()
        if claimed:
            guest.claim(entry["id"])
        (only,) = slices(entry, text_of(FRAME_SIZE * 17), 100)
        assert plugin.call(only, timeout=0.1) == [{"id": entry["id"], "delivery": "withdrawn"}]
        assert guest.leftovers() == []

    @pytest.mark.parametrize("claimed", [True, False])
    def test_time_is_up_after_all_was_written(self, plugin: Plugin, guest: Guest, claimed: bool) -> None:
        entry = request(guest)
        guest.promise()
        if claimed:
            guest.claim(entry["id"])
        (only,) = slices(entry, text_of(FRAME_SIZE * 16), 100)
        assert plugin.call(only, timeout=0.1)[0]["delivery"] == ("taken" if claimed else "withdrawn")
        assert guest.leftovers() == []

    def test_request_and_frames_go_at_the_same_moment(self, plugin: Plugin, guest: Guest) -> None:
        entry = request(guest)
        seen: list[tuple[bool, bool]] = []

        def look() -> None:
            host = read_or_none(guest.store, f"data/host/{entry['id']}")
            seen.append((host is None, read_or_none(guest.store, f"data/xenward/frames/{entry['id']}") is None))

        plugin.store.before_commit = look
        (only,) = slices(entry, text_of(FRAME_SIZE * 3), 100)
        plugin.call(only)
        look()
        assert seen == [(True, True), (False, False), (True, True)]

    def test_the_guest_restarts_between_two_slices(
        self, server: XenStoreServer, dom0: Client, plugin: Plugin, guest: Guest
    ) -> None:
        entry = request(guest)
        first, second = slices(entry, text_of(FRAME_SIZE * 20), 16)
        plugin.call(first, timeout=DEADLINE)
        guest.end()
        assert plugin.call(second, timeout=DEADLINE) == [{"id": entry["id"], "delivery": "gone"}]
        successor = Guest(server, dom0, 9)
        dom0.write(f"{successor.domain}/vm", f"/vm/{guest.vm}".encode())
        assert plugin.call(second, timeout=DEADLINE) == [{"id": entry["id"], "delivery": "gone"}]
        assert successor.leftovers() == []
        successor.store.close()

    def test_the_guest_restarts_during_a_slice(self, plugin: Plugin, guest: Guest, dom0: Client) -> None:
        entry = request(guest)
        (only,) = slices(entry, text_of(FRAME_SIZE * 60), 100)
        call = plugin.start(only)
        guest.take_frames(entry["id"], range(16))
        guest.wait_for(f"data/xenward/frames/{entry['id']}/16")
        guest.end()
        assert call.result(DEADLINE)[0]["delivery"] == "gone"
        assert str(guest.domid) not in dom0.directory("/local/domain")

    def test_no_frame_reaches_a_domain_that_changed_hands(self, plugin: Plugin, guest: Guest, dom0: Client) -> None:
        entry = request(guest)
        first, second = slices(entry, text_of(FRAME_SIZE * 20), 16)
        plugin.call(first, timeout=DEADLINE)
        guest.take_frames(entry["id"], range(16))
        plugin.store.before_transaction = at(1, lambda: dom0.write(f"{guest.domain}/vm", b"/vm/another"))
        assert plugin.call(second, timeout=DEADLINE)[0]["delivery"] == "gone"
        assert alive(dom0, guest, entry["id"]) == []

    def test_the_request_is_gone_and_claimed(self, plugin: Plugin, guest: Guest) -> None:
        entry = request(guest)
        first, second = slices(entry, text_of(FRAME_SIZE * 20), 16)
        plugin.call(first, timeout=DEADLINE)
        guest.claim(entry["id"])
        guest.take_frames(entry["id"], range(16))
        guest.store.remove(f"data/host/{entry['id']}")
        assert plugin.call(second, timeout=DEADLINE)[0]["delivery"] == "taken"
        assert guest.leftovers() == [f"data/xenward/frames/{entry['id']}"]

    @pytest.mark.parametrize("refused_at", [1, 16])
    def test_the_store_takes_no_more_frames(self, plugin: Plugin, guest: Guest, refused_at: int) -> None:
        def full(path: str) -> None:
            if path.endswith(f"/{refused_at}"):
                raise StoreError(Operation.WRITE, path, "EQUOTA")

        plugin.store.before_write = full
        entry = request(guest)
        (only,) = slices(entry, text_of(FRAME_SIZE * 20), 100)
        call = plugin.start(only)
        if refused_at == 16:
            guest.take_frames(entry["id"], range(16))
        assert call.result(DEADLINE) == [{"id": entry["id"], "delivery": "rejected", "errno": "EQUOTA"}]
        assert guest.leftovers() == []

    @pytest.mark.parametrize("resumed", [False, True])
    def test_the_store_stops(self, server: XenStoreServer, plugin: Plugin, guest: Guest, resumed: bool) -> None:
        entry = request(guest)
        first, second = slices(entry, text_of(FRAME_SIZE * 40), 20)
        if resumed:
            reading = in_background(lambda: guest.take_frames(entry["id"], range(16)))
            plugin.call(first, timeout=DEADLINE)
            reading.result(DEADLINE)
        plugin.store.before_wait = at(3, server.stop)
        assert plugin.call(second if resumed else first, timeout=DEADLINE)[0]["delivery"] == "lost"


class TestReplies:
    @pytest.mark.parametrize("characters", [1, FRAME_SIZE, FRAME_SIZE + 1, FRAME_SIZE * 50, frames.MAX_REPLY_SIZE])
    def test_a_reply_in_frames(self, plugin: Plugin, guest: Guest, characters: int) -> None:
        text = text_of(characters)
        entry = request(guest)
        call = plugin.start(entry)
        guest.take(entry["id"])
        reply = guest.reply_in_frames(entry["id"], text)
        assert call.result(DEADLINE) == [
            {"id": entry["id"], "delivery": "answered", "value": reply.decode(), "box": text}
        ]
        assert guest.leftovers() == []

    def test_frames_both_ways(self, plugin: Plugin, guest: Guest) -> None:
        text = text_of(FRAME_SIZE * 33)
        entry = request(guest)
        (only,) = slices(entry, text, 100)
        call = plugin.start(only)
        received = "".join(guest.take_frames(entry["id"], range(33)))
        guest.reply_in_frames(entry["id"], received[::-1], alive=3)
        assert call.result(DEADLINE)[0]["box"] == text[::-1]
        assert guest.leftovers() == []

    def test_everything_is_there_when_the_time_is_up(self, plugin: Plugin, guest: Guest) -> None:
        entry = request(guest)
        plugin.store.before_transaction = at(2, lambda: guest.reply_in_frames(entry["id"], text_of(5000)))
        assert plugin.call(entry)[0]["box"] == text_of(5000)
        assert guest.leftovers() == []

    def test_the_frames_come_before_the_reply_says_so(self, plugin: Plugin, guest: Guest) -> None:
        entry = request(guest)
        call = plugin.start(entry)
        guest.take(entry["id"])
        guest.store.write(f"data/xenward/frames/{entry['id']}/0", b"x")
        digest = hashlib.sha256(b"x").hexdigest()
        guest.reply(entry["id"], json.dumps({"frames": {"count": 1, "size": 1, "sha256": digest}}).encode())
        assert call.result(DEADLINE)[0]["box"] == "x"

    def test_the_store_stops_in_the_middle(self, server: XenStoreServer, plugin: Plugin, guest: Guest) -> None:
        entry = request(guest)
        call = plugin.start(entry)
        guest.take(entry["id"])
        guest.store.write(f"data/xenward/frames/{entry['id']}/0", b"x" * FRAME_SIZE)
        guest.reply(entry["id"], json.dumps({"frames": announcement("x" * 2000)}).encode())
        guest.wait_until_gone(f"data/xenward/frames/{entry['id']}/0")
        server.stop()
        result = call.result(DEADLINE)[0]
        assert (result["delivery"], result["frames"], "box" in result) == ("answered", "incomplete", False)

    def test_the_guest_goes_in_the_middle(self, plugin: Plugin, guest: Guest) -> None:
        entry = request(guest)
        call = plugin.start(entry)
        guest.take(entry["id"])
        guest.reply(entry["id"], json.dumps({"frames": announcement("x" * 2000)}).encode())
        guest.store.write(f"data/xenward/frames/{entry['id']}/0", b"x" * FRAME_SIZE)
        guest.wait_until_gone(f"data/xenward/frames/{entry['id']}/0")
        guest.end()
        assert call.result(DEADLINE)[0]["frames"] == "incomplete"


def announcement(text: str) -> dict[str, object]:
    """What an honest agent announces."""
    return {
        "count": -(-len(text) // FRAME_SIZE),
        "size": len(text),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
