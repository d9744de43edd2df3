"""What the kernel tells about its network interfaces and their addresses through rtnetlink(7), without any program."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface

_HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr of netlink(7): length, type, flags, sequence number, port."""

_ATTRIBUTE = struct.Struct("=HH")
"""struct rtattr of rtnetlink(7): length, type."""

_LINK = struct.Struct("=BxHiII")
"""struct ifinfomsg: family, type of device, index, flags, mask."""

_ADDRESS = struct.Struct("=BBBBI")
"""struct ifaddrmsg: family, length of the prefix, flags, scope, index."""

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP_INTR, _NLM_F_DUMP = 0x1, 0x10, 0x300
_RTM_NEWLINK, _RTM_GETLINK, _RTM_NEWADDR, _RTM_GETADDR = 16, 18, 20, 22
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 10, 18
_IFLA_INFO_KIND = 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x10, 0x100
_ARPHRD_ETHER = 1
_IFA_F_DADFAILED, _IFA_F_PERMANENT = 0x08, 0x80
"""All numbers are those of linux/netlink.h, rtnetlink.h, if_link.h, if_addr.h and if_arp.h."""

_TYPE_MASK = 0x3FFF
"""NLA_TYPE_MASK: the two bits above an attribute's type say how it is coded."""

_RECEIVED = 65536
"""Bytes for one datagram; the kernel fills at most 32 KiB."""

_SECONDS = 5.0
"""How long the kernel may take to answer, which it does at once."""

_DUMPS = 10
"""How often a list is asked for that changed while it was read."""


@dataclass(frozen=True)
class Link:
    """A network interface. mac: lower case with colons, empty when it is no Ethernet.

    kind: what the kernel made it as, such as `vlan`; empty for hardware. enslaved: whether it is part of another one,
    such as a bond, which has its addresses.
    """

    index: int
    name: str
    mac: str
    kind: str
    enslaved: bool


@dataclass(frozen=True)
class LinkAddress:
    """An address of the interface with this index.

    usable: false when another machine was found to have the address. permanent: whether it stays until it is removed.
    """

    index: int
    address: IPv4Interface | IPv6Interface
    usable: bool
    permanent: bool


def links() -> list[Link]:
    """All interfaces of the agent's network namespace. OSErrors as they come."""
    found = []
    for payload in _dump(_RTM_GETLINK, _RTM_NEWLINK, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        _, device, index, _, _ = _LINK.unpack_from(payload)
        attributes = dict(_attributes(payload[_LINK.size :]))
        mac = attributes.get(_IFLA_ADDRESS, b"") if device == _ARPHRD_ETHER else b""
        details = dict(_attributes(attributes.get(_IFLA_LINKINFO, b"")))
        name, kind = (
            text.rstrip(b"\0").decode("utf-8", "replace")
            for text in (attributes.get(_IFLA_IFNAME, b""), details.get(_IFLA_INFO_KIND, b""))
        )
        found.append(Link(index, name, mac.hex(":"), kind, _IFLA_MASTER in attributes))
    return found


def addresses() -> list[LinkAddress]:
    """All addresses of all interfaces. OSErrors as they come."""
    found = []
    for payload in _dump(_RTM_GETADDR, _RTM_NEWADDR, _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        family, prefix, flags, _, index = _ADDRESS.unpack_from(payload)
        attributes = dict(_attributes(payload[_ADDRESS.size :]))
        # Where the two differ, IFA_ADDRESS is the other end of a point-to-point link.
        raw = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
        if raw is None or family not in (socket.AF_INET, socket.AF_INET6):
            continue
        address = IPv4Interface((raw, prefix)) if family == socket.AF_INET else IPv6Interface((raw, prefix))
        found.append(LinkAddress(index, address, not flags & _IFA_F_DADFAILED, bool(flags & _IFA_F_PERMANENT)))
    return found


class AddressEvents:
    """Tells of every change of an address since it was made. OSErrors as they come."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self._socket.bind((0, _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))

    def __enter__(self) -> AddressEvents:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def wait(self, timeout: float) -> bool:
        """Until something changed that was not told yet, at most `timeout` seconds; whether something did."""
        if not select.select([self._socket], [], [], max(timeout, 0))[0]:
            return False
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    self._socket.recv(_RECEIVED)
                except OSError as error:
                    # More changes than the kernel keeps for one listener: a change, whichever.
                    if error.errno != errno.ENOBUFS:
                        raise
        return True


def _dump(request: int, answer: int, body: bytes) -> list[bytes]:
    for _ in range(_DUMPS):
        payloads = []
        changed = False
        for kind, flags, payload in _ask(request, body):
            changed = changed or bool(flags & _NLM_F_DUMP_INTR)
            if kind == answer:
                payloads.append(payload)
        if not changed:
            return payloads
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _ask(request: int, body: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, flags and content of each message of the kernel's answer."""
    deadline = time.monotonic() + _SECONDS
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asking:
        asking.send(_HEADER.pack(_HEADER.size + len(body), request, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0) + body)
        while True:
            asking.settimeout(max(deadline - time.monotonic(), 0.001))
            rest = asking.recv(_RECEIVED)
            while len(rest) >= _HEADER.size:
                length, kind, flags, _, _ = _HEADER.unpack_from(rest)
                payload = rest[_HEADER.size : length]
                if kind == _NLMSG_ERROR:
                    number = -struct.unpack_from("=i", payload)[0]
                    raise OSError(number, os.strerror(number))
                yield kind, flags, payload
                if kind == _NLMSG_DONE:
                    return
                rest = rest[_aligned(length) :]


def _attributes(rest: bytes) -> Iterator[tuple[int, bytes]]:
    while len(rest) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(rest)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, rest[_ATTRIBUTE.size : length]
        rest = rest[_aligned(length) :]


def _aligned(length: int) -> int:
    """Messages and attributes begin at multiples of four bytes (NLMSG_ALIGNTO, RTA_ALIGNTO)."""
    return max((length + 3) & ~3, 4)
