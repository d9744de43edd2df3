"""Callers that send nonsense, and guests that do what they can to harm the plugin or each other."""

from __future__ import annotations

import json
import threading
import uuid
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent_protocol.xenstore import Client
from dom0_plugins.conversation import ATTEMPTS
from dom0_plugins.exchange import MAX_REQUESTS, exchange
from dom0_plugins.xapi import PluginFailure
from tests.agent_protocol.store import DEADLINE, in_background
from tests.dom0_plugins.conftest import Guest, Plugin, at, request
from tools.simulator.xenstore.server import XenStoreServer

UNTOUCHED = cast(Client, None)
"""A store of which any use is an error of another kind: nothing was written, nothing even read."""

GOOD = {"vm": str(uuid.UUID(int=1)), "id": str(uuid.UUID(int=2)), "value": "x"}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def refused(arguments: dict[str, str]) -> None:
    with pytest.raises(PluginFailure) as caught:
        exchange(arguments, UNTOUCHED)
    assert caught.value.description[0] == "XENWARD_BAD_REQUEST"


class TestCallers:
    @given(st.text() | JSON.filter(lambda value: value != []).map(json.dumps))
    def test_requests_that_are_none(self, requests: str) -> None:
        refused({"requests": requests, "timeout": "1"})

    @given(st.sampled_from(sorted(GOOD)), JSON.filter(lambda value: not isinstance(value, str)))
    @example("vm", "")
    @example("vm", str(uuid.UUID(int=1)) + "\n")
    @example("vm", "0000000A-0000-0000-0000-00000000000A")
    @example("id", "../" + str(uuid.UUID(int=1)))
    @example("id", "00000000000000000000000000000001")
    @example("id", "\u0660" * 8 + "-0000-0000-0000-000000000001")
    @example("value", "x" * 2001)
    @example("value", "ß" * 1001)
    @example("value", "\ud800")
    @example("value", "x\udfff")
    def test_one_wrong_member_spoils_the_call(self, member: str, wrong: Any) -> None:
        another = {**GOOD, "id": str(uuid.UUID(int=3))}
        refused({"requests": json.dumps([another, {**GOOD, member: wrong}]), "timeout": "1"})

    @pytest.mark.parametrize("member", sorted(GOOD))
    def test_a_missing_member(self, member: str) -> None:
        entry = {name: value for name, value in GOOD.items() if name != member}
        refused({"requests": json.dumps([entry]), "timeout": "1"})

    @pytest.mark.parametrize("requests", [[GOOD, GOOD], [GOOD] * (MAX_REQUESTS + 1), "[" * 100_000, {"0": GOOD}])
    def test_doubled_ids_and_too_many(self, requests: Any) -> None:
        refused({"requests": requests if isinstance(requests, str) else json.dumps(requests), "timeout": "1"})

    @pytest.mark.parametrize("timeout", ["", " ", "soon", "nan", "inf", "-inf", "-1", "-0.001", "3600.1", "1e9", "1s"])
    def test_timeouts_that_are_none(self, timeout: str) -> None:
        refused({"requests": json.dumps([GOOD]), "timeout": timeout})

    def test_missing_arguments(self) -> None:
        refused({})
        refused({"requests": json.dumps([GOOD])})
        refused({"timeout": "1"})

    def test_a_refusal_does_not_repeat_the_request(self) -> None:
        with pytest.raises(PluginFailure) as caught:
            exchange({"requests": json.dumps([{**GOOD, "vm": "x", "value": "hunter2"}]), "timeout": "1"}, UNTOUCHED)
        assert "hunter2" not in repr(caught.value) + str(caught.value.description)


