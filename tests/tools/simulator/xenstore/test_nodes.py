"""Nodes over the wire: values, children, parents, removal, errors, quotas."""

from __future__ import annotations

import struct
import uuid
from typing import Callable

import pytest

from tests.tools.simulator.xenstore import client as c
from tests.tools.simulator.xenstore.client import Client, Refused

Guest = Callable[[int], Client]


def refused(errno: str):
    return pytest.raises(Refused, match=f"^{errno}$")


def test_any_value_is_read_back_as_it_was_written(dom0: Client) -> None:
    for value in (b"", b"x", b"a\0b\0", bytes(range(256)), b"v" * 2048):
        dom0.write("/some/where/deep", value)
        assert dom0.read("/some/where/deep") == value
    assert dom0.list("/some") == ["where"]
    assert dom0.read("/some") == b""


def test_a_fresh_store_holds_what_the_real_one_does(dom0: Client) -> None:
    assert dom0.list("/") == ["tool"]
    assert dom0.list("/tool") == ["xenstored"]
    assert dom0.list("/tool/xenstored") == []
    assert dom0.perms("/") == ["n0"]


def test_mkdir_keeps_what_exists(dom0: Client) -> None:
    dom0.write("/a/b", b"value")
    dom0.mkdir("/a/b")
    dom0.mkdir("/a/c/d")
    assert dom0.read("/a/b") == b"value"
    assert dom0.list("/a") == ["b", "c"]
    assert dom0.read("/a/c/d") == b""


def test_rm_takes_everything_below(dom0: Client) -> None:
    dom0.write("/a/b/c", b"1")
    dom0.write("/a/d", b"2")
    dom0.rm("/a/b")
    assert dom0.list("/a") == ["d"]
    for path in ("/a/b", "/a/b/c"):
        with refused("ENOENT"):
            dom0.read(path)


def test_rm_of_what_is_missing(dom0: Client) -> None:
    dom0.mkdir("/a")
    dom0.rm("/a/missing")
    with refused("ENOENT"):
        dom0.rm("/a/missing/deeper")
    with refused("EINVAL"):
        dom0.rm("/")


def test_what_is_missing_is_enoent(dom0: Client) -> None:
    for operation in (c.READ, c.DIRECTORY, c.GET_PERMS):
        with refused("ENOENT"):
            dom0.call(operation, b"/missing\0")
    with refused("ENOENT"):
        dom0.set_perms("/missing", "n0")


def test_relative_paths_start_at_home(dom0: Client, guest: Guest) -> None:
    seven = guest(7)
    seven.write("data/x", b"mine")
    assert dom0.read("/local/domain/7/data/x") == b"mine"
    assert seven.read("/local/domain/7/data/x") == b"mine"
    dom0.write("own", b"zero")
    assert dom0.read("/local/domain/0/own") == b"zero"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "//",
        "/a/",
        "a/",
        "/a//b",
        "/a b",
        "/a.b",
        "/a\n",
        "/é",
        "@introduceDomain",
        "@x",
        "/" + "a" * 1024,
        "a" * 1025,
        "/local/domain/0/" + "a" * 1025,
        "/" + "a" * 3072,
        "a" * 2049,
    ],
)
def test_illegal_paths_are_einval(dom0: Client, path: str) -> None:
    for operation, rest in (
        (c.READ, b""),
        (c.DIRECTORY, b""),
        (c.DIRECTORY_PART, b"0\0"),
        (c.GET_PERMS, b""),
        (c.WRITE, b"value"),
        (c.MKDIR, b""),
        (c.RM, b""),
        (c.SET_PERMS, b"n0\0"),
    ):
        with refused("EINVAL"):
            dom0.call(operation, path.encode() + b"\0" + rest)


