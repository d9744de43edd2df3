"""XenStore as xenward relies on it, between dom0 and a guest that runs: values, permissions, watches, transactions.

What needs domains without a guest in them is tried in ../xenstore/.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import pytest

from agent_protocol.xenstore import Client, StoreError, WatchEvent
from tests.contract.environments import GuestEnvironment, children
from tests.contract.xenstore.support import code

from .guest import SECONDS, Channel, Guest

PLACE = "/suite"
"""Where the tests of dom0's own view write."""


@pytest.fixture
def dom0(channel: Channel) -> Iterator[Client]:
    """dom0's connection, with a place of its own."""
    yield channel.store
    if PLACE[1:] in channel.store.directory("/"):
        channel.store.remove(PLACE)


def events(client: Client, last: WatchEvent) -> list[WatchEvent]:
    """What comes, up to the event that must come last."""
    found = []
    while not found or found[-1] != last:
        event = client.next_event(SECONDS)
        assert event is not None, (found, last)
        if event.token != "data":
            found.append(event)
    return found


def test_values_and_parents(dom0: Client) -> None:
    for value in (b"", b"x", b"a\0b\0", bytes(range(256)), b"v" * 2000):
        dom0.write(f"{PLACE}/a/b/c", value)
        assert dom0.read(f"{PLACE}/a/b/c") == value
    assert dom0.read(f"{PLACE}/a/b") == b""
    dom0.mkdir(f"{PLACE}/a/b/c")
    assert dom0.read(f"{PLACE}/a/b/c") == b"v" * 2000
    dom0.remove(f"{PLACE}/a/b")
    assert dom0.directory(f"{PLACE}/a") == []
    assert code(dom0.read, f"{PLACE}/a/b/c") == "ENOENT"
    assert code(dom0.remove, f"{PLACE}/missing/deeper") == "ENOENT"


def test_largest_values(dom0: Client, environment: GuestEnvironment) -> None:
    limits = environment.limits
    if limits.dom0_value is None:
        dom0.write(f"{PLACE}/x", b"v" * (4096 - len(f"{PLACE}/x\0")))
    else:
        dom0.write(f"{PLACE}/x", b"v" * limits.dom0_value)
        assert code(dom0.write, f"{PLACE}/x", b"v" * (limits.dom0_value + 1)) == limits.dom0_value_code


def test_a_long_list_of_names_is_whole(dom0: Client) -> None:
    names = [f"{number:04d}-{'n' * 60}" for number in range(100)]
    for name in names:
        dom0.write(f"{PLACE}/long/{name}", b"")
    assert sorted(dom0.directory(f"{PLACE}/long")) == names


def test_watches_fire_at_once_and_for_all_below(dom0: Client) -> None:
    dom0.write(f"{PLACE}/a/b", b"")
    dom0.watch(f"{PLACE}/a", "t")
    assert events(dom0, WatchEvent(f"{PLACE}/a", "t")) == [WatchEvent(f"{PLACE}/a", "t")]
    assert code(dom0.watch, f"{PLACE}/a", "t") == "EEXIST"
    dom0.write(f"{PLACE}/beside", b"")
    dom0.write(f"{PLACE}/a/b/c", b"")
    dom0.remove(f"{PLACE}/a/b")
    assert events(dom0, WatchEvent(f"{PLACE}/a/b", "t")) == [
        WatchEvent(f"{PLACE}/a/b/c", "t"),
        WatchEvent(f"{PLACE}/a/b", "t"),
    ]
    dom0.unwatch(f"{PLACE}/a", "t")
    assert code(dom0.unwatch, f"{PLACE}/a", "t") == "ENOENT"


def test_a_transaction_is_seen_whole_or_not_at_all(guest: Guest, dom0: Client) -> None:
    dom0.write(f"{PLACE}/a", b"before")
    with guest.home.store() as other:
        for end in ("abort", "commit"):
            transaction = dom0.transaction()
            transaction.write(f"{PLACE}/a", b"after")
            assert other.read(f"{PLACE}/a") == b"before"
            getattr(transaction, end)()
        assert other.read(f"{PLACE}/a") == b"after"


def test_what_a_transaction_read_and_somebody_changed_is_a_conflict(guest: Guest, dom0: Client) -> None:
    dom0.write(f"{PLACE}/a", b"value")
    transaction = dom0.transaction()
    assert not transaction.exists(f"{PLACE}/claim")
    assert transaction.read(f"{PLACE}/a") == b"value"
    transaction.remove(f"{PLACE}/a")
    with guest.home.store() as other:
        other.write(f"{PLACE}/claim", b"")
    assert not transaction.commit()
    assert dom0.read(f"{PLACE}/a") == b"value"


VIEW = """\
def code(action, *arguments):
    try:
        action(*arguments)
        return "done"
    except StoreError as error:
        return error.code
store.write("data/suite/value", b"v" * {largest})
print(len(store.read("data/suite/value")))
print(code(store.write, "data/suite/value", b"v" * {too_large}))
print(store.read("/local/domain/{domid}/data/suite/value") == store.read("data/suite/value"))
print(code(store.read, "data/suite/none"), code(store.remove, "data/suite/none"))
for path in ("name", "vm", "new", "/new", "/vm/new", "/local/domain/0/name", "/tool"):
    print(code(store.write, path, b"x"))
print(code(store.read, "/local/domain/0"), code(store.directory, "/"), code(store.read, "name"))
print(code(store.set_permissions, "data/suite", ["n0"]))
store.watch("data/suite", "t")
first = store.next_event(60)
store.write("data/suite/below", b"")
second = store.next_event(60)
print(first.path, second.path, second.token)
transaction = store.transaction()
transaction.write("data/suite/below", b"changed")
print(store.read("data/suite/below"), transaction.commit(), store.read("data/suite/below"))
store.close()
"""


def test_a_guest_has_its_own_part_and_no_other(guest: Guest, channel: Channel, environment: GuestEnvironment) -> None:
    limits, domid = environment.limits, guest.domid
    script = VIEW.format(domid=domid, largest=limits.guest_value, too_large=limits.guest_value + 1)
    try:
        said = guest.inside.run_client(textwrap.dedent(script)).splitlines()
        assert said[:4] == [str(limits.guest_value), limits.guest_value_code, "True", "ENOENT done"]
        assert set(said[4:11]) <= {"EACCES", "EPERM"}
        assert said[11:] == [
            "EACCES EACCES done",
            environment.manners.gave_away,
            "data/suite data/suite/below t",
            "b'' True b'changed'",
        ]
        # dom0 sees what the guest wrote, and what dom0 makes below it is the guest's.
        path = f"/local/domain/{domid}/data/suite"
        assert channel.store.read(f"{path}/below") == b"changed"
        channel.store.write(f"{path}/made/by/dom0", b"")
        assert channel.store.get_permissions(f"{path}/made/by/dom0")[0] == f"n{domid}"
        channel.store.remove(f"{path}/made")
        assert sorted(children(channel.store, path)) == ["below", "value"]
    finally:
        channel.store.remove(f"/local/domain/{domid}/data/suite")


def test_dom0_sees_who_comes_and_goes(dom0: Client) -> None:
    for name in ("@introduceDomain", "@releaseDomain"):
        dom0.watch(name, name)
        assert events(dom0, WatchEvent(name, name)) == [WatchEvent(name, name)]
    with pytest.raises(StoreError):
        dom0.watch("@introduceDomain", "@introduceDomain")
