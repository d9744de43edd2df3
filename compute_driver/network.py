"""The network interfaces of an instance, as the cloud wants them. Impossible ones cannot be built.

The rules are those of the guest agent as well, so that what can be built here can be applied there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any, Union

from agent_protocol.messages import has_control_characters
from agent_protocol.outcomes import Refused

from .parsing import Parser

Address = Union[IPv4Address, IPv6Address]
InterfaceAddress = Union[IPv4Interface, IPv6Interface]
Network = Union[IPv4Network, IPv6Network]

MAX_INTERFACES = 16
"""What a VM of XenServer can have."""

MAX_ADDRESSES = 64
MAX_ROUTES = 62
"""The guest agent takes 64; the two others are the default routes."""

MAX_DNS = 8
MAX_SEARCH = 16
MAX_ALLOWED = 64

MIN_MTU, MAX_MTU = 576, 65535
"""What IPv4 asks of every link (RFC 791) and what its packets can have; an interface with IPv6 needs MIN_MTU6."""

MIN_MTU6 = 1280
"""RFC 8200, section 5."""

MIN_VLAN, MAX_VLAN = 1, 4094
"""IEEE 802.1Q: 0 is no VLAN, 4095 is reserved."""

MAX_NAME = 255
"""Characters of a network's name."""

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.ASCII)
_BRIDGE = re.compile(r"[A-Za-z0-9_.-]{1,15}\Z", re.ASCII)
_DOMAIN = re.compile(
    r"(?=.{1,253}\Z)[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?"
    r"(\.[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?)*\Z",
    re.ASCII,
)
_NETWORK_KINDS = ("uuid", "name_label", "bridge")
_BROADCAST = "255.255.255.255"


def bad(message: str) -> Refused:
    """The error for what cannot be an interface."""
    return Refused("bad_interface", message)


_PARSER = Parser(bad)


@dataclass(frozen=True)
class NetworkName:
    """How a network is named. kind: `uuid`, `name_label` or `bridge`; names need not be unique, the others are."""

    kind: str
    value: str

    def __post_init__(self) -> None:
        if self.kind not in _NETWORK_KINDS:
            raise bad(f"a network is named by one of {', '.join(_NETWORK_KINDS)}")
        if self.kind == "uuid" and not _UUID.match(self.value):
            raise bad("the uuid of a network must be a UUID in lower case")
        if self.kind == "bridge" and not _BRIDGE.match(self.value):
            raise bad("a bridge is named by at most 15 letters, digits, points, hyphens and underscores")
        if not 1 <= len(self.value) <= MAX_NAME or has_control_characters(self.value):
            raise bad(f"the name of a network has 1 to {MAX_NAME} characters, none of them a control character")

    def __str__(self) -> str:
        return f"{self.kind} {self.value!r}"


@dataclass(frozen=True)
class Route:
    """A way to a destination other than the default ways."""

    destination: Network
    gateway: Address

    def __post_init__(self) -> None:
        if self.destination.version != self.gateway.version:
            raise bad(f"the route to {self.destination} has a gateway of the other family")
        if not self.destination.prefixlen:
            raise bad("a default route is given as gateway4 or gateway6")


