"""XenStore as xenward relies on it: the same in the simulated daemon and in both real ones.

What differs between the daemons stands in environments.py, by name; nothing that xenward does may depend on it.
"""

from __future__ import annotations

from typing import Callable

import pytest

from agent_protocol.xenstore import Client, StoreClosed, WatchEvent, connect
from tests.contract.environments import Environment
from tests.contract.xenstore.support import HOME, SIBLING, code, events
from tools.simulator.xenstore.server import StoreServer

# Nodes


def test_a_value_is_read_back_as_it_was_written(guest: Client, dom0: Client) -> None:
    for value in (b"", b"x", b"a\0b\0", bytes(range(256)), b"v" * 2000):
        guest.write("data/x", value)
        assert guest.read("data/x") == dom0.read(f"{HOME}/data/x") == value


def test_parents_are_made_and_mkdir_keeps_what_exists(dom0: Client) -> None:
    dom0.write("/a/b/c", b"value")
    assert dom0.read("/a/b") == b""
    dom0.mkdir("/a/b/c")
    assert dom0.read("/a/b/c") == b"value"
    dom0.mkdir("/a/d")
    assert sorted(dom0.directory("/a")) == ["b", "d"]
    assert dom0.directory("/a/d") == []


def test_relative_paths_start_at_home(dom0: Client, guest: Client) -> None:
    guest.write("data/x", b"mine")
    assert dom0.read(f"{HOME}/data/x") == guest.read(f"{HOME}/data/x") == b"mine"
    dom0.write("own", b"zero")
    assert dom0.read("/local/domain/0/own") == b"zero"


def test_removing_takes_everything_below(dom0: Client) -> None:
    dom0.write("/a/b/c", b"1")
    dom0.write("/a/d", b"2")
    dom0.remove("/a/b")
    assert dom0.directory("/a") == ["d"]
    assert code(dom0.read, "/a/b/c") == "ENOENT"


def test_removing_what_is_missing_succeeds_below_a_parent_only(dom0: Client, guest: Client) -> None:
    dom0.mkdir("/a")
    dom0.remove("/a/missing")
    guest.remove("data/missing")
    assert code(dom0.remove, "/a/missing/deeper") == "ENOENT"
    assert code(guest.remove, "data/missing/deeper") == "ENOENT"


def test_what_is_missing_is_enoent(dom0: Client, guest: Client) -> None:
    for client, path in ((dom0, "/missing"), (guest, "data/missing"), (guest, "data/missing/deeper"), (guest, "none")):
        assert code(client.read, path) == "ENOENT"
        assert code(client.directory, path) == "ENOENT"
        assert code(client.get_permissions, path) == "ENOENT"
    assert code(dom0.set_permissions, "/missing", ["n0"]) == "ENOENT"


# Permissions


def test_new_nodes_inherit_and_a_guest_owns_what_dom0_makes_below_its_own(dom0: Client, guest: Client) -> None:
    dom0.set_permissions(f"{HOME}/data", ["n3", "r4"])
    guest.write("data/a/b", b"")
    dom0.write(f"{HOME}/data/host/request/frame", b"")
    for path in ("a", "a/b", "host", "host/request", "host/request/frame"):
        assert dom0.get_permissions(f"{HOME}/data/{path}") == ["n3", "r4"]
    guest.remove("data/host/request")
    dom0.write("/vm/some/node", b"")
    assert dom0.get_permissions("/vm/some/node") == ["n0"]


def test_whose_a_node_is_that_a_guest_makes_below_dom0s(dom0: Client, guest: Client, environment: Environment) -> None:
    dom0.mkdir("/shared")
    dom0.set_permissions("/shared", ["n0", "b3"])
    guest.write("/shared/x", b"mine")
    owner = "n3" if environment.manners.guest_owns_what_it_makes else "n0"
    assert dom0.get_permissions("/shared/x") == [owner, "b3"]
    assert guest.read("/shared/x") == b"mine"


def test_a_guest_changes_its_own_areas_and_nothing_else(dom0: Client, guest: Client) -> None:
    for change in (
        lambda: guest.write("name", b"x"),
        lambda: guest.write("new", b"x"),
        lambda: guest.mkdir("new"),
        lambda: guest.remove("name"),
        lambda: guest.remove(HOME),
        lambda: guest.set_permissions("name", ["n3"]),
        lambda: guest.set_permissions("data", ["n0"]),
        lambda: guest.write("/new", b"x"),
        lambda: guest.write("/vm/new", b"x"),
    ):
        assert code(change) in ("EACCES", "EPERM")
    assert guest.read("name") == dom0.read(f"{HOME}/name")
    assert dom0.get_permissions(f"{HOME}/data") == ["n3"]


