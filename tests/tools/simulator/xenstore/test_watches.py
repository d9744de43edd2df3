"""Watches: when they fire, for whom, and with which words."""

from __future__ import annotations

from typing import Callable

import pytest

from tests.tools.simulator.xenstore import client as c
from tests.tools.simulator.xenstore.client import Client, Refused
from tools.simulator.xenstore.server import XenStoreServer

Guest = Callable[[int], Client]


def refused(errno: str):
    return pytest.raises(Refused, match=f"^{errno}$")


def test_a_watch_fires_once_at_registration(dom0: Client) -> None:
    dom0.watch("/missing/node", "token")
    assert dom0.event() == (b"/missing/node", b"token")
    assert dom0.all_events() == []


def test_the_answer_comes_before_the_first_event(dom0: Client) -> None:
    dom0.send(c.WATCH, b"/a\0t\0", request=5)
    assert dom0.receive() == (c.WATCH, 5, 0, b"OK\0")
    assert dom0.receive() == (c.WATCH_EVENT, 0, 0, b"/a\0t\0")
    dom0.send(c.WRITE, b"/a\0v", request=6)
    assert dom0.receive() == (c.WRITE, 6, 0, b"OK\0")
    assert dom0.receive() == (c.WATCH_EVENT, 0, 0, b"/a\0t\0")


def test_a_watch_hears_of_the_node_and_all_below_and_nothing_else(dom0: Client) -> None:
    dom0.watch("/a/b", "t")
    dom0.all_events()
    dom0.write("/a", b"above")
    dom0.write("/a/bc", b"beside")
    assert dom0.all_events() == []
    dom0.write("/a/b/c/d", b"below, with parents")
    dom0.write("/a/b", b"itself")
    dom0.mkdir("/a/b/e")
    dom0.mkdir("/a/b/e")
    dom0.set_perms("/a/b/c", "r0")
    dom0.rm("/a/b/c")
    dom0.rm("/a/b/missing")
    dom0.read("/a/b")
    events = [b"/a/b/c/d", b"/a/b", b"/a/b/e", b"/a/b/c", b"/a/b/c"]
    assert dom0.all_events() == [(path, b"t") for path in events]


def test_the_root_can_be_watched(dom0: Client) -> None:
    dom0.watch("/", "t")
    dom0.write("/a/b", b"")
    assert dom0.all_events() == [(b"/", b"t"), (b"/a/b", b"t")]


def test_removing_a_parent_fires_for_watches_below(dom0: Client) -> None:
    dom0.write("/a/b/c", b"")
    for path in ("/a", "/a/b", "/a/b/c", "/a/b/c/never-was"):
        dom0.watch(path, "t")
    dom0.all_events()
    dom0.rm("/a")
    assert sorted(dom0.all_events()) == [(b"/a", b"t"), (b"/a/b", b"t"), (b"/a/b/c", b"t")]


def test_events_speak_as_the_watch_was_registered(dom0: Client, guest: Guest) -> None:
    client = guest(3)
    client.watch("data/host", "relative")
    client.watch("/local/domain/3/data/host", "absolute")
    assert client.all_events() == [(b"data/host", b"relative"), (b"/local/domain/3/data/host", b"absolute")]
    dom0.write("/local/domain/3/data/host/id", b"")
    assert client.all_events() == [(b"data/host/id", b"relative"), (b"/local/domain/3/data/host/id", b"absolute")]
    dom0.rm("/local/domain/3/data/host")
    assert client.all_events() == [(b"data/host", b"relative"), (b"/local/domain/3/data/host", b"absolute")]


def test_duplicates_and_unknown_ones(dom0: Client, server: XenStoreServer, connect) -> None:
    dom0.watch("/local/domain/0/a", "t")
    with refused("EEXIST"):
        dom0.watch("/local/domain/0/a", "t")
    with refused("EEXIST"):
        dom0.watch("a", "t")
    dom0.watch("/local/domain/0/a", "u")
    other = connect(server.socket)
    other.watch("/local/domain/0/a", "t")
    for path, token in (("/local/domain/0/a", "x"), ("/b", "t")):
        with refused("ENOENT"):
            dom0.unwatch(path, token)
    dom0.unwatch("/local/domain/0/a", "t")
    with refused("ENOENT"):
        dom0.unwatch("/local/domain/0/a", "t")
    dom0.all_events()
    dom0.write("a", b"")
    assert dom0.all_events() == [(b"/local/domain/0/a", b"u")]
    assert other.all_events() == [(b"/local/domain/0/a", b"t")] * 2
    for illegal in ("", "/a/", "@other", "/a b"):
        with refused("EINVAL"):
            dom0.watch(illegal, "t")


def test_a_guest_watches_a_sibling_in_vain(dom0: Client, guest: Guest) -> None:
    three, four = guest(3), guest(4)
    three.watch("/local/domain/4", "t")
    three.watch("/", "root")
    assert three.all_events() == [(b"/local/domain/4", b"t"), (b"/", b"root")]
    four.write("data/x", b"secret")
    dom0.write("/local/domain/4/name", b"renamed")
    dom0.rm("/local/domain/4")
    dom0.write("/vm/new", b"")
    assert three.all_events() == []
    dom0.write("/local/domain/3/data/own", b"")
    assert three.all_events() == [(b"/local/domain/3/data/own", b"root")]