@dataclass(frozen=True)
class Interface:
    """One network interface of an instance.

    id: of the port, as the cloud calls it. mac: lower case, with colons. network: where it is attached; with a vlan
    (MIN_VLAN to MAX_VLAN) it is attached to that VLAN on the network's physical interfaces instead, and the guest sees
    no tags. mtu: bytes, None for the network's own. addresses: static ones with their prefix. Each gateway lies in the
    network of one of them, or is IPv6 and link-local, unless DHCP brings addresses of its family. locked: the host lets
    the guest use no addresses but these and allowed_addresses.
    """

    id: str
    mac: str
    network: NetworkName
    vlan: int | None = None
    mtu: int | None = None
    addresses: tuple[InterfaceAddress, ...] = ()
    gateway4: IPv4Address | None = None
    gateway6: IPv6Address | None = None
    routes: tuple[Route, ...] = ()
    dns: tuple[Address, ...] = ()
    search: tuple[str, ...] = ()
    dhcp4: bool = False
    dhcp6: bool = False
    locked: bool = False
    allowed_addresses: tuple[Address, ...] = ()

    def __post_init__(self) -> None:
        if not _ID.match(self.id):
            raise bad("the id of a port has 1 to 64 letters, digits, points, hyphens and underscores")
        if not _MAC.match(self.mac) or int(self.mac[:2], 16) & 1 or self.mac == "00:00:00:00:00:00":
            raise bad("an interface has a unicast MAC address, as 00:16:3e:00:00:01")
        if self.vlan is not None and not MIN_VLAN <= self.vlan <= MAX_VLAN:
            raise bad(f"a VLAN is a number from {MIN_VLAN} to {MAX_VLAN}")
        least = MIN_MTU6 if any(address.version == 6 for address in self.addresses) or self.dhcp6 else MIN_MTU
        if self.mtu is not None and not least <= self.mtu <= MAX_MTU:
            raise bad(f"the MTU of {self.mac} must be between {least} and {MAX_MTU}")
        self._check_limits()
        self._check_addresses()
        for gateway in self.gateways:
            self._check_gateway(gateway)
        for server in self.dns:
            if server.is_multicast or server.is_unspecified or _has_scope(server):
                raise bad(f"{server} cannot be a DNS server")
        if not all(_DOMAIN.match(domain) for domain in self.search):
            raise bad("a search domain is a DNS name")

    def _check_limits(self) -> None:
        for entries, limit, what in (
            (self.addresses, MAX_ADDRESSES, "addresses"),
            (self.routes, MAX_ROUTES, "routes"),
            (self.dns, MAX_DNS, "DNS servers"),
            (self.search, MAX_SEARCH, "search domains"),
            (self.allowed_addresses, MAX_ALLOWED, "allowed addresses"),
        ):
            if len(entries) > limit:
                raise bad(f"{self.mac} may have at most {limit} {what}, these are {len(entries)}")

    def _check_addresses(self) -> None:
        for address in self.addresses:
            link_local = address.version == 6 and address.ip.is_link_local
            if link_local or not _is_unicast(address.ip):
                raise bad(f"{address.ip} cannot be the address of an interface")
        if len({address.ip for address in self.addresses}) < len(self.addresses):
            raise bad(f"{self.mac} has an address twice")
        if len({route.destination for route in self.routes}) < len(self.routes):
            raise bad(f"{self.mac} has two routes to one destination")
        if not all(_is_unicast(address) for address in self.allowed_addresses):
            raise bad("only unicast addresses can be allowed")
        if self.allowed_addresses and not self.locked:
            raise bad(f"{self.mac} has allowed addresses, but is not locked")

    def _check_gateway(self, gateway: Address) -> None:
        if not _is_unicast(gateway):
            raise bad(f"{gateway} cannot be a gateway")
        if any(gateway == address.ip for address in self.addresses):
            raise bad(f"{gateway} is {self.mac}'s own address and cannot be its gateway")
        if any(gateway in _unusable(address.network) for address in self.addresses):
            raise bad(f"{gateway} stands for a whole network of {self.mac} and cannot be its gateway")
        leased = self.dhcp4 if gateway.version == 4 else self.dhcp6
        link_local = gateway.version == 6 and gateway.is_link_local
        if leased or link_local or any(gateway in address.network for address in self.addresses):
            return
        raise bad(f"{self.mac} does not reach the gateway {gateway}: it lies in none of its networks")

    @property
    def gateways(self) -> tuple[Address, ...]:
        """Those of the default routes, then those of the others."""
        defaults = [gateway for gateway in (self.gateway4, self.gateway6) if gateway is not None]
        return (*defaults, *(route.gateway for route in self.routes))

    def usable_addresses(self, version: int) -> tuple[Address, ...]:
        """What the guest may use of a family (4 or 6) while the interface is locked: its own, then the allowed."""
        both = (*(address.ip for address in self.addresses), *self.allowed_addresses)
        return tuple(dict.fromkeys(address for address in both if address.version == version))

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "id": self.id,
            "mac": self.mac,
            "network": {self.network.kind: self.network.value},
            "vlan": self.vlan,
            "mtu": self.mtu,
            "addresses": [str(address) for address in self.addresses],
            "gateway4": None if self.gateway4 is None else str(self.gateway4),
            "gateway6": None if self.gateway6 is None else str(self.gateway6),
            "routes": [{"to": str(route.destination), "via": str(route.gateway)} for route in self.routes],
            "dns": [str(server) for server in self.dns],
            "search": list(self.search),
            "dhcp4": self.dhcp4,
            "dhcp6": self.dhcp6,
            "locked": self.locked,
            "allowed_addresses": [str(address) for address in self.allowed_addresses],
        }

    @classmethod
    def from_dict(cls, untrusted: object) -> Interface:
        """From such data. id, mac and network must be there; a missing member is as null, false or an empty list is.

        Refused (`bad_interface`) names what is wrong; unknown members are.
        """
        it = _PARSER.members(untrusted, "an interface", _MEMBERS)
        gateway4, gateway6 = _gateway(it.get("gateway4"), 4), _gateway(it.get("gateway6"), 6)
        assert gateway4 is None or gateway4.version == 4
        assert gateway6 is None or gateway6.version == 6
        return cls(
            id=_PARSER.text(it.get("id"), "id"),
            mac=_PARSER.text(it.get("mac"), "mac").lower(),
            network=network_name(it.get("network")),
            vlan=_PARSER.optional_number(it.get("vlan"), "vlan"),
            mtu=_PARSER.optional_number(it.get("mtu"), "mtu"),
            addresses=_PARSER.each(it.get("addresses"), "addresses", MAX_ADDRESSES, _PARSER.interface_address),
            gateway4=gateway4,
            gateway6=gateway6,
            routes=_PARSER.each(it.get("routes"), "routes", MAX_ROUTES, _route),
            dns=_PARSER.each(it.get("dns"), "dns", MAX_DNS, _PARSER.address),
            search=_PARSER.each(it.get("search"), "search", MAX_SEARCH, _PARSER.text),
            dhcp4=_PARSER.flag(it.get("dhcp4"), "dhcp4"),
            dhcp6=_PARSER.flag(it.get("dhcp6"), "dhcp6"),
            locked=_PARSER.flag(it.get("locked"), "locked"),
            allowed_addresses=allowed_addresses(it.get("allowed_addresses")),
        )


