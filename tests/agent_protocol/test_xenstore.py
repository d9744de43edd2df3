"""The client against the simulated daemon, as dom0 and as a guest."""

from __future__ import annotations

import os
import time

import pytest

from agent_protocol.wire import Operation, WireError
from agent_protocol.xenstore import Client, StoreClosed, StoreError, WatchEvent, connect
from tests.agent_protocol.store import DEADLINE, in_background
from tools.simulator.xenstore.server import XenStoreServer
from tools.simulator.xenstore.watches import MAX_WATCHES

DOMAIN = "/local/domain/7"


def events(client: Client) -> list[WatchEvent]:
    """What waits, up to the events of everything that was done before."""
    client.watch("fence", "fence")
    found: list[WatchEvent] = []
    while True:
        event = client.next_event(DEADLINE)
        assert event is not None
        if event.token == "fence":
            client.unwatch("fence", "fence")
            return found
        found.append(event)


class TestNodes:
    def test_dom0_writes_reads_and_removes(self, dom0: Client) -> None:
        dom0.write("/a/b", b"value\0\xff")
        assert dom0.read("/a/b") == b"value\0\xff"
        assert dom0.read("/a") == b""
        dom0.remove("/a")
        with pytest.raises(StoreError) as caught:
            dom0.read("/a/b")
        assert (caught.value.code, caught.value.operation, caught.value.path) == ("ENOENT", Operation.READ, "/a/b")

    def test_a_guest_uses_relative_paths(self, dom0: Client, guest: Client) -> None:
        guest.write("data/guest/x", b"1")
        assert dom0.read(f"{DOMAIN}/data/guest/x") == b"1"
        dom0.write(f"{DOMAIN}/data/host/y", b"2")
        assert guest.read("data/host/y") == b"2"
        guest.remove("data/host/y")
        assert dom0.directory(f"{DOMAIN}/data/host") == []

    def test_mkdir_keeps_what_is_there(self, dom0: Client, guest: Client) -> None:
        guest.mkdir("data/new")
        assert guest.read("data/new") == b""
        dom0.write("/n", b"kept")
        dom0.mkdir("/n")
        assert dom0.read("/n") == b"kept"

    def test_the_last_element_may_be_missing_when_removed_but_not_its_parent(self, guest: Client) -> None:
        guest.remove("data/missing")
        with pytest.raises(StoreError, match="ENOENT"):
            guest.remove("data/missing/further")

    def test_directory_names_children(self, dom0: Client, guest: Client) -> None:
        for name in ("b", "a", "c"):
            guest.write(f"data/{name}", b"")
        assert sorted(dom0.directory(f"{DOMAIN}/data")) == ["a", "b", "c"]
        assert guest.directory("data/a") == []
        with pytest.raises(StoreError, match="ENOENT"):
            guest.directory("data/d")

    def test_a_thousand_children_come_in_parts(self, dom0: Client) -> None:
        names = [f"{number:08d}-1111-2222-3333-444444444444" for number in range(1100)]
        for name in names:
            dom0.write(f"/many/{name}", b"")
        assert sorted(dom0.directory("/many")) == names

    @pytest.mark.parametrize("width", [1, 3, 7, 15, 31, 63, 127])
    def test_every_length_of_a_list_comes_complete(self, dom0: Client, width: int) -> None:
        # Around the limit of one packet: 4096 bytes with the generation and the NULs.
        for number in range(4200 // (width + 5)):
            dom0.write(f"/edge/{number:04d}{'x' * width}", b"")
        while len(names := dom0.directory("/edge")) > 3900 // (width + 5):
            assert names == sorted(names)
            dom0.remove(f"/edge/{names[-1]}")
            assert dom0.directory("/edge") == names[:-1]

    def test_permissions_are_read_and_set(self, dom0: Client, guest: Client) -> None:
        assert dom0.get_permissions(f"{DOMAIN}/data") == ["n7"]
        guest.set_permissions("data", ["n7", "r3", "b4"])
        assert guest.get_permissions("data") == ["n7", "r3", "b4"]
        with pytest.raises(StoreError, match="EINVAL"):
            guest.set_permissions("data", ["x7"])

    def test_a_guest_is_refused_what_is_not_its_own(self, dom0: Client, guest: Client) -> None:
        dom0.write("/secret", b"")
        for act in (
            lambda: guest.read("/secret"),
            lambda: guest.write("vm", b"another"),
            lambda: guest.remove("/local/domain/0"),
            lambda: guest.directory("/vm"),
            lambda: guest.mkdir("/x"),
            lambda: guest.get_permissions("/secret"),
            lambda: guest.set_permissions("vm", ["n7"]),
        ):
            with pytest.raises(StoreError, match="EACCES"):
                act()

    def test_a_value_above_the_quota_is_refused_by_code(self, dom0: Client, guest: Client) -> None:
        guest.write("data/x", bytes(2000))
        with pytest.raises(StoreError) as caught:
            guest.write("data/x", bytes(2100))
        assert caught.value.code in ("E2BIG", "ENOSPC")
        with pytest.raises(StoreError, match="E2BIG"):
            dom0.write("/x", bytes(2100))
        assert guest.read("data/x") == bytes(2000)

    def test_what_breaks_the_protocol_is_never_sent(self, dom0: Client) -> None:
        for act in (
            lambda: dom0.read("/a b"),
            lambda: dom0.write("", b""),
            lambda: dom0.write("/x", bytes(4096)),
            lambda: dom0.watch("/x/", "token"),
            lambda: dom0.watch("/x", "to\0ken"),
            lambda: dom0.transaction().read("//"),
        ):
            with pytest.raises(WireError):
                act()
        dom0.write("/x", b"still there")
        assert dom0.read("/x") == b"still there"


class TestTransactions:
    def test_changes_appear_together(self, dom0: Client, guest: Client) -> None:
        dom0.write("/old", b"")
        transaction = dom0.transaction()
        transaction.write("/a", b"1")
        transaction.remove("/old")
        assert transaction.read("/a") == b"1"
        assert transaction.exists("/a") and not transaction.exists("/old")
        with pytest.raises(StoreError, match="ENOENT"):
            dom0.read("/a")
        assert dom0.read("/old") == b""
        assert transaction.commit()
        assert dom0.read("/a") == b"1"
        with pytest.raises(StoreError, match="ENOENT"):
            dom0.read("/old")

    def test_abort_changes_nothing(self, guest: Client) -> None:
        transaction = guest.transaction()
        transaction.write("data/a", b"1")
        transaction.abort()
        with pytest.raises(StoreError, match="ENOENT"):
            guest.read("data/a")
        with pytest.raises(StoreError, match="ENOENT"):
            transaction.read("data/a")

    def test_a_conflict_is_told_and_nothing_done(self, dom0: Client, guest: Client) -> None:
        transaction = dom0.transaction()
        assert not transaction.exists(f"{DOMAIN}/data/claim")
        transaction.write(f"{DOMAIN}/data/mine", b"1")
        guest.write("data/claim", b"")
        assert not transaction.commit()
        assert guest.directory("data") == ["claim"]

    def test_errors_keep_their_code(self, guest: Client) -> None:
        transaction = guest.transaction()
        for act in (
            lambda: transaction.read("/vm"),
            lambda: transaction.exists("/vm"),
            lambda: transaction.write("vm", b""),
            lambda: transaction.remove("vm"),
        ):
            with pytest.raises(StoreError, match="EACCES"):
                act()
        with pytest.raises(StoreError, match="ENOENT"):
            transaction.read("data/missing")
        transaction.abort()
        with pytest.raises(StoreError, match="ENOENT"):
            transaction.commit()

    def test_a_guest_has_ten(self, guest: Client) -> None:
        transactions = [guest.transaction() for _ in range(10)]
        with pytest.raises(StoreError, match="ENOSPC"):
            guest.transaction()
        for transaction in transactions:
            transaction.abort()
        guest.transaction().abort()


class TestWatches:
    def test_one_event_comes_at_once(self, dom0: Client) -> None:
        dom0.watch("/nothing/here", "token")
        assert dom0.next_event(DEADLINE) == WatchEvent("/nothing/here", "token")
        assert dom0.next_event(0) is None

    def test_paths_have_the_form_of_the_watch(self, dom0: Client, guest: Client) -> None:
        guest.watch("data/host", "relative")
        guest.watch(f"{DOMAIN}/data/host", "absolute")
        events(guest)
        dom0.write(f"{DOMAIN}/data/host/x", b"")
        assert sorted(events(guest)) == [
            WatchEvent(f"{DOMAIN}/data/host/x", "absolute"),
            WatchEvent("data/host/x", "relative"),
        ]

    def test_events_of_one_path_are_kept_once_and_in_order(self, dom0: Client, guest: Client) -> None:
        guest.watch("data", "token")
        events(guest)
        for name in "abaab":
            dom0.write(f"{DOMAIN}/data/{name}", b"")
        assert events(guest) == [WatchEvent("data/a", "token"), WatchEvent("data/b", "token")]
        dom0.write(f"{DOMAIN}/data/a", b"")
        assert events(guest) == [WatchEvent("data/a", "token")]

    def test_no_event_after_unwatch(self, dom0: Client) -> None:
        dom0.watch("/x", "token")
        with pytest.raises(StoreError, match="EEXIST"):
            dom0.watch("/x", "token")
        dom0.unwatch("/x", "token")
        with pytest.raises(StoreError, match="ENOENT"):
            dom0.unwatch("/x", "token")
        events(dom0)
        dom0.write("/x", b"")
        assert events(dom0) == []

    def test_domains_coming_and_going(self, server: XenStoreServer, dom0: Client) -> None:
        for name in ("@introduceDomain", "@releaseDomain"):
            dom0.watch(name, name)
            assert dom0.next_event(DEADLINE) == (name, name)
        server.introduce(9)
        assert dom0.next_event(DEADLINE) == ("@introduceDomain", "@introduceDomain")
        server.release(9)
        assert dom0.next_event(DEADLINE) == ("@releaseDomain", "@releaseDomain")

    def test_waiting_ends_after_the_timeout(self, dom0: Client) -> None:
        start = time.monotonic()
        assert dom0.next_event(0.05) is None
        assert 0.05 <= time.monotonic() - start < DEADLINE

    def test_a_wait_without_timeout_ends_with_the_event(self, dom0: Client, guest: Client) -> None:
        guest.watch("data/x", "token")
        events(guest)
        waiting = in_background(lambda: guest.next_event(None))
        dom0.write(f"{DOMAIN}/data/x", b"")
        assert waiting.result(DEADLINE) == WatchEvent("data/x", "token")


class TestConnection:
    def test_connect_where_nothing_is(self, server: XenStoreServer, tmp_path: os.PathLike[str]) -> None:
        with pytest.raises(StoreClosed, match="ENOENT"):
            connect(os.path.join(tmp_path, "missing"))  # noqa: PTH118
        server.stop()
        with pytest.raises(StoreClosed, match="ENOENT"):
            connect(str(server.socket))

    def test_the_daemon_stops(self, server: XenStoreServer, dom0: Client) -> None:
        waiting = in_background(lambda: dom0.next_event(None))
        server.stop()
        with pytest.raises(StoreClosed, match="daemon closed"):
            waiting.result(DEADLINE)
        for act in (lambda: dom0.read("/"), lambda: dom0.next_event(None), lambda: dom0.watch("/", "")):
            with pytest.raises(StoreClosed):
                act()

    def test_watches_end_with_their_connection(self, server: XenStoreServer) -> None:
        path = str(server.introduce(5))
        for _ in range(3):
            with connect(path) as client:
                for number in range(MAX_WATCHES):
                    client.watch("data", str(number))

    def test_closing_twice_does_nothing(self, dom0: Client) -> None:
        dom0.close()
        dom0.close()
        with pytest.raises(StoreClosed, match="this process"):
            dom0.read("/")

    def test_no_descriptor_is_left_behind(self, server: XenStoreServer) -> None:
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        for _ in range(10):
            with connect(str(server.socket)) as client:
                client.read("/")
        with connect(str(server.socket)) as last:
            # Of what was ready before the first request, nothing is left to do when the second is answered.
            last.read("/")
            last.read("/")
            assert len(os.listdir("/proc/self/fd")) <= before + 4  # noqa: PTH208
