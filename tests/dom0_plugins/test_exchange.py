"""What becomes of requests, in every order in which plugin, agent and toolstack can act."""

from __future__ import annotations

import threading
import uuid

import pytest

from agent_protocol import frames as agent_frames
from agent_protocol import messages
from agent_protocol.wire import Operation
from agent_protocol.xenstore import Client, StoreError
from dom0_plugins import conversation, exchange, frames
from tests.agent_protocol.store import DEADLINE
from tests.dom0_plugins.conftest import Guest, Plugin, at, read_or_none, request
from tools.simulator.xenstore.server import XenStoreServer


def test_both_packages_mean_the_same_nodes() -> None:
    for name in ("REQUESTS", "REPLIES", "CLAIMS", "ADVERT"):
        assert getattr(conversation, name) == getattr(messages, name)
    assert exchange.MAX_VALUE == messages.MAX_VALUE
    assert conversation.FRAMES == agent_frames.FRAMES
    for name in ("FRAME_SIZE", "MAX_SIZE", "MAX_ALIVE"):
        assert getattr(frames, name) == getattr(agent_frames, name)


class TestAnswered:
    def test_the_agent_replies(self, plugin: Plugin, guest: Guest) -> None:
        entry = request(guest, 'ping, "ß"\n')
        call = plugin.start(entry)
        assert guest.take(entry["id"]).decode() == entry["value"]
        guest.reply(entry["id"], '{"returncode": "0", "message": "ß"}'.encode())
        expected = {"id": entry["id"], "delivery": "answered", "value": '{"returncode": "0", "message": "ß"}'}
        assert call.result(DEADLINE) == [expected]
        assert guest.leftovers() == []

    def test_an_agent_that_leaves_its_request_behind(self, plugin: Plugin, guest: Guest) -> None:
        entry = request(guest)
        call = plugin.start(entry)
        guest.take(entry["id"])
        guest.store.write(f"data/guest/{entry['id']}", b"done")
        assert call.result(DEADLINE)[0]["value"] == "done"
        assert guest.leftovers() == []

    def test_two_guests_in_one_call(self, plugin: Plugin, guest: Guest, other: Guest) -> None:
        entries = [request(guest, "first"), request(other, "second"), request(guest, "third")]
        call = plugin.start(*entries)
        # Answered in the reverse order; the results keep the order of the requests.
        for entry, owner in zip(reversed(entries), (guest, other, guest)):
            assert owner.take(entry["id"]).decode() == entry["value"]
            owner.reply(entry["id"], entry["value"].upper().encode())
        assert [result["value"] for result in call.result(DEADLINE)] == ["FIRST", "SECOND", "THIRD"]
        assert guest.leftovers() == other.leftovers() == []

    def test_a_reply_that_comes_with_the_end_of_the_wait(self, plugin: Plugin, guest: Guest) -> None:
        entry = request(guest)
        plugin.store.before_transaction = at(2, lambda: guest.reply(entry["id"], b"just in time"))
        assert plugin.call(entry)[0] == {"id": entry["id"], "delivery": "answered", "value": "just in time"}
        assert guest.leftovers() == []

    def test_a_reply_that_comes_while_the_request_is_withdrawn(self, plugin: Plugin, guest: Guest) -> None:
        entry = request(guest)
        plugin.store.before_commit = at(2, lambda: guest.reply(entry["id"], b"just in time"))
        assert plugin.call(entry)[0]["value"] == "just in time"
        assert guest.leftovers() == []

    def test_nothing_to_do(self, plugin: Plugin) -> None:
        assert plugin.call(timeout=DEADLINE) == []


