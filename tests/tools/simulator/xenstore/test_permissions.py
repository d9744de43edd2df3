"""Who may do what: guests are kept apart, as the toolstack's permissions and the daemon's rules have it."""

from __future__ import annotations

from typing import Callable

import pytest

from tests.tools.simulator.xenstore import client as c
from tests.tools.simulator.xenstore.client import Client, Refused

Guest = Callable[[int], Client]


def refused(errno: str):
    return pytest.raises(Refused, match=f"^{errno}$")


def test_a_guest_reads_its_tree_and_writes_its_areas(guest: Guest) -> None:
    client = guest(3)
    assert client.read("name") == b"guest"
    assert client.list("data") == []
    for change in (
        lambda: client.write("name", b"x"),
        lambda: client.write("new", b"x"),
        lambda: client.mkdir("new"),
        lambda: client.rm("name"),
        lambda: client.rm("missing"),
        lambda: client.set_perms("name", "n3"),
    ):
        with refused("EACCES"):
            change()
    assert client.read("name") == b"guest"


@pytest.mark.parametrize(
    "path", ["/local/domain/4", "/local/domain/4/data", "/local/domain/4/data/x", "/", "/tool", "/vm/x"]
)
def test_a_guest_cannot_look_elsewhere_nor_learn_what_exists(dom0: Client, guest: Guest, path: str) -> None:
    three, four = guest(3), guest(4)
    four.write("data/x", b"private")
    for missing in ("", "/missing/deeper"):
        target = path.rstrip("/") + missing or "/"
        for operation, rest in (
            (c.READ, b""),
            (c.DIRECTORY, b""),
            (c.DIRECTORY_PART, b"0\0"),
            (c.GET_PERMS, b""),
            (c.WRITE, b"x"),
            (c.RM, b""),
            (c.SET_PERMS, b"n3\0"),
        ):
            with refused("EACCES"):
                three.call(operation, target.encode() + b"\0" + rest)
        with refused("EACCES"):
            three.call(c.MKDIR, target.encode() + b"/new\0" if target != "/" else b"/new\0")
    assert four.read("data/x") == b"private"
    assert dom0.perms("/local/domain/4/data/x") == ["n4"]


def test_a_guest_owns_what_it_creates_and_dom0_leaves_the_owner(dom0: Client, guest: Guest) -> None:
    client = guest(3)
    dom0.set_perms("/local/domain/3/data", "r0", "b3", "w9")
    client.write("data/a/b", b"")
    assert client.perms("data/a") == client.perms("data/a/b") == ["r3", "b3", "w9"]
    dom0.write("/local/domain/3/data/a/c", b"")
    assert dom0.perms("/local/domain/3/data/a/c") == ["r3", "b3", "w9"]
    dom0.write("/vm/some", b"")
    assert dom0.perms("/vm/some") == ["n0"]


def test_each_letter_grants_what_it_says(dom0: Client, guest: Guest) -> None:
    client = guest(3)
    for letter, reads, writes in (("n", False, False), ("r", True, False), ("w", False, True), ("b", True, True)):
        for perms in (["n0", f"{letter}3"], [f"{letter}0"], [f"{letter}0", "n4"], ["n0", f"{letter}3", "b3"]):
            dom0.write("/shared", b"value")
            dom0.set_perms("/shared", *perms)
            if reads:
                assert client.read("/shared") == b"value"
                assert client.perms("/shared") == perms
            else:
                with refused("EACCES"):
                    client.read("/shared")
            if writes:
                client.write("/shared", b"changed")
                client.mkdir("/shared/child")
                client.rm("/shared")
            else:
                with refused("EACCES"):
                    client.write("/shared", b"changed")
                with refused("EACCES"):
                    client.mkdir("/shared/child")
                with refused("EACCES"):
                    client.rm("/shared")


def test_the_owner_shares_but_cannot_give_away(guest: Guest) -> None:
    three, four = guest(3), guest(4)
    three.write("data/shared", b"value")
    with refused("EACCES"):
        four.read("/local/domain/3/data/shared")
    three.set_perms("data/shared", "n3", "b4")
    assert four.read("/local/domain/3/data/shared") == b"value"
    four.write("/local/domain/3/data/shared", b"changed")
    with refused("EACCES"):
        four.set_perms("/local/domain/3/data/shared", "n4")
    with refused("EPERM"):
        three.set_perms("data/shared", "n4")
    with refused("ENOSPC"):
        three.set_perms("data/shared", "n3", *["r4"] * 5)
    assert three.perms("data/shared") == ["n3", "b4"]


def test_reading_needs_the_node_only_not_the_way_to_it(dom0: Client, guest: Guest) -> None:
    client = guest(3)
    dom0.write("/hidden/open", b"value")
    dom0.set_perms("/hidden/open", "r0")
    assert client.read("/hidden/open") == b"value"
    with refused("ENOENT"):
        client.read("/hidden/open/missing")
    with refused("EACCES"):
        client.read("/hidden/missing")


def test_a_guest_is_refused_what_is_for_dom0(guest: Guest) -> None:
    client = guest(3)
    for operation in (0, c.INTRODUCE, c.RELEASE, c.IS_DOMAIN_INTRODUCED, c.RESUME, c.SET_TARGET):
        with refused("EACCES"):
            client.call(operation, b"3\x001\x001\0")
    assert client.call(c.GET_DOMAIN_PATH, b"3\0") == b"/local/domain/3\0"
    with refused("ENOSYS"):
        client.call(99, b"")