def test_the_longest_paths_are_legal(dom0: Client) -> None:
    for path in ("/" + "a" * 1023, "a" * 1024, "/local/domain/0/" + "c" * 1024, "/" + "/".join("b" * 512)):
        dom0.write(path, b"far")
        assert dom0.read(path) == b"far"
    dom0.rm("/b")
    with refused("ENOENT"):
        dom0.read("/b")


@pytest.mark.parametrize(
    ("operation", "payload"),
    [
        (c.READ, b""),
        (c.READ, b"/tool"),
        (c.READ, b"/tool\0/tool\0"),
        (c.WRITE, b"/tool"),
        (c.WRITE, b""),
        (c.MKDIR, b"/tool"),
        (c.RM, b"/tool"),
        (c.DIRECTORY_PART, b"/tool\0"),
        (c.DIRECTORY_PART, b"/tool\0x\0"),
        (c.SET_PERMS, b""),
        (c.SET_PERMS, b"/tool\0"),
        (c.SET_PERMS, b"/tool\0n0"),
        (c.SET_PERMS, b"/tool\0x0\0"),
        (c.SET_PERMS, b"/tool\0n\0"),
        (c.SET_PERMS, b"/tool\0n-1\0"),
        (c.SET_PERMS, b"/tool\0n65536\0"),
        (c.SET_PERMS, b"/tool\0n0\n\0"),
        (c.WATCH, b"/tool\0"),
        (c.WATCH, b"/tool\0token"),
        (c.UNWATCH, b"/tool\0"),
        (c.TRANSACTION_END, b"T\0"[:1]),
        (c.INTRODUCE, b"5\0"),
        (c.INTRODUCE, b"0\x001\x001\0"),
        (c.INTRODUCE, b"32752\x001\x001\0"),
        (c.RELEASE, b"0\0"),
        (c.RELEASE, b"x\0"),
        (c.IS_DOMAIN_INTRODUCED, b"\0"),
        (c.GET_DOMAIN_PATH, b"x\0"),
        (c.GET_DOMAIN_PATH, b""),
    ],
)
def test_malformed_payloads_are_einval(dom0: Client, operation: int, payload: bytes) -> None:
    with refused("EINVAL"):
        dom0.call(operation, payload)


@pytest.mark.parametrize("operation", [0, c.WATCH_EVENT, c.ERROR, c.RESUME, c.SET_TARGET, 20, 23, 0xFFFFFFFF])
def test_what_is_not_served_is_enosys(dom0: Client, operation: int) -> None:
    with refused("ENOSYS"):
        dom0.call(operation, b"1\0")


def test_ids_are_echoed(dom0: Client) -> None:
    dom0.send(c.READ, b"/tool\0", request=0xFFFFFFFF)
    assert dom0.receive() == (c.READ, 0xFFFFFFFF, 0, b"")
    dom0.send(c.READ, b"/tool\0", request=7, transaction=0xABCDEF01)
    assert dom0.receive() == (c.ERROR, 7, 0xABCDEF01, b"ENOENT\0")


def test_a_large_value_is_refused_for_everybody(dom0: Client, guest: Guest) -> None:
    dom0.write("/big", b"v" * 2048)
    for client, path in ((dom0, "/big"), (guest(3), "data/big")):
        with refused("E2BIG"):
            client.write(path, b"v" * 2049)
    assert dom0.read("/big") == b"v" * 2048


def test_the_largest_value_of_a_guest_is_the_measured_one(guest: Guest) -> None:
    client = guest(3)
    client.write("data/big", b"v" * 2015)
    with refused("ENOSPC"):
        client.write("data/big", b"v" * 2016)
    assert client.read("data/big") == b"v" * 2015


def test_a_guests_directory_holds_as_many_names_as_the_real_one(dom0: Client, guest: Guest) -> None:
    client = guest(3)
    for _ in range(54):
        client.write(f"data/{uuid.uuid4()}", b"")
    with refused("ENOSPC"):
        client.write(f"data/{uuid.uuid4()}", b"")
    with refused("ENOSPC"):
        client.write("data", b"v" * 100)
    dom0.write(f"/local/domain/3/data/{uuid.uuid4()}", b"")
    assert len(client.list("data")) == 55