class TestAbsent:
    def test_at_once_without_a_timeout(self, plugin: Plugin, guest: Guest) -> None:
        entry = request(str(uuid.uuid4()))
        assert plugin.call(entry, timeout=0) == [{"id": entry["id"], "delivery": "absent"}]
        assert guest.leftovers() == []

    def test_after_the_timeout(self, plugin: Plugin, guest: Guest) -> None:
        entry = request(str(uuid.uuid4()))
        assert plugin.call(entry, timeout=0.1) == [{"id": entry["id"], "delivery": "absent"}]

    def test_the_domain_appears_during_the_wait(self, server: XenStoreServer, dom0: Client, plugin: Plugin) -> None:
        waiting = threading.Event()
        plugin.store.before_wait = waiting.set
        late_vm = str(uuid.UUID(int=9))
        entry = request(late_vm)
        call = plugin.start(entry)
        assert waiting.wait(DEADLINE)
        late = Guest(server, dom0, 9)
        assert late.vm == late_vm
        late.take(entry["id"])
        late.reply(entry["id"], b"here I am")
        assert call.result(DEADLINE)[0]["value"] == "here I am"
        assert late.leftovers() == []
        late.store.close()

    def test_the_vm_leaves_between_looking_and_writing(self, dom0: Client, plugin: Plugin, guest: Guest) -> None:
        plugin.store.before_transaction = at(1, lambda: dom0.write(f"{guest.domain}/vm", b"/vm/another"))
        assert plugin.call(request(guest))[0]["delivery"] == "absent"
        assert guest.leftovers() == []

    def test_the_vm_leaves_while_the_request_is_written(self, dom0: Client, plugin: Plugin, guest: Guest) -> None:
        plugin.store.before_commit = at(1, lambda: dom0.write(f"{guest.domain}/vm", b"/vm/another"))
        assert plugin.call(request(guest))[0]["delivery"] == "absent"
        assert guest.leftovers() == []

    def test_a_vm_that_comes_back_to_its_domain_is_served(
        self, server: XenStoreServer, dom0: Client, plugin: Plugin, guest: Guest
    ) -> None:
        def come_back() -> None:
            dom0.write(f"{guest.domain}/vm", f"/vm/{guest.vm}".encode())
            server.introduce(99)

        entry = request(guest)
        plugin.store.before_transaction = at(1, lambda: dom0.write(f"{guest.domain}/vm", b"/vm/another"))
        plugin.store.before_wait = at(1, come_back)
        call = plugin.start(entry)
        guest.take(entry["id"])
        guest.reply(entry["id"], b"back")
        assert call.result(DEADLINE)[0]["value"] == "back"

    def test_the_store_stops_before_anything_is_written(self, server: XenStoreServer, plugin: Plugin) -> None:
        plugin.store.before_wait = at(1, server.stop)
        assert plugin.call(request(str(uuid.uuid4())), timeout=10 * DEADLINE)[0]["delivery"] == "absent"


class TestGone:
    def test_the_domain_disappears(self, plugin: Plugin, guest: Guest, other: Guest) -> None:
        lost, kept = request(guest), request(other)
        idle = threading.Event()
        # Each of the four watches has its first event; at the fifth wait nothing is left but what happens now.
        plugin.store.before_wait = at(5, idle.set)
        call = plugin.start(lost, kept)
        assert idle.wait(DEADLINE)
        guest.end()
        other.take(kept["id"])
        other.reply(kept["id"], b"still here")
        assert [result["delivery"] for result in call.result(DEADLINE)] == ["gone", "answered"]

    def test_at_the_end_of_the_wait(self, plugin: Plugin, guest: Guest) -> None:
        plugin.store.before_transaction = at(2, guest.end)
        assert plugin.call(request(guest))[0]["delivery"] == "gone"

    def test_another_vm_has_the_domain_now(self, dom0: Client, plugin: Plugin, guest: Guest) -> None:
        plugin.store.before_transaction = at(2, lambda: dom0.write(f"{guest.domain}/vm", b"/vm/another"))
        assert plugin.call(request(guest))[0]["delivery"] == "gone"


class TestTimeIsUp:
    def test_nobody_promised_anything(self, plugin: Plugin, guest: Guest) -> None:
        assert plugin.call(request(guest), timeout=0.1)[0]["delivery"] == "unanswered"
        assert guest.leftovers() == []

    def test_an_agent_of_ours_did_not_take_it(self, plugin: Plugin, guest: Guest) -> None:
        guest.promise()
        assert plugin.call(request(guest), timeout=0.1)[0]["delivery"] == "withdrawn"
        assert guest.leftovers() == []

    @pytest.mark.parametrize("promising", [True, False])
    @pytest.mark.parametrize("turn", [1, 2])
    def test_a_claim_stands(self, plugin: Plugin, guest: Guest, promising: bool, turn: int) -> None:
        entry = request(guest)
        if promising:
            guest.promise()
        plugin.store.before_transaction = at(turn, lambda: guest.claim(entry["id"]))
        assert plugin.call(entry)[0]["delivery"] == "taken"
        assert guest.leftovers() == []

    def test_a_claim_that_comes_right_before_the_withdrawal(self, plugin: Plugin, guest: Guest) -> None:
        entry = request(guest)
        guest.promise()
        plugin.store.before_commit = at(2, lambda: guest.claim(entry["id"]))
        assert plugin.call(entry)[0]["delivery"] == "taken"
        assert guest.leftovers() == []

    def test_a_claim_that_comes_after_the_withdrawal_finds_no_request(self, plugin: Plugin, guest: Guest) -> None:
        # The agent's side of the rule: it claims, then looks at the request once more.
        entry = request(guest)
        guest.promise()
        assert plugin.call(entry)[0]["delivery"] == "withdrawn"
        guest.claim(entry["id"])
        assert read_or_none(guest.store, f"data/host/{entry['id']}") is None

    @pytest.mark.parametrize("promising", [True, False])
    def test_the_request_was_removed_without_a_reply(self, plugin: Plugin, guest: Guest, promising: bool) -> None:
        entry = request(guest)
        if promising:
            guest.promise()
        plugin.store.before_transaction = at(2, lambda: guest.store.remove(f"data/host/{entry['id']}"))
        assert plugin.call(entry)[0]["delivery"] == "taken"
        assert guest.leftovers() == []

    def test_the_claim_of_another_request_does_not_count(self, plugin: Plugin, guest: Guest) -> None:
        guest.promise()
        guest.claim(str(uuid.uuid4()))
        assert plugin.call(request(guest))[0]["delivery"] == "withdrawn"


