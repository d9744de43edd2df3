"""Network data as hosts of the existing clouds leave it in XenStore, for the command `resetnetwork`.

Below vm-data/networking stands one node for each interface, named by its MAC address without colons, with JSON in it;
vm-data/hostname holds the host's name. The guest can write all of this itself, so it proves nothing about the host,
and is read as carefully as anything.

These hosts tell a gateway for every interface. The one with the label `public` comes first, the others follow in the
order of their numbers as Xen devices (device/vif/<number>/mac), and those that Xen doesn't tell come last, in order of
their MAC addresses. The first one with a gateway has the default route that the system uses, see data.default_routes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..system.hostname import HostName
from .data import (
    MAX_ADDRESSES,
    MAX_DNS,
    MAX_INTERFACES,
    MAX_ROUTES,
    Address,
    Interface,
    InterfaceAddress,
    NetworkData,
    Route,
    bad,
    default_routes,
)
from .parsing import as_address, as_interface, as_list, as_network, as_object, as_prefix, as_text, parse_object

NETWORKING = "vm-data/networking"
HOSTNAME = "vm-data/hostname"
_DEVICES = "device/vif"

_PUBLIC = "public"
"""The label that these clouds give the network that leads to the world."""

_MAX_NODES = 64
"""Nodes that are listed; a guest has at most MAX_INTERFACES interfaces."""

_NODE = re.compile(r"[0-9a-fA-F]{12}\Z", re.ASCII)
_DEVICE = re.compile(r"[0-9]{1,5}\Z", re.ASCII)


class Store(Protocol):
    """The guest's part of XenStore, for reading; nodes.Nodes is one."""

    def children(self, path: str) -> list[str]:
        """The names below a node; none when it is missing."""

    def read(self, path: str) -> bytes | None:
        """A node's value, None when it is missing."""


@dataclass(frozen=True)
class LegacyData:
    """What the host left: None for what it did not."""

    network: NetworkData | None
    hostname: HostName | None


@dataclass(frozen=True)
class _Entry:
    """One node, with its gateways apart from its other routes."""

    mac: str
    label: str
    addresses: tuple[InterfaceAddress, ...]
    gateway4: Address | None
    gateway6: Address | None
    routes: tuple[Route, ...]
    dns: tuple[Address, ...]


def read_legacy_data(store: Store) -> LegacyData:
    """What stands in the store. Refused (`bad_network_data`, `bad_hostname`) names what is wrong with it.

    StoreErrors come as they are.
    """
    untrusted_hostname = store.read(HOSTNAME)
    hostname = None
    if untrusted_hostname:
        hostname = HostName(untrusted_hostname.decode("utf-8", "replace").strip())
    untrusted_names = store.children(NETWORKING)
    if len(untrusted_names) > _MAX_NODES:
        raise bad(f"{NETWORKING} has more than {_MAX_NODES} nodes")
    entries = [_read(store, name) for name in untrusted_names]
    if not entries:
        return LegacyData(None, hostname)
    if len(entries) > MAX_INTERFACES:
        raise bad(f"{NETWORKING} has more than {MAX_INTERFACES} interfaces")
    numbers = _device_numbers(store)
    last = max(numbers.values(), default=0) + 1
    entries.sort(key=lambda entry: (entry.label != _PUBLIC, numbers.get(entry.mac, last), entry.mac))
    defaults = zip(
        default_routes([entry.gateway4 for entry in entries]),
        default_routes([entry.gateway6 for entry in entries]),
    )
    interfaces = [
        Interface(entry.mac, entry.addresses, (*default4, *default6, *entry.routes), entry.dns)
        for entry, (default4, default6) in zip(entries, defaults)
    ]
    return LegacyData(NetworkData(tuple(interfaces)), hostname)