def test_a_guest_owns_a_thousand_nodes_at_most(dom0: Client, guest: Guest) -> None:
    client = guest(3)
    # `data` itself is one of them.
    for number in range(9):
        client.write(f"data/{number}/" + "/".join("x" * 99), b"")
        client.mkdir(f"data/{number}/" + "/".join("y" * 10))
    owned = 1 + 9 * (1 + 99 + 10)
    client.mkdir("data/" + "/".join("z" * (999 - owned)))
    with refused("ENOSPC"):
        client.mkdir("data/more/than-fits")
    client.mkdir("data/last")
    with refused("ENOSPC"):
        client.write("data/one-more", b"")
    # dom0 may, and what it writes below the guest's directory is the guest's and counts.
    dom0.write("/local/domain/3/data/request", b"")
    assert dom0.perms("/local/domain/3/data/request") == ["n3"]
    client.write("data/request", b"existing nodes can be changed")
    client.rm("data/last")
    with refused("ENOSPC"):
        client.write("data/one-more", b"")
    client.rm("data/0")
    client.write("data/one-more", b"")


def test_quotas_of_guests_are_separate(dom0: Client, guest: Guest) -> None:
    three, four = guest(3), guest(4)
    for name in ("x", "y", "z"):
        three.write("data/" + "/".join(name * 333), b"")
    with refused("ENOSPC"):
        three.write("data/more", b"")
    four.write("data/more", b"")
    # Given away, the nodes count for somebody else.
    dom0.set_perms("/local/domain/3/data/x", "n0")
    three.write("data/more", b"")


def test_a_long_directory_is_read_in_parts(dom0: Client) -> None:
    names = [f"{number:04d}-{'n' * 30}" for number in range(300)]
    for name in names:
        dom0.write(f"/long/{name}", b"")
    with refused("E2BIG"):
        dom0.list("/long")
    listing, generations, parts = b"", set(), 0
    while not (listing == b"\0" or listing.endswith(b"\0\0")):
        part = dom0.call(c.DIRECTORY_PART, b"/long\0%d\0" % len(listing))
        generation, _, rest = part.partition(b"\0")
        generations.add(generation)
        listing += rest
        parts += 1
    assert [name.decode() for name in listing.split(b"\0")[:-2]] == names
    assert parts == 3
    assert len(generations) == 1
    dom0.rm(f"/long/{names[0]}")
    after, _, rest = dom0.call(c.DIRECTORY_PART, b"/long\x00999999\0").partition(b"\0")
    assert after not in generations
    assert rest == b"\0"


def test_a_directory_part_can_fill_its_packet(dom0: Client) -> None:
    # Names of which the last ends just before, at and just behind the end of the packet.
    generation = dom0.call(c.DIRECTORY_PART, b"/tool\x000\0").partition(b"\0")[0]
    for extra in range(-12, 13):
        dom0.rm("/tool/xenstored")
        dom0.mkdir("/tool/xenstored")
        length = 4094 - 4 * 900 - len(generation) + extra
        for name in "abcd":
            dom0.mkdir("/tool/xenstored/" + name * 899)
        dom0.mkdir("/tool/xenstored/" + "e" * length)
        part = dom0.call(c.DIRECTORY_PART, b"/tool/xenstored\x000\0")
        names = part.split(b"\0")[1:-1]
        assert names[0] == b"a" * 899
        complete = names[-1] == b""
        assert (names[4] == b"e" * length) if complete else (len(names) == 4)


def test_a_packet_can_be_4096_bytes_and_no_more(dom0: Client) -> None:
    with refused("E2BIG"):
        dom0.call(c.WRITE, b"/x\0" + b"v" * 4093)
    dom0.socket.sendall(struct.pack("<IIII", c.WRITE, 1, 0, 4097))
    assert dom0.closed_by_server()
