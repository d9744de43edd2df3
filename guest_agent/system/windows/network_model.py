"""The network of a Windows guest as its agent sees it: adapters, what is configured on them, and how it is changed.

WindowsNetwork is the edge to the operating system. network_windows.py implements it for a running Windows, and the
tests have one that behaves as Windows does. Adapters are addressed by their interface index, which holds until the next
start of the system, and are remembered by their GUID, which holds for ever. Names are for people only: anybody can
change them, and they may have any characters.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface
from typing import Protocol

from ...network.data import Address, InterfaceAddress, Network

IPV4, IPV6 = 4, 6
"""The two protocols, by the `version` of the addresses in the module ipaddress."""

SYSTEM_METRIC = 256
"""The metric of a route that none is asked for: the default of New-NetRoute."""

MAX_METRIC = 9999
"""The largest metric that route.exe and Win32_NetworkAdapterConfiguration.SetGateways take."""


class AddressState(enum.IntEnum):
    """Whether an address can be used: NL_DAD_STATE, which MSFT_NetIPAddress.AddressState tells."""

    INVALID = 0
    TENTATIVE = 1
    DUPLICATE = 2
    DEPRECATED = 3
    PREFERRED = 4


@dataclass(frozen=True)
class Adapter:
    """A network adapter. guid: with braces, upper case. mac: lower case, with colons.

    bound: the protocols that it has addresses of, IPV4 and IPV6; members of teams and of virtual switches have none.
    hardware: whether it is a device, as those of a Xen guest are to Windows, and not made of others.
    hidden: not shown to people, as filters and leftovers are.
    """

    guid: str
    index: int
    mac: str
    name: str
    bound: frozenset[int]
    hardware: bool
    hidden: bool


@dataclass(frozen=True)
class StoredRoute:
    """A route by a gateway."""

    destination: Network
    gateway: Address
    metric: int


@dataclass(frozen=True)
class ProtocolSettings:
    """What is stored for one protocol of an adapter, and so holds after a reboot.

    What a lease brings is no part of it, nor are link-local IPv6 addresses and routes without a gateway, which belong
    to Windows and to other software.

    automatic: for IPv4 whether DHCP is on, which excludes addresses; for IPv6 whether router advertisements are heard,
    which bring addresses and start DHCPv6. dns: empty for what DHCP and advertisements bring. mtu: bytes.
    """

    automatic: bool
    addresses: tuple[InterfaceAddress, ...]
    routes: tuple[StoredRoute, ...]
    dns: tuple[Address, ...]
    mtu: int


@dataclass(frozen=True)
class AdapterSettings:
    """What is stored for an adapter. protocols: by IPV4 and IPV6, those that are bound. suffix: its search domain."""

    protocols: Mapping[int, ProtocolSettings]
    suffix: str


@dataclass(frozen=True)
class Standing:
    """What is in force on an adapter now, leases included. routes: destinations with their gateways."""

    addresses: Mapping[InterfaceAddress, AddressState]
    routes: frozenset[tuple[Network, Address]]


class StateFiles(Protocol):
    """The agent's own files, that nobody else can read. Each write is done or not done, also when power fails."""

    def read_state(self, name: str) -> bytes | None:
        """The content, None when there is no such file. Unsuccessful when it cannot be read."""

    def write_state(self, name: str, content: bytes) -> None:
        """Make this the content. Unsuccessful when that fails."""

    def remove_state(self, name: str) -> None:
        """Remove the file, if it is there. Unsuccessful when that fails."""


class WindowsNetwork(Protocol):
    """The adapters of a running Windows, by interface index. Every change is in force at once and stays after a reboot.

    Failed (`network_failed`) when Windows refuses, does not answer, or there is no such adapter. What it told of a
    change is not relied upon: whoever changes something reads afterwards what came of it.
    """

    def adapters(self) -> Sequence[Adapter]:
        """All that are present, hidden and disabled ones too."""

    def settings(self, index: int) -> AdapterSettings:
        """What is stored for the adapter."""

    def standing(self, index: int) -> Standing:
        """What is in force on it."""

    def use_dhcp(self, index: int) -> None:
        """Switch DHCP for IPv4 on. The static IPv4 addresses go, and so do their gateways."""

    def use_static(self, index: int, address: IPv4Interface | None) -> None:
        """Switch DHCP for IPv4 off, with the first static address if there shall be any. What was leased goes."""

    def hear_advertisements(self, index: int, heard: bool) -> None:
        """Whether IPv6 router advertisements are heard."""

    def add_address(self, index: int, address: InterfaceAddress) -> None:
        """Add a static address. Windows refuses one that any adapter has, and switches DHCP for IPv4 off."""

    def remove_address(self, index: int, address: InterfaceAddress) -> None:
        """Remove a static address."""

    def add_route(self, index: int, route: StoredRoute) -> None:
        """Add a route. Windows refuses a second one to a destination by the same gateway."""

    def remove_route(self, index: int, route: StoredRoute) -> None:
        """Remove a route; its metric is of no importance."""

    def set_dns(self, index: int, version: int, servers: Sequence[Address]) -> None:
        """Make these the DNS servers of that protocol, in this order; none: those of DHCP and advertisements."""

    def set_mtu(self, index: int, version: int, mtu: int) -> None:
        """Set the MTU of a protocol, in bytes."""

    def set_suffix(self, index: int, suffix: str) -> None:
        """Set the adapter's own search domain; empty for none."""

    def search_list(self) -> tuple[str, ...]:
        """The search domains of the whole system. If there are any, those of adapters are not used."""

    def set_search_list(self, domains: Sequence[str]) -> None:
        """Set them."""

    def wait_for_change(self, seconds: float) -> None:
        """Wait until something may have changed, at most that long."""
