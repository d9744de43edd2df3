"""Transactions: isolated until the commit, which notices what changed meanwhile."""

from __future__ import annotations

from typing import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tools.simulator.xenstore import client as c
from tests.tools.simulator.xenstore.client import Client, Refused
from tools.simulator.xenstore.errors import StoreError
from tools.simulator.xenstore.permissions import Permission
from tools.simulator.xenstore.server import XenStoreServer
from tools.simulator.xenstore.transactions import Transaction
from tools.simulator.xenstore.tree import Node, Tree

Guest = Callable[[int], Client]


def refused(errno: str):
    return pytest.raises(Refused, match=f"^{errno}$")


def test_nothing_is_seen_before_the_commit(dom0: Client, server: XenStoreServer, connect) -> None:
    other = connect(server.socket)
    dom0.write("/a", b"before")
    transaction = dom0.begin()
    dom0.write("/a", b"after", transaction)
    dom0.mkdir("/b/c", transaction)
    dom0.set_perms("/b", "r0", transaction=transaction)
    assert dom0.read("/a", transaction) == b"after"
    assert other.read("/a") == dom0.read("/a") == b"before"
    other.write("/tool/x", b"y")
    dom0.end(transaction)
    assert other.read("/a") == b"after"
    assert other.perms("/b") == ["r0"]
    assert other.read("/tool/x") == b"y"


def test_an_aborted_transaction_leaves_nothing(dom0: Client) -> None:
    transaction = dom0.begin()
    dom0.write("/a", b"x", transaction)
    dom0.end(transaction, commit=False)
    with refused("ENOENT"):
        dom0.read("/a")
    with refused("ENOENT"):
        dom0.read("/tool", transaction)


def test_a_transaction_sees_the_store_as_it_was(dom0: Client) -> None:
    dom0.write("/a", b"1")
    transaction = dom0.begin()
    dom0.write("/a", b"2")
    assert dom0.read("/a", transaction) == b"1"


@pytest.mark.parametrize(
    "inside",
    [
        lambda client, t: client.read("/a/b", t),
        lambda client, t: client.list("/a/b", t),
        lambda client, t: client.write("/a/b", b"mine", t),
        lambda client, t: client.rm("/a", t),
        lambda client, t: client.set_perms("/a/b", "r0", transaction=t),
    ],
)
@pytest.mark.parametrize(
    "outside",
    [
        lambda client: client.write("/a/b", b"theirs"),
        lambda client: client.write("/a/b/new", b""),
        lambda client: client.rm("/a/b"),
        lambda client: client.rm("/a"),
        lambda client: client.set_perms("/a/b", "b0"),
        lambda client: (client.rm("/a/b"), client.write("/a/b", b"value")),
    ],
)
def test_a_conflict_is_eagain_and_changes_nothing(dom0: Client, inside, outside) -> None:
    dom0.write("/a/b", b"value")
    transaction = dom0.begin()
    inside(dom0, transaction)
    dom0.write("/elsewhere", b"", transaction)
    outside(dom0)
    with refused("EAGAIN"):
        dom0.end(transaction)
    with refused("ENOENT"):
        dom0.read("/elsewhere")
    with refused("ENOENT"):
        dom0.end(transaction)


def test_what_was_missing_and_appears_is_a_conflict(dom0: Client) -> None:
    transaction = dom0.begin()
    with refused("ENOENT"):
        dom0.read("/a/b/c", transaction)
    dom0.write("/a", b"")
    with refused("EAGAIN"):
        dom0.end(transaction)


def test_what_was_not_looked_at_is_no_conflict(dom0: Client) -> None:
    dom0.write("/a/b", b"")
    dom0.write("/c/d", b"")
    transaction = dom0.begin()
    dom0.write("/a/b", b"1", transaction)
    dom0.read("/a", transaction)
    dom0.write("/c/d", b"2")
    dom0.write("/c/e", b"3")
    dom0.rm("/c/d")
    dom0.end(transaction)
    assert dom0.read("/a/b") == b"1"
    assert dom0.list("/c") == ["e"]


def test_malformed_and_unknown(dom0: Client) -> None:
    transaction = dom0.begin()
    with refused("EBUSY"):
        dom0.call(c.TRANSACTION_START, b"\0", transaction)
    for payload in (b"", b"T", b"X\0", b"T\0T\0"):
        with refused("EINVAL"):
            dom0.call(c.TRANSACTION_END, payload, transaction)
    dom0.end(transaction)
    for client_call in (c.READ, c.TRANSACTION_END):
        with refused("ENOENT"):
            dom0.call(client_call, b"T\0", transaction)
    with refused("ENOENT"):
        dom0.call(c.TRANSACTION_END, b"T\0")