def _read(store: Store, untrusted_name: str) -> _Entry:
    if not _NODE.match(untrusted_name):
        raise bad(f"the name of a node of {NETWORKING} is no MAC address without colons")
    where = f"{NETWORKING}/{untrusted_name}"
    members = parse_object(store.read(where) or b"", where)
    mac = re.sub("..(?!$)", r"\g<0>:", untrusted_name.lower())
    if members.get("mac") is not None and as_text(members["mac"], "mac").lower() != mac:
        raise bad(f"{where} is about another interface")
    addresses4, gateways4 = _addresses(members, "ips", 4)
    addresses6, gateways6 = _addresses(members, "ip6s", 6)
    routes = [_route(untrusted) for untrusted in as_list(members.get("routes"), "routes", MAX_ROUTES)]
    label = members.get("label")
    return _Entry(
        mac,
        label if isinstance(label, str) else "",
        (*addresses4, *addresses6),
        # Without an address of its family a gateway is of no use; hosts name it nevertheless.
        _gateway(members, "gateway", gateways4, routes) if addresses4 else None,
        _gateway(members, "gateway_v6", gateways6, routes) if addresses6 else None,
        tuple(dict.fromkeys(route for route in routes if route.destination.prefixlen)),
        tuple(
            dict.fromkeys(
                as_address(untrusted, "a DNS server")
                for untrusted in as_list(members.get("dns"), "dns", MAX_DNS)
                if untrusted
            )
        ),
    )


def _addresses(members: Mapping[str, Any], name: str, version: int) -> tuple[list[InterfaceAddress], list[Address]]:
    """The enabled addresses of a family, and the gateways that stand with them."""
    addresses = []
    gateways = []
    for untrusted in as_list(members.get(name), name, MAX_ADDRESSES):
        entry = as_object(untrusted, f"an entry of {name}")
        if not _enabled(entry.get("enabled", True), name):
            continue
        address = as_address(entry.get("ip"), f"ip in {name}")
        if address.version != version:
            raise bad(f"ip in {name} is of the other family")
        prefix = as_prefix(entry.get("netmask"), version, f"netmask in {name}")
        addresses.append(as_interface(f"{address}/{prefix}", f"ip in {name}"))
        if entry.get("gateway"):
            gateways.append(as_address(entry["gateway"], f"gateway in {name}"))
    return addresses, gateways


def _enabled(untrusted: object, name: str) -> bool:
    # Hosts write "1"; True == 1 and False == 0.
    if untrusted in ("1", 1):
        return True
    if untrusted in ("0", 0):
        return False
    raise bad(f"enabled in {name} must be 1 or 0")


def _gateway(
    members: Mapping[str, Any], name: str, with_addresses: list[Address], routes: list[Route]
) -> Address | None:
    """The interface's gateway; else the one of its first address that has one, else that of a default route."""
    version = 6 if name == "gateway_v6" else 4
    gateway = as_address(members[name], name) if members.get(name) else None
    defaults = [route.gateway for route in routes if not route.destination.prefixlen]
    candidates = [*([gateway] if gateway else []), *with_addresses, *defaults]
    return next((candidate for candidate in candidates if candidate.version == version), None)


def _route(untrusted: object) -> Route:
    members = as_object(untrusted, "a route")
    start = as_address(members.get("route"), "route")
    prefix = as_prefix(members.get("netmask"), start.version, "netmask of a route")
    return Route(as_network(f"{start}/{prefix}", "a route"), as_address(members.get("gateway"), "gateway of a route"))


def _device_numbers(store: Store) -> dict[str, int]:
    """The number of the device with each MAC address, as Xen gave them."""
    untrusted_numbers = [name for name in store.children(_DEVICES) if _DEVICE.match(name)]
    found: dict[str, int] = {}
    for number in sorted(map(int, untrusted_numbers[:_MAX_NODES])):
        mac = (store.read(f"{_DEVICES}/{number}/mac") or b"").decode("ascii", "replace").lower()
        found.setdefault(mac, number)
    return found
