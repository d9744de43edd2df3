"""Transactions: what all daemons promise, and where the two real ones differ."""

from __future__ import annotations

from typing import Callable

import pytest

from agent_protocol.xenstore import Client, WatchEvent, connect
from tests.contract.environments import Environment
from tests.contract.xenstore.support import HOME, VM, code, events
from tools.simulator.xenstore.server import StoreServer


def test_nothing_is_seen_before_the_commit_and_nothing_after_an_abort(dom0: Client, server: StoreServer) -> None:
    dom0.write("/a", b"before")
    with connect(str(server.socket)) as other:
        other.watch("/a", "t")
        events(other)
        for number, end in enumerate(("abort", "commit")):
            transaction = dom0.transaction()
            transaction.write("/a", b"after")
            transaction.write("/a/new", b"")
            assert transaction.read("/a") == b"after"
            assert other.read("/a") == dom0.read("/a") == b"before"
            assert events(other) == []
            assert getattr(transaction, end)() is (True if end == "commit" else None), number
        assert other.read("/a") == b"after"
        assert set(events(other)) == {WatchEvent("/a", "t"), WatchEvent("/a/new", "t")}


CONFLICTS = [
    (lambda t: t.read("/a/b"), lambda client: client.write("/a/b", b"theirs")),
    (lambda t: t.read("/a/b"), lambda client: client.remove("/a/b")),
    (lambda t: t.read("/a/b"), lambda client: client.remove("/a")),
    (lambda t: (t.read("/a/b"), t.write("/a/b", b"mine")), lambda client: client.write("/a/b", b"theirs")),
    (lambda t: (t.read("/a/b"), t.remove("/a/b")), lambda client: client.write("/a/b", b"theirs")),
    (lambda t: (t.read("/a/b"), t.remove("/a/b")), lambda client: client.remove("/a/b")),
]


@pytest.mark.parametrize("number", range(len(CONFLICTS)))
def test_what_a_transaction_read_and_somebody_changed_is_a_conflict(
    dom0: Client, server: StoreServer, number: int
) -> None:
    inside, outside = CONFLICTS[number]
    dom0.write("/a/b", b"value")
    transaction = dom0.transaction()
    inside(transaction)
    transaction.write("/elsewhere", b"")
    with connect(str(server.socket)) as other:
        outside(other)
    assert not transaction.commit()
    assert code(dom0.read, "/elsewhere") == "ENOENT"


def test_what_a_transaction_did_not_look_at_is_no_conflict(dom0: Client, server: StoreServer) -> None:
    for path in ("/a/b", "/c/d"):
        dom0.write(path, b"")
    transaction = dom0.transaction()
    transaction.read("/a/b")
    transaction.write("/a/b", b"1")
    with connect(str(server.socket)) as other:
        other.write("/c/d", b"2")
        other.write("/c/e", b"3")
    assert transaction.commit()
    assert dom0.read("/a/b") == b"1"
    assert dom0.read("/c/e") == b"3"


def test_a_change_on_a_node_that_nobody_read_conflicts_or_wins(
    dom0: Client, server: StoreServer, environment: Environment
) -> None:
    dom0.write("/a/b", b"value")
    transaction = dom0.transaction()
    transaction.write("/a/b", b"mine")
    with connect(str(server.socket)) as other:
        other.write("/a/b", b"theirs")
    assert transaction.commit() is not environment.manners.sees_blind_conflicts
    assert dom0.read("/a/b") == (b"theirs" if environment.manners.sees_blind_conflicts else b"mine")


def test_whether_a_transaction_sees_what_changed_before_it_looked(
    dom0: Client, server: StoreServer, environment: Environment
) -> None:
    dom0.write("/a", b"old")
    transaction = dom0.transaction()
    with connect(str(server.socket)) as other:
        other.write("/a", b"new")
        assert transaction.read("/a") == (b"old" if environment.manners.snapshot else b"new")
    transaction.abort()


@pytest.mark.parametrize("what", ["claim", "reply", "vm", "request"])
def test_a_request_is_withdrawn_only_if_the_guest_left_it_alone(dom0: Client, guest: Client, what: str) -> None:
    """What the plugin reads before it withdraws: whatever of it changes, the transaction must fail, also where a node
    appears that was missing. (oxenstored alone sees this only because the other reads have succeeded.)"""
    request, reply, claim = (f"{HOME}/data/{name}/{VM}" for name in ("host", "guest", "xenward/claims"))
    dom0.write(request, b"request")
    transaction = dom0.transaction()
    assert transaction.read(f"{HOME}/vm") == f"/vm/{VM}".encode()
    assert not transaction.exists(reply)
    assert transaction.exists(request)
    assert not transaction.exists(claim)
    transaction.remove(request)
    if what == "claim":
        guest.write(f"data/xenward/claims/{VM}", b"")
    elif what == "reply":
        guest.write(f"data/guest/{VM}", b"reply")
    elif what == "request":
        guest.remove(f"data/host/{VM}")
    else:
        dom0.write(f"{HOME}/vm", b"/vm/another")
    assert not transaction.commit()


def test_a_client_that_dies_in_a_transaction_leaves_nothing(
    dom0: Client, guest: Client, server: StoreServer, introduce: Callable[[int], Client], environment: Environment
) -> None:
    guest.write("data/x", b"before")
    for _ in range(3 * environment.limits.transactions):
        for dying, path in ((introduce(3), "data/x"), (connect(str(server.socket)), f"{HOME}/data/x")):
            transaction = dying.transaction()
            transaction.read(path)
            transaction.write(path, b"after")
            dying.close()
            assert guest.read("data/x") == dom0.read(f"{HOME}/data/x") == b"before"
    transaction = guest.transaction()
    transaction.write("data/x", b"by somebody else")
    assert transaction.commit()


def test_transactions_belong_to_their_connection_and_end_once(
    dom0: Client, guest: Client, server: StoreServer, introduce: Callable[[int], Client], environment: Environment
) -> None:
    unknown = environment.manners.unknown_transaction
    transaction = dom0.transaction()
    with connect(str(server.socket)) as other:
        transaction._client = other
        assert code(transaction.read, "/tool") == unknown
    transaction._client = dom0
    transaction.abort()
    assert code(transaction.read, "/tool") == unknown
    # Between the clients of one guest its kernel keeps order.
    of_guest = guest.transaction()
    of_guest._client = introduce(3)
    assert code(of_guest.read, "data") == "ENOENT"


def test_a_guests_transactions_are_counted(
    guest: Client, introduce: Callable[[int], Client], environment: Environment
) -> None:
    other = introduce(3)
    open_ones = [client.transaction() for client in [guest, other] * 5]
    open_ones += [guest.transaction() for _ in range(environment.limits.transactions - 10)]
    for client in (guest, other):
        assert code(client.transaction) == environment.limits.quota_code
    open_ones[0].abort()
    other.transaction()