def test_transactions_belong_to_their_connection(dom0: Client, server: XenStoreServer, connect) -> None:
    transaction = dom0.begin()
    with refused("ENOENT"):
        connect(server.socket).read("/tool", transaction)


def test_a_guest_has_ten_over_all_its_connections(server: XenStoreServer, guest: Guest, connect) -> None:
    first = guest(3)
    second = connect(server.introduce(3))
    open_transactions = [first.begin() for _ in range(6)]
    for _ in range(4):
        second.begin()
    for client in (first, second):
        with refused("ENOSPC"):
            client.begin()
    guest(4).begin()
    first.end(open_transactions[0])
    second.begin()
    with refused("ENOSPC"):
        first.begin()
    # Those of a connection that ends are gone. It ends when the daemon notices, so watch the quota, not the clock.
    second.socket.shutdown(1)
    assert second.closed_by_server()
    for _ in range(5):
        first.begin()
    with refused("ENOSPC"):
        first.begin()


def test_the_requests_in_a_guests_transaction_are_bounded(guest: Guest) -> None:
    client = guest(3)
    transaction = client.begin()
    for _ in range(1024):
        client.write("data/x", b"", transaction)
    with refused("ENOSPC"):
        client.write("data/x", b"", transaction)
    client.end(transaction)
    assert client.read("data/x") == b""


def test_the_node_quota_holds_at_the_commit(dom0: Client, guest: Guest) -> None:
    client = guest(3)
    client.mkdir("data/a")
    client.mkdir("data/b")
    transaction = client.begin()
    for number in range(2):
        client.write(f"data/a/{number}/" + "/".join("x" * 300), b"", transaction)
        client.write(f"data/b/{number}/" + "/".join("x" * 300), b"")
    with refused("ENOSPC"):
        client.end(transaction)
    assert client.list("data/a") == []


PATHS = st.sampled_from(["/a", "/a/b", "/a/b/c", "/a/d", "/e", "/e/b"])
OPERATIONS = st.one_of(
    st.tuples(st.just("write"), PATHS, st.binary(max_size=2)),
    st.tuples(st.just("make_directory"), PATHS),
    st.tuples(st.just("remove"), PATHS),
    st.tuples(st.just("readable"), PATHS),
    st.tuples(st.just("set_permissions"), PATHS, st.sampled_from([(Permission("n", 1),), (Permission("b", 2),)])),
)


def outcome(tree: Tree, operation: tuple, caller: int = 0) -> object:
    try:
        result = getattr(tree, operation[0])(caller, *operation[1:])
    except StoreError as error:
        return error.errno
    return (result.value, result.permissions, list(result.children)) if isinstance(result, Node) else None


def contents(node: Node) -> object:
    return node.value, node.permissions, {name: contents(child) for name, child in node.children.items()}


def counted(node: Node, domid: int) -> int:
    return (node.permissions[0].domid == domid) + sum(counted(child, domid) for child in node.children.values())


@given(st.lists(OPERATIONS), st.lists(OPERATIONS), st.lists(OPERATIONS))
def test_a_commit_is_as_good_as_doing_it_all_at_the_end(before: list, inside: list, meanwhile: list) -> None:
    tree = Tree()
    for operation in before:
        outcome(tree, operation)
    transaction = Transaction(tree, 0)
    seen = []
    for operation in inside:
        if operation[0] == "readable":
            seen.append(outcome(transaction.view, operation))
            continue
        try:
            transaction.mutate(lambda tree, operation=operation: getattr(tree, operation[0])(0, *operation[1:]))
            seen.append(None)
        except StoreError as error:
            seen.append(error.errno)
    for operation in meanwhile:
        outcome(tree, operation)
    untouched = tree.root
    serial = tree.fork()
    expected = [outcome(serial, operation) for operation in inside]
    try:
        transaction.commit()
    except StoreError as error:
        assert error.errno == "EAGAIN"
        assert meanwhile
        assert tree.root is untouched
    else:
        assert seen == expected
        assert contents(tree.root) == contents(serial.root)
    for domid in (1, 2):
        assert tree.owned_by(domid) == counted(tree.root, domid)