_MEMBERS = tuple(Interface.__dataclass_fields__)


def interfaces_from_list(untrusted: object) -> tuple[Interface, ...]:
    """All interfaces of an instance, in the order of their devices. Refused (`bad_interface`) names what is wrong."""
    interfaces = tuple(
        Interface.from_dict(entry) for entry in _PARSER.sequence(untrusted, "the interfaces", MAX_INTERFACES)
    )
    check_together(interfaces)
    return interfaces


def check_together(interfaces: Sequence[Interface]) -> None:
    """Refused (`bad_interface`) when these cannot be of one instance."""
    if len(interfaces) > MAX_INTERFACES:
        raise bad(f"an instance has at most {MAX_INTERFACES} interfaces")
    if len({interface.id for interface in interfaces}) < len(interfaces):
        raise bad("two interfaces have one id")
    if len({interface.mac for interface in interfaces}) < len(interfaces):
        raise bad("two interfaces have one MAC address")
    addresses = [address.ip for interface in interfaces for address in interface.addresses]
    if len(set(addresses)) < len(addresses):
        raise bad("two interfaces have one address")


def network_name(untrusted: object) -> NetworkName:
    """The name of a network in plain data, such as {"bridge": "xenbr0"}. Refused (`bad_interface`) otherwise."""
    members = _PARSER.members(untrusted, "a network", _NETWORK_KINDS)
    if len(members) != 1:
        raise bad(f"a network is named by exactly one of {', '.join(_NETWORK_KINDS)}")
    ((kind, value),) = members.items()
    return NetworkName(kind, _PARSER.text(value, kind))


def allowed_addresses(untrusted: object) -> tuple[Address, ...]:
    """A list of addresses in plain data, none of them twice. Refused (`bad_interface`) otherwise."""
    addresses = _PARSER.each(untrusted, "allowed_addresses", MAX_ALLOWED, _PARSER.address)
    if not all(_is_unicast(address) for address in addresses):
        raise bad("only unicast addresses can be allowed")
    return tuple(dict.fromkeys(addresses))


def _route(untrusted: object, what: str) -> Route:
    members = _PARSER.members(untrusted, f"an entry of {what}", ("to", "via"))
    return Route(
        _PARSER.network(members.get("to"), "the destination of a route"),
        _PARSER.address(members.get("via"), "the gateway of a route"),
    )


def _gateway(untrusted: object, version: int) -> Any:
    if untrusted is None:
        return None
    gateway = _PARSER.address(untrusted, f"gateway{version}")
    if gateway.version != version:
        raise bad(f"gateway{version} must be an IPv{version} address")
    return gateway


def _is_unicast(address: Address) -> bool:
    return (
        not (address.is_multicast or address.is_unspecified or address.is_loopback or _has_scope(address))
        and str(address) != _BROADCAST
    )


def _has_scope(address: Address) -> bool:
    """Whether `%` and a scope stand behind the address, which means something on one host only."""
    return isinstance(address, IPv6Address) and address.scope_id is not None


def _unusable(network: Network) -> tuple[Address, ...]:
    """The addresses of an IPv4 network that no host has; networks of one or two addresses have none (RFC 3021)."""
    if network.version == 6 or network.prefixlen >= 31:
        return ()
    return network.network_address, network.broadcast_address