def test_losing_and_gaining_permission_is_heard(dom0: Client, guest: Guest) -> None:
    client = guest(3)
    dom0.write("/shared", b"")
    client.watch("/shared", "t")
    client.all_events()
    dom0.set_perms("/shared", "r0")
    assert client.all_events() == [(b"/shared", b"t")]
    dom0.set_perms("/shared", "n0")
    assert client.all_events() == [(b"/shared", b"t")]
    dom0.write("/shared", b"unseen")
    assert client.all_events() == []


def test_who_can_list_the_parent_hears_of_its_children(dom0: Client, guest: Guest) -> None:
    client = guest(3)
    client.watch("hidden", "t")
    client.all_events()
    dom0.write("/local/domain/3/hidden", b"")
    dom0.set_perms("/local/domain/3/hidden", "n0")
    dom0.rm("/local/domain/3/hidden")
    assert client.all_events() == [(b"hidden", b"t")] * 3


def test_the_owner_hears_what_another_creates_below(dom0: Client, guest: Guest) -> None:
    three, four = guest(3), guest(4)
    three.set_perms("data", "n3", "b4")
    three.watch("data", "t")
    three.all_events()
    four.write("/local/domain/3/data/theirs", b"")
    four.write("/local/domain/3/data/with/parent", b"")
    with refused("EACCES"):
        three.read("data/theirs")
    # It may list `data`, but not `data/with`.
    assert three.all_events() == [(b"data/theirs", b"t")]


def test_a_transaction_fires_at_its_commit(dom0: Client, server: XenStoreServer, connect) -> None:
    other = connect(server.socket)
    other.watch("/a", "t")
    other.all_events()
    transaction = dom0.begin()
    dom0.write("/a/1", b"", transaction)
    dom0.write("/a/2", b"", transaction)
    assert other.all_events() == []
    dom0.end(transaction)
    assert other.all_events() == [(b"/a/1", b"t"), (b"/a/2", b"t")]
    aborted = dom0.begin()
    dom0.write("/a/3", b"", aborted)
    dom0.end(aborted, commit=False)
    assert other.all_events() == []


def test_watching_ignores_transaction_ids(dom0: Client) -> None:
    assert dom0.call(c.WATCH, b"/a\0t\0", transaction=99) == b"OK\0"
    assert dom0.call(c.UNWATCH, b"/a\0t\0", transaction=99) == b"OK\0"


def test_a_guest_has_100_over_all_its_connections(dom0: Client, server: XenStoreServer, guest: Guest, connect) -> None:
    first = guest(3)
    second = connect(server.introduce(3))
    for number in range(50):
        first.watch("data", f"{number}")
        second.watch("data", f"{number}")
    for client in (first, second):
        with refused("E2BIG"):
            client.watch("data", "one-more")
    first.unwatch("data", "0")
    second.watch("data", "one-more")
    second.call(c.RESET_WATCHES, b"\0")
    second.all_events()
    dom0.write("/local/domain/3/data", b"")
    assert second.all_events() == []
    for number in range(51):
        second.watch("data", f"{number}")
    with refused("E2BIG"):
        second.watch("data", "one-more")
    for number in range(200):
        dom0.watch("/a", f"{number}")


def test_an_event_that_does_not_fit_is_left_out(dom0: Client) -> None:
    dom0.watch("/a", "t" * 4000)
    dom0.watch("/a", "short")
    dom0.all_events()
    path = "/a/" + "b" * 200
    dom0.write(path, b"")
    assert dom0.all_events() == [(path.encode(), b"short")]


def test_domains_that_come_and_go_are_announced_to_dom0_only(
    dom0: Client, server: XenStoreServer, guest: Guest
) -> None:
    client = guest(3)
    for watcher in (dom0, client):
        watcher.watch("@introduceDomain", "in")
        watcher.watch("@releaseDomain", "out")
        assert watcher.all_events() == [(b"@introduceDomain", b"in"), (b"@releaseDomain", b"out")]
    server.introduce(9)
    server.introduce(9)
    assert dom0.event() == (b"@introduceDomain", b"in")
    server.release(9)
    assert dom0.event() == (b"@releaseDomain", b"out")
    assert dom0.all_events() == client.all_events() == []
    # A node of that name is something else.
    dom0.write("/@introduceDomain", b"")
    assert dom0.all_events() == []


def test_dom0_introduces_and_releases_over_its_socket(dom0: Client, server: XenStoreServer, connect) -> None:
    dom0.watch("@introduceDomain", "in")
    dom0.watch("@releaseDomain", "out")
    dom0.all_events()
    assert dom0.call(c.IS_DOMAIN_INTRODUCED, b"0\0") == b"T\0"
    assert dom0.call(c.IS_DOMAIN_INTRODUCED, b"5\0") == b"F\0"
    assert dom0.call(c.INTRODUCE, b"5\x001234\x003\0") == b"OK\0"
    assert dom0.call(c.INTRODUCE, b"5\x001234\x003\0") == b"OK\0"
    assert dom0.all_events() == [(b"@introduceDomain", b"in")]
    assert dom0.call(c.IS_DOMAIN_INTRODUCED, b"5\0") == b"T\0"
    client = connect(server.introduce(5))
    assert client.call(c.GET_DOMAIN_PATH, b"5\0") == b"/local/domain/5\0"
    assert dom0.call(c.RELEASE, b"5\0") == b"OK\0"
    assert client.closed_by_server()
    assert dom0.all_events() == [(b"@releaseDomain", b"out")]
    assert dom0.call(c.IS_DOMAIN_INTRODUCED, b"5\0") == b"F\0"
    with refused("ENOENT"):
        dom0.call(c.RELEASE, b"5\0")