def test_a_guest_cannot_look_at_a_sibling_nor_at_dom0(
    dom0: Client, guest: Client, sibling: Client, environment: Environment
) -> None:
    sibling.write("data/secret", b"private")
    dom0.write("/local/domain/0/device", b"private")
    for path in (SIBLING, f"{SIBLING}/data", f"{SIBLING}/data/secret", "/", "/tool", "/local/domain/0/device"):
        for look in (guest.read, guest.directory, guest.get_permissions):
            assert code(look, path) == "EACCES"
        if path != "/":
            assert code(guest.write, path, b"x") == "EACCES"
            assert code(guest.remove, path) == "EACCES"
            assert code(guest.mkdir, path + "/new") == "EACCES"
            assert code(guest.set_permissions, path, ["n3"]) == "EACCES"
    for path in (f"{SIBLING}/data/missing", "/local/domain/99", "/vm/x"):
        assert code(guest.read, path) == environment.manners.missing_elsewhere
        assert code(guest.write, path, b"x") == "EACCES"
    assert sibling.read("data/secret") == b"private"


def test_an_owner_shares_but_cannot_give_away(guest: Client, sibling: Client, environment: Environment) -> None:
    guest.write("data/shared", b"value")
    path = f"{HOME}/data/shared"
    assert code(sibling.read, path) == "EACCES"
    guest.set_permissions("data/shared", ["n3", "r4"])
    assert sibling.read(path) == b"value"
    assert code(sibling.write, path, b"x") == "EACCES"
    guest.set_permissions("data/shared", ["n3", "b4"])
    sibling.write(path, b"changed")
    assert code(sibling.set_permissions, path, ["n4"]) == "EACCES"
    assert code(guest.set_permissions, "data/shared", ["n4"]) == environment.manners.gave_away
    assert guest.get_permissions("data/shared") == ["n3", "b4"]


def test_malformed_permissions_are_einval(dom0: Client) -> None:
    dom0.mkdir("/a")
    for permissions in ([], ["x0"], ["0"], ["n"]):
        assert code(dom0.set_permissions, "/a", permissions) == "EINVAL"
    assert dom0.get_permissions("/a") == ["n0"]


# Watches


def test_a_watch_fires_once_at_registration_even_for_what_is_missing(dom0: Client, guest: Client) -> None:
    for client, path in ((dom0, "/missing/node"), (guest, "data/host")):
        client.watch(path, "token")
        assert events(client) == [WatchEvent(path, "token")]
        assert events(client) == []


def test_a_watch_hears_of_the_node_and_all_below_and_nothing_else(dom0: Client) -> None:
    dom0.write("/a/b/c/d", b"")
    dom0.watch("/a/b", "t")
    events(dom0)
    dom0.write("/a", b"above")
    dom0.write("/a/bc", b"beside")
    dom0.mkdir("/a/b/c")
    dom0.remove("/a/b/missing")
    dom0.read("/a/b")
    assert events(dom0) == []
    for change, path in (
        (lambda: dom0.write("/a/b", b"itself"), "/a/b"),
        (lambda: dom0.write("/a/b/c/d", b"below"), "/a/b/c/d"),
        (lambda: dom0.write("/a/b/e/f", b"with parents"), "/a/b/e/f"),
        (lambda: dom0.mkdir("/a/b/g"), "/a/b/g"),
        (lambda: dom0.set_permissions("/a/b/c", ["r0"]), "/a/b/c"),
        (lambda: dom0.remove("/a/b/c"), "/a/b/c"),
    ):
        change()
        assert events(dom0) == [WatchEvent(path, "t")]


def test_removing_a_parent_is_heard_below_in_the_words_of_the_watch(dom0: Client, guest: Client) -> None:
    dom0.write(f"{HOME}/data/host/id/frame", b"")
    guest.watch("data/host/id/frame", "deep")
    guest.watch("data", "above")
    events(guest)
    dom0.remove(f"{HOME}/data/host")
    assert set(events(guest)) == {WatchEvent("data/host/id/frame", "deep"), WatchEvent("data/host", "above")}


def test_events_speak_as_the_watch_was_registered(dom0: Client, guest: Client) -> None:
    guest.watch("data/host", "relative")
    guest.watch(f"{HOME}/data/host", "absolute")
    assert set(events(guest)) == {WatchEvent("data/host", "relative"), WatchEvent(f"{HOME}/data/host", "absolute")}
    dom0.write(f"{HOME}/data/host/id", b"")
    assert set(events(guest)) == {
        WatchEvent("data/host/id", "relative"),
        WatchEvent(f"{HOME}/data/host/id", "absolute"),
    }


