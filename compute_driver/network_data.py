"""An instance's interfaces in the forms in which guests read them.

For the command network_apply of xenward's agent; as network_data.json of OpenStack, which cloud-init and cloudbase-init
read from a config drive; and as the nodes below vm-data/networking that the existing clouds' agents read when they are
told `resetnetwork`. The first interface with a gateway of a family has the default route that the guest uses.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from agent_protocol.outcomes import Refused, Unsupported

from .network import Interface, InterfaceAddress, Network, check_together

LEGACY_NETWORKING = "vm-data/networking"
"""The node whose children are the interfaces, named by their MAC addresses in upper case without colons."""

MAX_NODE = 2048
"""Bytes of one node that oxenstored takes, from dom0 as well."""

_PUBLIC = "public"
"""The label of the interface that leads to the world: old agents give the one that bears it the default route."""


def to_network_apply(interfaces: Sequence[Interface]) -> str:
    """The value of the agent's command network_apply. Refused when there is no interface."""
    _check(interfaces)
    return json.dumps({"interfaces": [_apply(interface) for interface in interfaces]}, separators=(",", ":"))


def _apply(interface: Interface) -> dict[str, Any]:
    told = interface.to_dict()
    names = ("mac", "addresses", "gateway4", "gateway6", "routes", "dns", "search", "dhcp4", "dhcp6", "mtu")
    # An absent member is as null, false or an empty list is.
    return {name: told[name] for name in names if told[name] not in (None, False, [])}


def to_network_data(interfaces: Sequence[Interface]) -> dict[str, Any]:
    """The content of network_data.json. It has no member for search domains: they stay out."""
    check_together(interfaces)
    networks = [each for interface in interfaces for each in _networks(interface)]
    servers = dict.fromkeys(str(server) for interface in interfaces for server in interface.dns)
    return {
        "links": [_link(interface) for interface in interfaces],
        "networks": [{"id": f"network{number}", **each} for number, each in enumerate(networks)],
        "services": [{"type": "dns", "address": server} for server in servers],
    }


def _link(interface: Interface) -> dict[str, Any]:
    return {
        "id": interface.id,
        "vif_id": interface.id,
        # The guest sees no VLAN: its packets are tagged on the host.
        "type": "phy",
        "ethernet_mac_address": interface.mac,
        "mtu": interface.mtu,
    }


def _networks(interface: Interface) -> Iterator[dict[str, Any]]:
    """One for each address, the routes of a family with its first one, as cloud-init reads them."""
    for version, leased in ((4, interface.dhcp4), (6, interface.dhcp6)):
        routes = _routes(interface, version)
        if leased:
            yield {"link": interface.id, "type": f"ipv{version}_dhcp", "routes": routes}
            routes = []
        for address in interface.addresses:
            if address.version == version:
                yield {
                    "link": interface.id,
                    "type": f"ipv{version}",
                    "ip_address": str(address.ip),
                    "netmask": str(address.netmask),
                    "routes": routes,
                    "services": [
                        {"type": "dns", "address": str(server)} for server in interface.dns if server.version == version
                    ],
                }
                routes = []


def _routes(interface: Interface, version: int) -> list[dict[str, str]]:
    gateway = interface.gateway4 if version == 4 else interface.gateway6
    routes = [_route(route.destination, str(route.gateway)) for route in interface.routes]
    chosen = [entry for entry, route in zip(routes, interface.routes, strict=True) if route.gateway.version == version]
    if gateway is not None:
        everywhere = "0.0.0.0" if version == 4 else "::"  # noqa: S104 (a destination, not a binding)
        chosen.insert(0, {"network": everywhere, "netmask": everywhere, "gateway": str(gateway)})
    return chosen


def _route(destination: Network, gateway: str) -> dict[str, str]:
    return {"network": str(destination.network_address), "netmask": str(destination.netmask), "gateway": gateway}


def to_legacy(interfaces: Sequence[Interface]) -> dict[str, str]:
    """The nodes that agents of the existing clouds read, as members of VM.xenstore_data.

    They have no word for an MTU, which the guest has from its device anyway, or for search domains: these stay out.
    Unsupported for what they know nothing of: DHCP (`legacy_dhcp`), and an IPv6 gateway without an address
    (`legacy_gateway`). Refused (`network_data_too_large`) when one interface does not fit into a node; Refused when
    there is none.
    """
    _check(interfaces)
    first = next((interface for interface in interfaces if interface.gateway4 or interface.gateway6), None)
    nodes = {}
    for interface in interfaces:
        if interface.dhcp4 or interface.dhcp6:
            raise Unsupported("legacy_dhcp", f"the guest's agent is too old to use DHCP on {interface.mac}")
        if interface.gateway6 and all(_is4(address) for address in interface.addresses):
            raise Unsupported("legacy_gateway", f"the guest's agent takes no IPv6 gateway alone on {interface.mac}")
        value = json.dumps(_legacy(interface, interface is first), separators=(",", ":"))
        if len(value) > MAX_NODE:
            raise Refused("network_data_too_large", f"what there is to tell about {interface.mac} is too much")
        nodes[f"{LEGACY_NETWORKING}/{interface.mac.replace(':', '').upper()}"] = value
    return nodes


def _legacy(interface: Interface, leads_to_the_world: bool) -> dict[str, Any]:
    node: dict[str, Any] = {
        "label": _PUBLIC if leads_to_the_world else "private",
        "mac": interface.mac.upper(),
        "ips": [_legacy_address(address, str(address.netmask)) for address in interface.addresses if _is4(address)],
        "ip6s": [
            _legacy_address(address, str(address.network.prefixlen))
            for address in interface.addresses
            if not _is4(address)
        ],
        "dns": [str(server) for server in interface.dns],
        "routes": [
            {
                "route": str(route.destination.network_address),
                "netmask": str(route.destination.netmask),
                "gateway": str(route.gateway),
            }
            for route in interface.routes
        ],
    }
    if interface.gateway4 is not None:
        node["gateway"] = str(interface.gateway4)
    if interface.gateway6 is not None:
        node["gateway_v6"] = str(interface.gateway6)
    return node


def _legacy_address(address: InterfaceAddress, netmask: str) -> dict[str, str]:
    return {"ip": str(address.ip), "netmask": netmask, "enabled": "1"}


def _is4(address: InterfaceAddress) -> bool:
    return address.version == 4


def _check(interfaces: Sequence[Interface]) -> None:
    check_together(interfaces)
    if not interfaces:
        raise Refused("bad_interface", "there is no interface")