class TestGuests:
    @pytest.mark.parametrize(
        "junk", [b"", b"\0", bytes(range(256)) * 7, b"\xff\xfe" * 1000, "ß".encode()[:1], b"x" * 2000, b"]]><!--&\r\n"]
    )
    def test_junk_as_a_reply_is_handed_on_as_text(self, plugin: Plugin, guest: Guest, junk: bytes) -> None:
        entry = request(guest)
        plugin.store.before_transaction = at(2, lambda: guest.reply(entry["id"], junk))
        assert plugin.call(entry)[0]["value"] == junk.decode("utf-8", "replace")
        assert guest.leftovers() == []

    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=300))
    def test_any_reply_makes_a_result_of_plain_ascii(self, junk: bytes) -> None:
        class Store:
            """Answers at once."""

            def __getattr__(self, name: str) -> Any:
                return lambda *arguments: None

            def directory(self, path: str) -> list[str]:
                return ["7"]

            def read(self, path: str) -> bytes:
                return b"/vm/" + GOOD["vm"].encode() if path.endswith("/vm") else junk

            def transaction(self) -> Any:
                return self

            def commit(self) -> bool:
                return True

            def exists(self, path: str) -> bool:
                return True

        result = exchange({"requests": json.dumps([GOOD]), "timeout": "0"}, cast(Client, Store()))
        assert result.isascii() and result.isprintable()
        assert json.loads(result)[0]["value"] == junk.decode("utf-8", "replace")

    def test_nodes_below_the_reply_go_with_it(self, plugin: Plugin, guest: Guest) -> None:
        entry = request(guest)
        plugin.store.before_transaction = at(2, lambda: guest.store.write(f"data/guest/{entry['id']}/a/b", b""))
        assert plugin.call(entry)[0] == {"id": entry["id"], "delivery": "answered", "value": ""}
        assert guest.leftovers() == []

    def test_conflicts_without_end_cost_only_the_guest_that_makes_them(
        self, plugin: Plugin, guest: Guest, other: Guest
    ) -> None:
        """Before each commit the hostile guest changes what the plugin's transaction looked at."""
        hostile, honest = request(guest), request(other)
        turns: list[int] = []

        def interfere() -> None:
            turns.append(len(turns))
            guest.store.write(f"data/host/{len(turns)}", b"")
            guest.store.remove(f"data/host/{len(turns)}")

        plugin.store.before_commit = interfere
        call = plugin.start(hostile, honest)
        other.take(honest["id"])
        other.reply(honest["id"], b"fine")
        results = call.result(DEADLINE)
        assert results[0] == {"id": hostile["id"], "delivery": "rejected", "errno": "EAGAIN"}
        assert results[1]["delivery"] == "answered"
        assert len(turns) <= ATTEMPTS + 1
        assert guest.leftovers() == []

    def test_conflicts_without_end_at_the_withdrawal(self, plugin: Plugin, guest: Guest) -> None:
        entry = request(guest)
        guest.promise()
        commits = 0

        def interfere() -> None:
            nonlocal commits
            commits += 1
            if commits > 1:
                guest.store.write(f"data/host/{entry['id']}", b"changed %d" % commits)

        plugin.store.before_commit = interfere
        # Nothing is promised of such a guest but that its request does not stay.
        assert plugin.call(entry)[0]["delivery"] == "taken"
        assert guest.leftovers() == []

    def test_a_real_storm_on_data_host(self, server: XenStoreServer, guest: Guest, other: Guest) -> None:
        calm = threading.Event()

        def storm() -> int:
            rounds = 0
            while not calm.is_set():
                guest.store.write(f"data/host/{rounds % 5}", b"%d" % rounds)
                rounds += 1
            return rounds

        storming = in_background(storm)
        try:
            for _ in range(5):
                hostile, honest = request(guest), request(other)
                plugin = Plugin(server)
                call = plugin.start(hostile, honest)
                other.take(honest["id"])
                other.reply(honest["id"], b"fine")
                other.wait_until_gone(f"data/guest/{honest['id']}")
                guest.store.write(f"data/guest/{hostile['id']}", b"enough")
                results = call.result(DEADLINE)
                assert results[0]["delivery"] in ("rejected", "answered")
                assert results[1]["delivery"] == "answered"
                plugin.store.close()
        finally:
            calm.set()
        assert storming.result(DEADLINE) > 0
        assert other.leftovers() == []

    def test_a_reply_that_vanishes_when_it_is_looked_at(self, plugin: Plugin, guest: Guest) -> None:
        entry = request(guest)
        reply = f"data/guest/{entry['id']}"
        plugin.store.before_transaction = at(2, lambda: guest.store.write(reply, b"now you see me"))
        plugin.store.after_abort = at(1, lambda: guest.store.remove(reply))
        assert plugin.call(entry)[0] == {"id": entry["id"], "delivery": "unanswered"}
        assert guest.leftovers() == []

    def test_a_reply_that_vanishes_every_time(self, plugin: Plugin, guest: Guest) -> None:
        entry = request(guest)
        reply = f"data/guest/{entry['id']}"
        plugin.store.before_transaction = lambda: guest.store.write(reply, b"now you see me")
        plugin.store.after_abort = lambda: guest.store.remove(reply)
        assert plugin.call(entry)[0] == {"id": entry["id"], "delivery": "taken"}
        assert guest.leftovers() == []

    def test_events_without_end_do_not_hold_up_the_end(self, plugin: Plugin, guest: Guest) -> None:
        """A reply that comes and goes in one transaction is an event and never a node."""
        entry = request(guest)

        def flicker() -> None:
            # The answer to the second says that the event of the first is on its way.
            for _ in range(2):
                transaction = guest.store.transaction()
                transaction.write(f"data/guest/{entry['id']}", b"")
                transaction.remove(f"data/guest/{entry['id']}")
                assert transaction.commit()

        plugin.store.before_wait = flicker
        assert plugin.call(entry, timeout=0.1)[0]["delivery"] == "unanswered"
        assert guest.leftovers() == []

    def test_a_guest_cannot_pass_for_another(self, dom0: Client, plugin: Plugin, guest: Guest, other: Guest) -> None:
        guest.store.write("data/vm", f"/vm/{other.vm}".encode())
        entry = request(other)
        call = plugin.start(entry)
        other.take(entry["id"])
        guest.store.write(f"data/guest/{entry['id']}", b"forged")
        other.reply(entry["id"], b"genuine")
        assert call.result(DEADLINE)[0]["value"] == "genuine"