def test_a_watch_is_unique_by_path_and_token_and_ends(dom0: Client, server: StoreServer) -> None:
    dom0.watch("/a", "t")
    assert code(dom0.watch, "/a", "t") == "EEXIST"
    dom0.watch("/a", "u")
    with connect(str(server.socket)) as other:
        other.watch("/a", "t")
        assert code(dom0.unwatch, "/a", "none") == "ENOENT"
        dom0.unwatch("/a", "t")
        assert code(dom0.unwatch, "/a", "t") == "ENOENT"
        events(dom0), events(other)
        dom0.write("/a", b"")
        assert events(dom0) == [WatchEvent("/a", "u")]
        assert events(other) == [WatchEvent("/a", "t")]


def test_clients_of_one_guest_do_not_hear_of_each_others_watches(
    dom0: Client, guest: Client, introduce: Callable[[int], Client]
) -> None:
    other = introduce(3)
    guest.watch("data", "t")
    other.watch("data", "t")
    other.watch("data", "u")
    events(guest), events(other)
    dom0.write(f"{HOME}/data/x", b"")
    assert events(guest) == [WatchEvent("data/x", "t")]
    assert sorted(events(other)) == [WatchEvent("data/x", "t"), WatchEvent("data/x", "u")]
    other.unwatch("data", "t")
    other.close()
    dom0.write(f"{HOME}/data/x", b"")
    assert events(guest) == [WatchEvent("data/x", "t")]


def test_a_guest_watches_a_sibling_in_vain(dom0: Client, guest: Client, sibling: Client) -> None:
    guest.watch(SIBLING, "sibling")
    guest.watch("/", "root")
    assert set(events(guest)) == {WatchEvent(SIBLING, "sibling"), WatchEvent("/", "root")}
    sibling.write("data/x", b"secret")
    dom0.write(f"{SIBLING}/name", b"renamed")
    dom0.write("/vm/new", b"")
    dom0.remove(f"{SIBLING}/data")
    assert events(guest) == []
    dom0.write(f"{HOME}/name", b"")
    assert events(guest) == [WatchEvent(f"{HOME}/name", "root")]


def test_domains_that_come_and_go_are_announced_to_dom0_only(dom0: Client, server: StoreServer, guest: Client) -> None:
    for client in (dom0, guest):
        client.watch("@introduceDomain", "in")
        client.watch("@releaseDomain", "out")
        assert set(events(client)) == {WatchEvent("@introduceDomain", "in"), WatchEvent("@releaseDomain", "out")}
    server.introduce(9)
    server.introduce(9)
    assert events(dom0) == [WatchEvent("@introduceDomain", "in")]
    server.release(9)
    assert events(dom0) == [WatchEvent("@releaseDomain", "out")]
    assert events(guest) == []


def test_a_domain_that_dies_takes_its_connections_watches_and_nodes(
    dom0: Client, server: StoreServer, guest: Client, introduce: Callable[[int], Client]
) -> None:
    guest.write("data/x", b"")
    guest.watch("data", "t")
    path = server.introduce(3)
    server.release(3)
    with pytest.raises(StoreClosed):
        guest.read("data/x")
    assert not path.exists()
    # What dom0 owned is the toolstack's to remove.
    assert sorted(dom0.directory(HOME)) == ["name", "vm"]
    with pytest.raises(LookupError):
        server.release(3)
    dom0.remove(HOME)
    # Nobody can be given a node before he exists.
    server.introduce(3)
    again = introduce(3)
    dom0.write(f"{HOME}/data/x", b"")
    assert again.read("data/x") == b""
    assert events(again) == []


def test_many_watches_and_one_too_many(dom0: Client, guest: Client, environment: Environment) -> None:
    limits = environment.limits
    for number in range(limits.watches):
        guest.watch("data", f"{number}")
    assert len(events(guest)) == limits.watches
    assert code(guest.watch, "data", "one-more") == limits.watch_code
    dom0.write(f"{HOME}/data/x", b"")
    assert {event.token for event in events(guest)} == {f"{number}" for number in range(limits.watches)}
    guest.unwatch("data", "0")
    guest.watch("data", "one-more")
    for number in range(500):
        dom0.watch("/a", f"{number}")
    events(dom0)
    dom0.write("/a", b"")
    assert len(events(dom0)) == 500
