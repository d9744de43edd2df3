"""What renderers ask about an interface: its name, the parts of one address family, its way with advertisements."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .data import Address, Interface, InterfaceAddress, Route, bad

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}\Z", re.ASCII)
"""Linux allows 15 bytes of nearly anything (IFNAMSIZ); these are the ones that mean nothing special in any file."""


def name_of(interface: Interface, names: Mapping[str, str]) -> str:
    """The interface's name. Refused (`bad_network_data`) when the guest has none or one that files cannot hold."""
    untrusted_name = names.get(interface.mac)
    if untrusted_name is None:
        raise bad(f"the guest has no interface {interface.mac}")
    if not _NAME.match(untrusted_name):
        raise bad(f"the name of the interface {interface.mac} cannot stand in a configuration file")
    return untrusted_name


def label_of(interface: Interface) -> str:
    """What the agent's files for the interface are called: it depends on nothing but the MAC address."""
    return "xenward-" + interface.mac.replace(":", "")


def addresses_of(interface: Interface, version: int) -> list[InterfaceAddress]:
    """The static addresses of IP version 4 or 6, in order."""
    return [address for address in interface.addresses if address.version == version]


def routes_of(interface: Interface, version: int) -> list[Route]:
    """The routes of IP version 4 or 6, in order."""
    return [route for route in interface.routes if route.destination.version == version]


def dns_of(interface: Interface, version: int) -> list[Address]:
    """The DNS servers that are reached by IP version 4 or 6, in order."""
    return [server for server in interface.dns if server.version == version]


def is_default(route: Route) -> bool:
    """Whether it is a route to everywhere."""
    return route.destination.prefixlen == 0


def simple_gateway(interface: Interface, version: int) -> Address | None:
    """The gateway that a stack's plain gateway option can hold: that of the default route without a metric of its own,
    next to a static address. Every other route, default ones too, has to stand among the routes."""
    if not addresses_of(interface, version):
        return None
    for route in routes_of(interface, version):
        if is_default(route) and route.metric is None:
            return route.gateway
    return None


def other_routes(interface: Interface, version: int) -> list[Route]:
    """The routes without the one that simple_gateway() stands for."""
    gateway = simple_gateway(interface, version)
    return [
        route
        for route in routes_of(interface, version)
        if gateway is None or not is_default(route) or route.metric is not None
    ]


def ignores_advertisements(interface: Interface) -> bool:
    """Whether IPv6 router advertisements must not be heard.

    The system's own habit stays, unless the host names a default route of IPv6: a router that advertises itself would
    be a second one beside it. With DHCPv6 they are heard all the same, for they start it (RFC 4861, section 4.2).
    """
    return not interface.dhcp6 and any(is_default(route) for route in routes_of(interface, 6))
