from __future__ import annotations

import socket
import struct
import time
from ipaddress import IPv4Interface, IPv6Interface

import pytest

from guest_agent.system import netlink
from guest_agent.system.addresses import interface_addresses
from guest_agent.system.netlink import AddressEvents, Link


def attribute(kind: int, content: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(content), kind) + content + bytes(-len(content) % 4)


def dump(monkeypatch: pytest.MonkeyPatch, *datagrams: bytes) -> None:
    """Let the kernel answer the next requests with these datagrams."""
    ready = list(datagrams)

    class Kernel:
        def __init__(self, *kinds: int) -> None: ...

        def __enter__(self) -> Kernel:
            return self

        def __exit__(self, *exception: object) -> None: ...

        def settimeout(self, seconds: float) -> None: ...

        def send(self, request: bytes) -> None: ...

        def recv(self, size: int) -> bytes:
            return ready.pop(0)

    monkeypatch.setattr(socket, "socket", Kernel)


def message(kind: int, content: bytes, flags: int = 2) -> bytes:
    return struct.pack("=IHHII", 16 + len(content), kind, flags, 1, 0) + content + bytes(-len(content) % 4)


DONE = message(3, bytes(4))


def link(index: int, name: str, device: int, *more: bytes) -> bytes:
    body = struct.pack("=BxHiII", 0, device, index, 0, 0) + attribute(3, name.encode() + b"\0") + b"".join(more)
    return message(16, body)


def test_links(monkeypatch: pytest.MonkeyPatch) -> None:
    mac = attribute(1, bytes.fromhex("00163e000001"))
    bond = attribute(18 | 0x8000, attribute(1, b"bond\0") + attribute(2, b"\0" * 30))
    first = link(1, "lo", 772, attribute(1, bytes(6))) + link(2, "eth0", 1, mac, attribute(10, bytes(4)))
    dump(monkeypatch, first, link(3, "bond0", 1, mac, bond) + message(99, b"else"), DONE)
    assert netlink.links() == [
        Link(1, "lo", "", "", False),
        Link(2, "eth0", "00:16:3e:00:00:01", "", True),
        Link(3, "bond0", "00:16:3e:00:00:01", "bond", False),
    ]


def address(family: int, prefix: int, flags: int, index: int, *more: bytes) -> bytes:
    return message(20, struct.pack("=BBBBI", family, prefix, flags, 0, index) + b"".join(more))


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = socket.inet_aton("192.0.2.5"), socket.inet_aton("192.0.2.1")
    six = socket.inet_pton(socket.AF_INET6, "2001:db8::5")
    dump(
        monkeypatch,
        address(socket.AF_INET, 24, 0x80, 2, attribute(1, other), attribute(2, own))
        + address(socket.AF_INET6, 64, 0x40, 2, attribute(1, six))
        + address(socket.AF_INET6, 64, 0x08, 3, attribute(1, six))
        + address(socket.AF_INET, 24, 0, 4)
        + address(77, 24, 0, 4, attribute(1, own))
        + DONE,
    )
    assert [(found.index, found.address, found.usable, found.permanent) for found in netlink.addresses()] == [
        (2, IPv4Interface("192.0.2.5/24"), True, True),
        (2, IPv6Interface("2001:db8::5/64"), True, False),
        (3, IPv6Interface("2001:db8::5/64"), False, False),
    ]


def test_a_list_that_changed_while_it_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = message(3, bytes(4), flags=0x10)
    dump(monkeypatch, link(1, "old", 1), changed, link(1, "new", 1), DONE)
    assert [found.name for found in netlink.links()] == ["new"]
    dump(monkeypatch, *[changed] * 10)
    with pytest.raises(BlockingIOError):
        netlink.links()


def test_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    dump(monkeypatch, message(2, struct.pack("=i", -1) + bytes(16)))
    with pytest.raises(PermissionError):
        netlink.links()
    dump(monkeypatch, message(2, struct.pack("=i", -1) + bytes(16)))
    assert interface_addresses() == []


def test_this_machine() -> None:
    # Any Linux has a loopback interface, up or down.
    names = dict(socket.if_nameindex())
    assert {found.index: found.name for found in netlink.links()} == names
    assert all(found.index in names for found in netlink.addresses())


def test_nothing_happens() -> None:
    with AddressEvents() as events:
        started = time.monotonic()
        while events.wait(0.05):
            assert time.monotonic() - started < 10, "this machine's addresses never come to rest"
