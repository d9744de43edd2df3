"""The addresses of Linux's network interfaces, without starting a program."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

_SIOCGIFADDR = 0x8915
"""The ioctl that gives an interface's first IPv4 address (linux/sockios.h), as netdevice(7) describes it."""

_IFREQ = struct.Struct("16s24x")
"""struct ifreq: the interface's name, and room for the answer."""

_ADDRESS_OFFSET = 20
"""Where a sockaddr_in's address lies in an ifreq: behind the name (16), its family (2) and port (2)."""

_IF_INET6 = Path("/proc/net/if_inet6")
"""proc(5): one line for each IPv6 address, with address, index, prefix, scope, flags, interface."""

_LINK_LOCAL, _LOOPBACK = "20", "10"
"""Scopes in _IF_INET6, in hex (IPV6_ADDR_LINKLOCAL, IPV6_ADDR_LOOPBACK of the kernel's net/ipv6.h)."""


def interface_addresses() -> Sequence[Mapping[str, str]]:
    """`interface` and `address` of each; without the loopback ones, and without IPv6's link-local ones."""
    return [{"interface": name, "address": address} for name, address in [*_ipv4(), *_ipv6()]]


def _ipv4() -> list[tuple[str, str]]:
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            # An interface without an address, or one that is gone by now.
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(asking, _SIOCGIFADDR, _IFREQ.pack(name.encode()))
                address = socket.inet_ntoa(answer[_ADDRESS_OFFSET : _ADDRESS_OFFSET + 4])
                if not address.startswith("127."):
                    found.append((name, address))
    return found


def _ipv6() -> list[tuple[str, str]]:
    try:
        lines = _IF_INET6.read_text("ascii").splitlines()
    except OSError:
        return []  # a kernel without IPv6
    found = []
    for address, _, _, scope, _, name in (line.split() for line in lines):
        if scope not in (_LINK_LOCAL, _LOOPBACK):
            found.append((name, socket.inet_ntop(socket.AF_INET6, bytes.fromhex(address))))
    return found
