"""What a guest's network shall be, independent of how its system keeps it. Impossible data cannot be built."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Union

from agent_protocol.outcomes import Refused

Address = Union[IPv4Address, IPv6Address]
InterfaceAddress = Union[IPv4Interface, IPv6Interface]
Network = Union[IPv4Network, IPv6Network]

MAX_INTERFACES = 16
MAX_ADDRESSES = 64
MAX_ROUTES = 64
MAX_DNS = 8
MAX_SEARCH = 16

MIN_MTU, MAX_MTU = 576, 65535
"""What IPv4 asks of every link (RFC 791) and what its packets can have; an interface with IPv6 needs MIN_MTU6."""

MIN_MTU6 = 1280
"""RFC 8200, section 5."""

DEFAULT4, DEFAULT6 = IPv4Network("0.0.0.0/0"), IPv6Network("::/0")
"""The destinations of default routes."""

METRIC_STEP = 100
"""Between the metrics of default routes through several interfaces."""

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z", re.ASCII)
_DOMAIN = re.compile(
    r"(?=.{1,253}\Z)[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?"
    r"(\.[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?)*\Z",
    re.ASCII,
)


def bad(message: str) -> Refused:
    """The error for data that cannot be a network."""
    return Refused("bad_network_data", message)


@dataclass(frozen=True)
class Route:
    """A way to a destination; 0.0.0.0/0 and ::/0 are the default ways. metric: None for the system's own choice."""

    destination: Network
    gateway: Address
    metric: int | None = None

    def __post_init__(self) -> None:
        if self.destination.version != self.gateway.version:
            raise bad(f"the route to {self.destination} has a gateway of the other family")
        if not _is_unicast(self.gateway):
            raise bad(f"{self.gateway} cannot be a gateway")
        if self.metric is not None and not 0 < self.metric < 2**32 - 1:
            raise bad("a metric is a number from 1 to 4294967294")


@dataclass(frozen=True)
class Interface:
    """One network interface, found by its MAC address (lower case, with colons).

    addresses: static ones with their prefix; dhcp4, dhcp6: whether more are asked for. Each gateway lies in the network
    of a static address, or is IPv6 and link-local, unless DHCP brings addresses of its family. mtu: bytes, None for
    the system's own.
    """

    mac: str
    addresses: tuple[InterfaceAddress, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: tuple[Address, ...] = ()
    search: tuple[str, ...] = ()
    dhcp4: bool = False
    dhcp6: bool = False
    mtu: int | None = None

    def __post_init__(self) -> None:
        if not _MAC.match(self.mac) or int(self.mac[:2], 16) & 1 or self.mac == "00:00:00:00:00:00":
            raise bad("an interface is named by its unicast MAC address, as 00:16:3e:00:00:01")
        _limit(self.addresses, MAX_ADDRESSES, "addresses")
        _limit(self.routes, MAX_ROUTES, "routes")
        _limit(self.dns, MAX_DNS, "DNS servers")
        _limit(self.search, MAX_SEARCH, "search domains")
        for address in self.addresses:
            link_local = address.version == 6 and address.ip.is_link_local
            if link_local or not _is_unicast(address.ip) or _has_scope(address):
                raise bad(f"{address.ip} cannot be the address of an interface")
        if len({address.ip for address in self.addresses}) < len(self.addresses):
            raise bad(f"{self.mac} has an address twice")
        if len({(route.destination, route.metric) for route in self.routes}) < len(self.routes):
            raise bad(f"{self.mac} has two routes to one destination with one metric")
        for route in self.routes:
            self._check_gateway(route.gateway)
        for server in self.dns:
            if server.is_multicast or server.is_unspecified or _has_scope(server):
                raise bad(f"{server} cannot be a DNS server")
        for domain in self.search:
            if not _DOMAIN.match(domain):
                raise bad("a search domain is a DNS name")
        least = MIN_MTU6 if any(address.version == 6 for address in self.addresses) or self.dhcp6 else MIN_MTU
        if self.mtu is not None and not least <= self.mtu <= MAX_MTU:
            raise bad(f"the MTU of {self.mac} must be between {least} and {MAX_MTU}")

    def _check_gateway(self, gateway: Address) -> None:
        if any(gateway == address.ip for address in self.addresses):
            raise bad(f"{gateway} is {self.mac}'s own address and cannot be its gateway")
        if any(gateway in _unusable(address.network) for address in self.addresses):
            raise bad(f"{gateway} stands for a whole network of {self.mac} and cannot be its gateway")
        leased = self.dhcp4 if gateway.version == 4 else self.dhcp6
        link_local = gateway.version == 6 and gateway.is_link_local
        if leased or link_local or any(gateway in address.network for address in self.addresses):
            return
        raise bad(f"{self.mac} does not reach the gateway {gateway}: it lies in none of its networks")


@dataclass(frozen=True)
class NetworkData:
    """All interfaces that the host configures; others of the guest's are left alone."""

    interfaces: tuple[Interface, ...]

    def __post_init__(self) -> None:
        if not self.interfaces:
            raise bad("there is no interface")
        _limit(self.interfaces, MAX_INTERFACES, "interfaces")
        if len({interface.mac for interface in self.interfaces}) < len(self.interfaces):
            raise bad("two interfaces have one MAC address")
        addresses = [address.ip for interface in self.interfaces for address in interface.addresses]
        if len(set(addresses)) < len(addresses):
            raise bad("two interfaces have one address")


def default_routes(gateways: Sequence[Address | None]) -> list[tuple[Route, ...]]:
    """The default route of each interface, given its gateway of one family, None for those that have none.

    When several have one, the first in this order is what the system uses: their metrics rise by METRIC_STEP from one
    to the next. The only one has the system's own metric.
    """
    several = sum(gateway is not None for gateway in gateways) > 1
    routes: list[tuple[Route, ...]] = []
    metric = 0
    for gateway in gateways:
        if gateway is None:
            routes.append(())
            continue
        metric += METRIC_STEP
        destination = DEFAULT4 if gateway.version == 4 else DEFAULT6
        routes.append((Route(destination, gateway, metric if several else None),))
    return routes


def _is_unicast(address: Address) -> bool:
    return (
        not (address.is_multicast or address.is_unspecified or address.is_loopback or _has_scope(address))
        and str(address) != _BROADCAST
    )


def _has_scope(address: Address) -> bool:
    """Whether `%` and a scope stand behind the address: any text at all, and it would go into files as it is."""
    return isinstance(address, IPv6Address) and getattr(address, "scope_id", None) is not None


def _unusable(network: Network) -> tuple[Address, ...]:
    """The addresses of an IPv4 network that no host has; networks of one or two addresses have none (RFC 3021)."""
    if network.version == 6 or network.prefixlen >= 31:
        return ()
    return network.network_address, network.broadcast_address


_BROADCAST = "255.255.255.255"


def _limit(entries: tuple[object, ...], limit: int, what: str) -> None:
    if len(entries) > limit:
        raise bad(f"there may be at most {limit} {what}, these are {len(entries)}")
