"""Network data as the command network_apply carries it.

{"interfaces": [{"mac": "00:16:3e:00:00:01", "addresses": ["192.0.2.5/24", "2001:db8::5/64"],
"gateway4": "192.0.2.1", "gateway6": "2001:db8::1",
"routes": [{"to": "10.0.0.0/8", "via": "192.0.2.1", "metric": 50}],
"dns": ["192.0.2.53"], "search": ["example.com"], "dhcp4": false, "dhcp6": false, "mtu": 1500}]}

Only mac must be there; a missing member is as null, false or an empty list is. gateway4 and gateway6 are short for
routes to 0.0.0.0/0 and ::/0. When several interfaces have one, the first in the list is what the system uses: their
metrics rise (see data.default_routes). A default route that needs another metric stands in routes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .data import (
    MAX_ADDRESSES,
    MAX_DNS,
    MAX_INTERFACES,
    MAX_ROUTES,
    MAX_SEARCH,
    Address,
    Interface,
    NetworkData,
    Route,
    bad,
    default_routes,
)
from .parsing import as_address, as_interface, as_list, as_network, as_object, as_text, parse_object

_ROUTE_MEMBERS = ("to", "via", "metric")
_MEMBERS = (
    *("mac", "addresses", "gateway4", "gateway6", "routes", "dns", "search"),
    *("dhcp4", "dhcp6", "mtu"),
)


def parse_network_data(untrusted_value: str) -> NetworkData:
    """The data in network_apply's value. Refused (`bad_network_data`) names what is wrong; unknown members are."""
    members = parse_object(untrusted_value, "the value")
    _check_members(members, ["interfaces"], "the value")
    untrusted_list = as_list(members.get("interfaces"), "interfaces", MAX_INTERFACES)
    entries = [as_object(untrusted, "an interface") for untrusted in untrusted_list]
    gateways4 = default_routes([_gateway(entry, "gateway4", 4) for entry in entries])
    gateways6 = default_routes([_gateway(entry, "gateway6", 6) for entry in entries])
    return NetworkData(
        tuple(
            _interface(entry, (*default4, *default6))
            for entry, default4, default6 in zip(entries, gateways4, gateways6)
        )
    )


def encode_network_data(data: NetworkData) -> dict[str, object]:
    """The same data as members that parse_network_data understands; default routes stand among the routes."""
    return {"interfaces": [_encode(interface) for interface in data.interfaces]}


def _interface(members: Mapping[str, Any], defaults: tuple[Route, ...]) -> Interface:
    _check_members(members, _MEMBERS, "an interface")
    mac = as_text(members.get("mac"), "mac").lower()
    return Interface(
        mac,
        tuple(
            as_interface(entry, "an address") for entry in as_list(members.get("addresses"), "addresses", MAX_ADDRESSES)
        ),
        (*defaults, *(_route(entry) for entry in as_list(members.get("routes"), "routes", MAX_ROUTES))),
        tuple(as_address(entry, "a DNS server") for entry in as_list(members.get("dns"), "dns", MAX_DNS)),
        tuple(as_text(entry, "a search domain") for entry in as_list(members.get("search"), "search", MAX_SEARCH)),
        _flag(members, "dhcp4"),
        _flag(members, "dhcp6"),
        _number(members, "mtu"),
    )


def _route(untrusted: object) -> Route:
    members = as_object(untrusted, "a route")
    _check_members(members, _ROUTE_MEMBERS, "a route")
    destination = as_network(members.get("to"), "the destination of a route")
    return Route(destination, as_address(members.get("via"), "the gateway of a route"), _number(members, "metric"))


def _gateway(members: Mapping[str, Any], name: str, version: int) -> Address | None:
    if members.get(name) is None:
        return None
    gateway = as_address(members[name], name)
    if gateway.version != version:
        raise bad(f"{name} must be an IPv{version} address")
    return gateway


def _flag(members: Mapping[str, Any], name: str) -> bool:
    untrusted = members.get(name)
    if untrusted is not None and not isinstance(untrusted, bool):
        raise bad(f"{name} must be true or false")
    return bool(untrusted)


def _number(members: Mapping[str, Any], name: str) -> int | None:
    untrusted = members.get(name)
    if untrusted is not None and (isinstance(untrusted, bool) or not isinstance(untrusted, int)):
        raise bad(f"{name} must be a whole number")
    return untrusted


def _check_members(members: Mapping[str, Any], known: Collection[str], what: str) -> None:
    if not members.keys() <= set(known):
        raise bad(f"{what} has members besides {', '.join(known)}")


def _encode(interface: Interface) -> dict[str, object]:
    return {
        "mac": interface.mac,
        "addresses": [str(address) for address in interface.addresses],
        "routes": [
            {"to": str(route.destination), "via": str(route.gateway), "metric": route.metric}
            for route in interface.routes
        ],
        "dns": [str(server) for server in interface.dns],
        "search": list(interface.search),
        "dhcp4": interface.dhcp4,
        "dhcp6": interface.dhcp6,
        "mtu": interface.mtu,
    }