class TestRejected:
    def test_the_store_refuses_the_write(self, plugin: Plugin, guest: Guest, other: Guest) -> None:
        # oxenstored counts what dom0 writes towards the guest's quota; the simulated daemon exempts dom0.
        def full(path: str) -> None:
            if path.startswith(guest.domain):
                raise StoreError(Operation.WRITE, path, "EQUOTA")

        plugin.store.before_write = full
        refused, taken = request(guest), request(other)
        call = plugin.start(refused, taken)
        other.take(taken["id"])
        other.reply(taken["id"], b"fine")
        results = call.result(DEADLINE)
        assert results[0] == {"id": refused["id"], "delivery": "rejected", "errno": "EQUOTA"}
        assert results[1]["delivery"] == "answered"
        assert guest.leftovers() == []
        # No transaction stays open: the daemon would have to compare each commit with it.
        assert [read_or_none_in(plugin, number) for number in range(1, 8)] == ["ENOENT"] * 7

    def test_a_guest_with_no_node_to_spare_still_gets_its_request(self, plugin: Plugin, guest: Guest) -> None:
        with pytest.raises(StoreError, match="ENOSPC"):
            for number in range(1100):
                guest.store.write(f"data/junk-{number % 40}/{number}", b"")
        entry = request(guest)
        result = plugin.call(entry)[0]
        assert result["delivery"] in ("unanswered", "rejected")
        assert guest.leftovers() == []

    def test_the_largest_value(self, plugin: Plugin, guest: Guest) -> None:
        entry = request(guest, "x" * 2000)
        call = plugin.start(entry)
        assert len(guest.take(entry["id"])) == 2000
        guest.reply(entry["id"], b"y" * 2000)
        assert call.result(DEADLINE)[0]["value"] == "y" * 2000


def read_or_none_in(plugin: Plugin, transaction: int) -> str:
    """What the daemon says about a transaction's id."""
    try:
        plugin.store._ask(Operation.READ, "/", b"/\0", transaction)
    except StoreError as error:
        return error.code
    return "open"


class TestLost:
    def test_the_store_stops_during_the_wait(self, server: XenStoreServer, plugin: Plugin, guest: Guest) -> None:
        entry, absent = request(guest), request(str(uuid.uuid4()))
        call = plugin.start(entry, absent)
        guest.take(entry["id"])
        server.stop()
        assert [result["delivery"] for result in call.result(DEADLINE)] == ["lost", "absent"]

    @pytest.mark.parametrize("turn", [1, 2])
    def test_the_store_stops_at_a_commit(self, server: XenStoreServer, plugin: Plugin, guest: Guest, turn: int) -> None:
        plugin.store.before_commit = at(turn, server.stop)
        assert plugin.call(request(guest))[0]["delivery"] == "lost"

    def test_what_was_answered_before_stays_answered(
        self, server: XenStoreServer, plugin: Plugin, guest: Guest, other: Guest
    ) -> None:
        answered, lost = request(guest), request(other)
        call = plugin.start(answered, lost)
        guest.take(answered["id"])
        other.take(lost["id"])
        guest.store.write(f"data/guest/{answered['id']}", b"early")
        # The plugin has read the reply, and perhaps not yet removed the request.
        guest.wait_until_gone(f"data/guest/{answered['id']}")
        server.stop()
        assert [result["delivery"] for result in call.result(DEADLINE)] == ["answered", "lost"]
