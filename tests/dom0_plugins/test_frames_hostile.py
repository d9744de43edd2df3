"""Callers whose slices are none, and guests that announce, write and rewrite what they like."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.wire import Operation, Packet
from agent_protocol.xenstore import Client
from dom0_plugins import frames
from dom0_plugins.exchange import exchange
from dom0_plugins.frames import FRAME_SIZE, MAX_REPLY_SIZE, MAX_SIZE, announced_by, is_acceptable, share_of
from dom0_plugins.xapi import PluginFailure
from tests.agent_protocol.store import DEADLINE, in_background
from tests.dom0_plugins.conftest import Guest, Plugin, at, read_or_none, request, slices
from tests.dom0_plugins.test_frames import announcement, text_of
from tools.simulator.xenstore.server import XenStoreServer

UNTOUCHED = cast(Client, None)
FULL = "x" * FRAME_SIZE
GOOD = {"first": 0, "values": [FULL, "x"], "last": True}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def refused(part: Any) -> None:
    entry = {"vm": str(uuid.UUID(int=1)), "id": str(uuid.UUID(int=2)), "value": "x", "frames": part}
    with pytest.raises(PluginFailure) as caught:
        exchange({"requests": json.dumps([entry]), "timeout": "1"}, UNTOUCHED)
    assert caught.value.description[0] == "XENWARD_BAD_REQUEST"


class TestCallers:
    @given(JSON)
    def test_slices_that_are_none(self, part: Any) -> None:
        refused(part)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"first": -1},
            {"first": True},
            {"first": 0.0},
            {"first": "0"},
            {"first": None},
            {"last": 1},
            {"last": None},
            {"values": []},
            {"values": {}},
            {"values": FULL},
            {"values": [""]},
            {"values": [1]},
            {"values": [FULL, None]},
            {"values": ["x", FULL]},
            {"values": [FULL + "x"]},
            {"values": ["\x80"]},
            {"values": ["\ud800"]},
            {"values": [FULL, "x"], "last": False},
            {"first": MAX_SIZE // FRAME_SIZE, "values": [FULL]},
            {"first": 10**100},
        ],
    )
    def test_one_wrong_member(self, wrong: dict[str, Any]) -> None:
        refused({**GOOD, **wrong})

    @pytest.mark.parametrize("member", sorted(GOOD))
    def test_a_missing_member(self, member: str) -> None:
        refused({name: value for name, value in GOOD.items() if name != member})

    def test_the_largest_number_is_accepted(self) -> None:
        first, rest = divmod(MAX_SIZE, FRAME_SIZE)
        part = frames.Slice.parse({"first": first, "values": ["x" * rest], "last": True})
        assert list(part.window()) == [first]


class TestAnnouncements:
    @given(JSON, st.integers(1, MAX_REPLY_SIZE))
    def test_of_any_shape(self, untrusted: Any, limit: int) -> None:
        assert not is_acceptable(untrusted, limit)

    @given(st.binary(max_size=100) | JSON.map(lambda value: json.dumps({"frames": value, "x": value}).encode()))
    def test_in_any_reply(self, untrusted_reply: bytes) -> None:
        assert not is_acceptable(announced_by(untrusted_reply), MAX_REPLY_SIZE)

    @pytest.mark.parametrize(
        "lie",
        [
            {"count": 0},
            {"count": 1},
            {"count": 3},
            {"count": True},
            {"count": 2.0},
            {"size": 0},
            {"size": -1},
            {"size": MAX_REPLY_SIZE + 1, "count": 138},
            {"size": 10**30, "count": 10**30 // FRAME_SIZE + 1},
            {"sha256": ""},
            {"sha256": "A" * 64},
            {"sha256": "0" * 64 + "\n"},
            {"sha256": None},
        ],
    )
    def test_that_are_refused(self, plugin: Plugin, guest: Guest, lie: dict[str, Any]) -> None:
        entry = request(guest)
        reads = count_reads(plugin.store, "data/xenward/frames")
        reply = json.dumps({"frames": {**announcement(text_of(2000)), **lie}}).encode()
        guest.store.write(f"data/xenward/frames/{entry['id']}/0", b"x" * FRAME_SIZE)
        plugin.store.before_transaction = at(2, lambda: guest.reply(entry["id"], reply))
        result = plugin.call(entry)[0]
        assert (result["delivery"], result["value"], result["frames"]) == ("answered", reply.decode(), "refused")
        assert "box" not in result and reads == [] and guest.leftovers() == []

    def test_all_replies_of_a_call_share_what_it_may_collect(self, plugin: Plugin, guest: Guest, other: Guest) -> None:
        assert share_of(1) == share_of(64) == MAX_REPLY_SIZE
        assert all(share_of(count) * count <= frames.MAX_REPLIES_SIZE for count in (65, 200, 1000))
        absent = [request(str(uuid.uuid4())) for _ in range(300)]
        large, small = request(guest), request(other)
        call = plugin.start(large, small, *absent, timeout=1.5)
        guest.take(large["id"])
        guest.reply_in_frames(large["id"], text_of(share_of(302) + 1), alive=100)
        other.take(small["id"])
        other.reply_in_frames(small["id"], text_of(share_of(302)))
        results = call.result(DEADLINE)
        assert (results[0]["frames"], results[1]["box"]) == ("refused", text_of(share_of(302)))


def count_reads(store: Client, within: str) -> list[str]:
    """From now on, the paths that a client reads below a directory."""
    ask, reads = store._ask, []

    def counting(operation: Operation, path: str, payload: bytes, transaction: int = 0) -> bytes:
        if operation == Operation.READ and within in path and not transaction:
            reads.append(path)
        return ask(operation, path, payload, transaction)

    store._ask = counting  # type: ignore[method-assign]
    return reads


class TestGuests:
    @pytest.mark.parametrize("size", [0, 1, FRAME_SIZE - 1, FRAME_SIZE + 1, 2015])
    @pytest.mark.parametrize("number", [0, 1])
    def test_a_frame_of_another_length(self, plugin: Plugin, guest: Guest, size: int, number: int) -> None:
        entry = request(guest)
        directory = f"data/xenward/frames/{entry['id']}"

        def act() -> None:
            for each in range(3):
                guest.store.write(f"{directory}/{each}", b"x" * (size if each == number else FRAME_SIZE))
            guest.reply(entry["id"], json.dumps({"frames": announcement("x" * 3 * FRAME_SIZE)}).encode())

        plugin.store.before_transaction = at(2, act)
        result = plugin.call(entry)[0]
        assert (result["frames"], "box" in result) == ("corrupt", False)
        assert guest.leftovers() == []

    @pytest.mark.parametrize("content", [b"y", b"\xff"])
    def test_another_content_than_announced(self, plugin: Plugin, guest: Guest, content: bytes) -> None:
        entry = request(guest)

        def act() -> None:
            guest.store.write(f"data/xenward/frames/{entry['id']}/0", content)
            guest.reply(entry["id"], json.dumps({"frames": announcement("x")}).encode())

        plugin.store.before_transaction = at(2, act)
        assert plugin.call(entry)[0]["frames"] == "corrupt"
        assert guest.leftovers() == []

    def test_frames_that_never_come(
        self, monkeypatch: pytest.MonkeyPatch, plugin: Plugin, guest: Guest, other: Guest
    ) -> None:
        monkeypatch.setattr(frames, "PATIENCE", 0.2)
        hostile, honest = request(guest), request(other)
        call = plugin.start(hostile, honest)
        guest.take(hostile["id"])
        guest.reply(hostile["id"], json.dumps({"frames": announcement("x" * 4000)}).encode())
        guest.wait_until_gone(f"data/guest/{hostile['id']}")
        # Given up, while the other has all the time in the world.
        other.take(honest["id"])
        other.reply_in_frames(honest["id"], text_of(30_000))
        results = call.result(DEADLINE)
        assert [result.get("frames") for result in results] == ["incomplete", None]
        assert results[1]["box"] == text_of(30_000)
        assert guest.leftovers() == other.leftovers() == []

    def test_each_frame_renews_the_patience(
        self, monkeypatch: pytest.MonkeyPatch, plugin: Plugin, guest: Guest
    ) -> None:
        monkeypatch.setattr(frames, "PATIENCE", 1.0)
        entry, text = request(guest), text_of(FRAME_SIZE * 3)
        call = plugin.start(entry)
        guest.take(entry["id"])
        guest.reply(entry["id"], json.dumps({"frames": announcement(text)}).encode())
        for number in range(3):
            # Slow on purpose: longer than the patience in all, shorter each time.
            time.sleep(0.5)
            piece = text[number * FRAME_SIZE :][:FRAME_SIZE]
            guest.store.write(f"data/xenward/frames/{entry['id']}/{number}", piece.encode())
        assert call.result(DEADLINE)[0]["box"] == text

    def test_the_reply_is_taken_back_while_its_frames_are_read(self, plugin: Plugin, guest: Guest) -> None:
        entry = request(guest)
        call = plugin.start(entry, timeout=0.3)
        guest.take(entry["id"])
        guest.reply(entry["id"], json.dumps({"frames": announcement("x" * 2000)}).encode())
        guest.store.write(f"data/xenward/frames/{entry['id']}/0", b"x" * FRAME_SIZE)
        guest.wait_until_gone(f"data/xenward/frames/{entry['id']}/0")
        guest.store.remove(f"data/guest/{entry['id']}")
        result = call.result(DEADLINE)[0]
        assert (result["delivery"], result["frames"]) == ("answered", "incomplete")
        assert guest.leftovers() == []

    def test_endless_rewriting_is_read_once(self, plugin: Plugin, guest: Guest) -> None:
        """Reply and first frame are rewritten as fast as the guest can; what counts is what was there first."""
        entry = request(guest)
        reads = count_reads(plugin.store, "/data/")
        call = plugin.start(entry, timeout=0.5)
        guest.take(entry["id"])
        reply = json.dumps({"frames": announcement("x" * 4000)}).encode()
        before = len(reads)
        guest.reply(entry["id"], reply)
        # What was there first is what the plugin read first.
        deadline = time.monotonic() + DEADLINE
        while not any(path.endswith(f"data/guest/{entry['id']}") for path in reads[before:]):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        written = 0
        while not call.done():
            guest.store.write(f"data/xenward/frames/{entry['id']}/0", b"y" * FRAME_SIZE)
            guest.store.write(f"data/guest/{entry['id']}", b"another %d" % written)
            written += 1
        result = call.result(DEADLINE)[0]
        assert (result["value"], result["frames"]) == (reply.decode(), "incomplete")
        assert [path.rpartition("/")[2] for path in reads].count("0") <= 2
        assert sum(path.endswith(f"data/guest/{entry['id']}") for path in reads) <= 3

    def test_a_storm_among_the_frames_stops_nobody(self, server: XenStoreServer, guest: Guest, other: Guest) -> None:
        plugin = Plugin(server)
        hostile, honest = request(guest), request(other)
        (first,), (second,) = slices(hostile, text_of(90_000), 99), slices(honest, text_of(90_000), 99)
        call = plugin.start(first, second, timeout=2)
        guest.take(hostile["id"])

        def serve() -> None:
            other.take_frames(honest["id"], range(48))
            other.reply_in_frames(honest["id"], text_of(90_000))

        serving = in_background(serve)
        rounds = 0
        while not call.done():
            rounds += 1
            for number in range(0, 60, 7):
                guest.store.write(f"data/xenward/frames/{hostile['id']}/{number}", b"storm")
            guest.store.remove(f"data/xenward/frames/{hostile['id']}")
        serving.result(DEADLINE)
        results = call.result(DEADLINE)
        assert results[0]["delivery"] in ("rejected", "withdrawn", "taken")
        assert results[1]["box"] == text_of(90_000)
        assert rounds and other.leftovers() == []
        plugin.store.close()

    def test_nothing_else_is_removed(self, server: XenStoreServer, plugin: Plugin, guest: Guest) -> None:
        """Whatever ids and numbers a guest writes, only the request's own nodes go."""
        entry = request(guest)
        kept = [
            f"data/host/{uuid.uuid4()}",
            f"data/guest/{uuid.uuid4()}",
            f"data/xenward/frames/{uuid.uuid4()}/0",
            "data/guest/x",
        ]
        for path in kept:
            guest.store.write(path, b"mine")
        lies = {"id": str(uuid.uuid4()), "path": "../..", "first": -1, "directory": "/local/domain/0"}
        reply = json.dumps({**lies, "frames": {**announcement("x"), **lies}}).encode()

        def act() -> None:
            guest.store.write(f"data/xenward/frames/{entry['id']}/0", b"x")
            guest.store.write(f"data/xenward/frames/{entry['id']}/../1".replace("..", "up"), b"x")
            guest.reply(entry["id"], reply)

        plugin.store.before_transaction = at(2, act)
        assert plugin.call(entry)[0]["box"] == "x"
        assert all(read_or_none(guest.store, path) == b"mine" for path in kept)
        assert read_or_none(guest.store, f"data/xenward/frames/{entry['id']}") is None


def test_the_packet_of_a_full_frame_fits() -> None:
    """A transaction's writes are packets like any other."""
    path = f"/local/domain/65535/data/xenward/frames/{uuid.uuid4()}/{MAX_SIZE // FRAME_SIZE}"
    assert len(Packet(Operation.WRITE, 0, 0, path.encode() + b"\0" + FULL.encode()).payload) < 4096
