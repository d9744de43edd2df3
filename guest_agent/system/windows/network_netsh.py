"""The arguments of netsh, by Microsoft's reference of `netsh interface` (Windows commands, learn.microsoft.com).

`name=` and `interface=` take an index as well as a name, so that what people call a connection never stands in a
command line. Without `store=` a deletion holds for what is in force and for what is stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Interface

from ...network.data import Address, InterfaceAddress
from .network_model import IPV4, StoredRoute

_STORED = "store=persistent"

Arguments = Sequence[str]


def use_dhcp(index: int) -> Arguments:
    """IPv4 by DHCP, without static addresses and gateways."""
    return [*_context(IPV4), "set", "address", f"name={index}", "source=dhcp"]


def use_static(index: int, address: IPv4Interface) -> Arguments:
    """IPv4 without DHCP, with this address in place of all others."""
    return [*_context(IPV4), "set", "address", f"name={index}", "source=static", f"address={address}", _STORED]


def hear_advertisements(index: int, heard: bool) -> Arguments:
    """Router advertisements of IPv6."""
    habit = "enabled" if heard else "disabled"
    return [*_context(6), "set", "interface", f"interface={index}", f"routerdiscovery={habit}", _STORED]


def add_address(index: int, address: InterfaceAddress) -> Arguments:
    """One more static address."""
    return [*_context(address.version), "add", "address", _adapter(index, address), f"address={address}", _STORED]


def remove_address(index: int, address: InterfaceAddress) -> Arguments:
    """One static address less. Its prefix is not named: Windows has an address once."""
    return [*_context(address.version), "delete", "address", _adapter(index, address), f"address={address.ip}"]


def add_route(index: int, route: StoredRoute) -> Arguments:
    """One more route."""
    return [*_route("add", index, route), f"metric={route.metric}", _STORED]


def remove_route(index: int, route: StoredRoute) -> Arguments:
    """One route less."""
    return _route("delete", index, route)


def set_dns(index: int, version: int, servers: Sequence[Address]) -> Iterator[Arguments]:
    """All the DNS servers of a protocol, one command for each. Without validate=no each would be asked first, for
    seconds, by an adapter that may have no addresses yet."""
    first = servers[0] if servers else "none"
    verb = [*_context(version), "set", "dnsservers", f"name={index}", "source=static"]
    yield [*verb, f"address={first}", "validate=no"]
    for place, server in enumerate(servers[1:], 2):
        verb = [*_context(version), "add", "dnsservers", f"name={index}"]
        yield [*verb, f"address={server}", f"index={place}", "validate=no"]


def set_mtu(index: int, version: int, mtu: int) -> Arguments:
    """The MTU of a protocol."""
    return [*_context(version), "set", "subinterface", f"interface={index}", f"mtu={mtu}", _STORED]


def _context(version: int) -> Arguments:
    return ["interface", f"ipv{version}"]


def _adapter(index: int, address: InterfaceAddress) -> str:
    return f"name={index}" if address.version == IPV4 else f"interface={index}"


def _route(verb: str, index: int, route: StoredRoute) -> Arguments:
    context = _context(route.destination.version)
    return [*context, verb, "route", f"prefix={route.destination}", f"interface={index}", f"nexthop={route.gateway}"]
