"""Replies that come after their host gave up: they go at the next exchange, and nobody else's do."""

from __future__ import annotations

import uuid

import pytest

from agent_protocol.xenstore import Client
from dom0_plugins import unread
from tests.agent_protocol.store import DEADLINE
from tests.dom0_plugins.conftest import Guest, Plugin, at, read_or_none, request
from tools.simulator.xenstore.server import XenStoreServer


def remembered(dom0: Client, guest: Guest) -> list[str]:
    """The ids in the list."""
    return (read_or_none(dom0, f"{guest.domain}/{unread.UNREAD}") or b"").decode().split()


def time_out(plugin: Plugin, guest: Guest) -> str:
    """A request to an agent that took it and does not reply; returns its id."""
    entry = request(guest)
    plugin.store.before_transaction = at(2, lambda: guest.claim(entry["id"]))
    assert plugin.call(entry)[0]["delivery"] == "taken"
    plugin.store.before_transaction = lambda: None
    return str(entry["id"])


class TestLateReplies:
    def test_a_late_reply_goes_at_the_next_exchange(self, plugin: Plugin, guest: Guest, dom0: Client) -> None:
        late = time_out(plugin, guest)
        assert remembered(dom0, guest) == [late]
        guest.store.write(f"data/guest/{late}", b"at last")
        guest.store.write(f"data/xenward/frames/{late}/0", b"frame")
        assert plugin.call(request(guest))[0]["delivery"] == "unanswered"
        assert guest.leftovers() == []
        assert late not in remembered(dom0, guest)

    def test_it_stays_in_the_list_until_it_came(self, plugin: Plugin, guest: Guest, dom0: Client) -> None:
        late = time_out(plugin, guest)
        for _ in range(2):
            answered = request(guest)
            plugin.store.before_transaction = at(3, lambda entry=answered: guest.reply(entry["id"], b"ok"))  # type: ignore[misc]
            assert plugin.call(answered)[0]["delivery"] == "answered"
            assert remembered(dom0, guest) == [late]
        guest.store.write(f"data/guest/{late}", b"at last")
        plugin.store.before_transaction = lambda: None
        guest.promise()
        assert plugin.call(request(guest))[0]["delivery"] == "withdrawn"
        assert guest.leftovers() == []
        # Nothing of ours stays when there is nothing to remember.
        assert unread.DIRECTORY not in dom0.directory(guest.domain)

    def test_what_was_not_taken_needs_no_memory(self, plugin: Plugin, guest: Guest, dom0: Client) -> None:
        guest.promise()
        plugin.call(request(guest))
        assert remembered(dom0, guest) == []

    def test_the_newest_are_remembered(self, plugin: Plugin, guest: Guest, dom0: Client) -> None:
        ids = [time_out(plugin, guest) for _ in range(unread.MAX_UNREAD + 3)]
        assert remembered(dom0, guest) == ids[3:]
        assert len(" ".join(ids[3:])) <= 2000

    def test_another_domain_is_not_touched(self, plugin: Plugin, guest: Guest, other: Guest, dom0: Client) -> None:
        late = time_out(plugin, guest)
        guest.store.write(f"data/guest/{late}", b"at last")
        plugin.call(request(other))
        assert guest.leftovers() == [f"data/guest/{late}"]
        assert remembered(dom0, guest) == [late]


class TestOthers:
    def test_a_reply_that_another_plugin_is_about_to_read_stays(
        self, server: XenStoreServer, plugin: Plugin, guest: Guest
    ) -> None:
        """The agent has answered and removed the request; the plugin that waits has seen neither yet."""
        late, entry = time_out(plugin, guest), request(guest)
        guest.store.write(f"data/guest/{late}", b"at last")
        slow = Plugin(server)

        def meanwhile() -> None:
            guest.reply(entry["id"], b"for the slow one")
            plugin.call(request(guest))

        # Right after the request was written, before the first look at the reply.
        slow.store.before_wait = at(1, meanwhile)
        assert slow.call(entry, timeout=DEADLINE)[0]["value"] == "for the slow one"
        assert guest.leftovers() == []
        slow.store.close()

    def test_an_id_that_is_used_again_is_forgotten(self, plugin: Plugin, guest: Guest, dom0: Client) -> None:
        late = time_out(plugin, guest)
        entry = {**request(guest), "id": late}
        call = plugin.start(entry)
        guest.take(late)
        assert remembered(dom0, guest) == []
        guest.reply(late, b"new")
        assert call.result(DEADLINE)[0]["value"] == "new"

    def test_the_late_reply_to_the_first_use_is_not_taken_for_the_second(self, plugin: Plugin, guest: Guest) -> None:
        late = time_out(plugin, guest)
        guest.store.write(f"data/guest/{late}", b"old")
        call = plugin.start({**request(guest), "id": late})
        guest.take(late)
        guest.reply(late, b"new")
        assert call.result(DEADLINE)[0]["value"] == "new"

    def test_the_guest_cannot_write_the_list(self, plugin: Plugin, guest: Guest) -> None:
        time_out(plugin, guest)
        for path in (unread.UNREAD, unread.DIRECTORY):
            with pytest.raises(Exception, match="EACCES"):
                guest.store.write(path, b"mine")

    def test_a_list_that_is_none_does_no_harm(self, plugin: Plugin, guest: Guest, dom0: Client) -> None:
        kept = str(uuid.uuid4())
        guest.store.write("data/guest/x", b"")
        guest.store.write(f"data/guest/{kept}", b"")
        junk = f"../../8 \xff x {kept.upper()} {kept}x / data".encode()
        dom0.write(f"{guest.domain}/{unread.UNREAD}", junk)
        guest.promise()
        assert plugin.call(request(guest))[0]["delivery"] == "withdrawn"
        assert sorted(guest.leftovers()) == sorted(["data/guest/x", f"data/guest/{kept}"])

    def test_a_guest_that_interferes_delays_only_the_cleaning(self, plugin: Plugin, guest: Guest, dom0: Client) -> None:
        late = time_out(plugin, guest)
        commits = 0

        def interfere() -> None:
            nonlocal commits
            commits += 1
            if commits <= 3:
                guest.store.write(f"data/guest/{late}", b"%d" % commits)

        plugin.store.before_commit = interfere
        guest.promise()
        assert plugin.call(request(guest))[0]["delivery"] == "withdrawn"
        assert remembered(dom0, guest) == [late]

    def test_the_vm_leaves_before_the_cleaning(self, plugin: Plugin, guest: Guest, dom0: Client) -> None:
        late = time_out(plugin, guest)
        guest.store.write(f"data/guest/{late}", b"at last")
        plugin.store.before_transaction = at(1, lambda: dom0.write(f"{guest.domain}/vm", b"/vm/another"))
        assert plugin.call(request(guest))[0]["delivery"] == "absent"
        assert guest.leftovers() == [f"data/guest/{late}"]
