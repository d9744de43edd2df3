"""ifcfg files: RHEL 7 to 9 and its relatives, /etc/sysconfig/network-scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..system.paths import GuestPath
from .data import Interface, NetworkData, bad
from .facets import (
    addresses_of,
    ignores_advertisements,
    label_of,
    name_of,
    other_routes,
    routes_of,
    simple_gateway,
)
from .networkmanager import profile_uuid
from .renderer import Change, Files, Renderer
from .sysconfig import assignments, values
from .takeover import HEADER, put, remove

_DIRECTORY = "/etc/sysconfig/network-scripts"


class Ifcfg(Renderer):
    """ifcfg-<name>, bound to the MAC address, with route-<name> and route6-<name> where there are routes.

    Other ifcfg files of the interface give way: those with its MAC address or its name, and those of its aliases.
    Static IPv4 addresses beside DHCP are refused (`bad_network_data`): the network scripts leave them out.
    """

    name = "ifcfg"
    needs_names = True

    def render(self, data: NetworkData, names: Mapping[str, str], files: Files) -> Sequence[Change]:
        by_name = {name_of(interface, names): interface for interface in data.interfaces}
        macs = {interface.mac for interface in data.interfaces}
        changes: list[Change] = []
        for file_name in files.names(GuestPath(_DIRECTORY)):
            if file_name.startswith("ifcfg-") and file_name[len("ifcfg-") :] not in by_name:
                path = GuestPath(f"{_DIRECTORY}/{file_name}")
                if _configures(files.read(path) or b"", macs, set(by_name)):
                    changes += remove(files, path)
        for name, interface in by_name.items():
            changes += put(files, _path("ifcfg", name), _ifcfg(interface, name))
            for prefix, version in (("route", 4), ("route6", 6)):
                lines = _routes(interface, name, version)
                path = _path(prefix, name)
                changes += put(files, path, HEADER + "".join(lines)) if lines else remove(files, path)
        return changes

    def activation(self, data: NetworkData, names: Mapping[str, str]) -> Sequence[Sequence[str]]:
        """NetworkManager, which RHEL has by default since 7 and which reads these files, does it. Guests that went
        without it follow the files at their next boot."""
        paths = [_path("ifcfg", name_of(interface, names)).text for interface in data.interfaces]
        activated = [
            ["nmcli", "connection", "up", "uuid", profile_uuid(interface.mac)] for interface in data.interfaces
        ]
        return [["nmcli", "connection", "load", *paths], *activated]


def _path(prefix: str, name: str) -> GuestPath:
    return GuestPath(f"{_DIRECTORY}/{prefix}-{name}")


def _configures(content: bytes, macs: set[str], names: set[str]) -> bool:
    """Whether an ifcfg file is for one of these interfaces or an alias; not for a VLAN or bridge on top of it."""
    found = values(content)
    if found.get("TYPE", "Ethernet").lower() != "ethernet" or found.get("VLAN", "no").lower() in ("yes", "true"):
        return False
    return found.get("HWADDR", "").lower() in macs or found.get("DEVICE", "").partition(":")[0] in names


def _ifcfg(interface: Interface, name: str) -> str:
    if interface.dhcp4 and addresses_of(interface, 4):
        raise bad(f"ifcfg files have either DHCP or static addresses for IPv4, {interface.mac} asks for both")
    assigned = {
        "TYPE": "Ethernet",
        "NAME": label_of(interface),
        "UUID": profile_uuid(interface.mac),
        "DEVICE": name,
        "HWADDR": interface.mac.upper(),
        "ONBOOT": "yes",
        "BOOTPROTO": "dhcp" if interface.dhcp4 else "none",
    }
    if interface.mtu is not None:
        assigned["MTU"] = str(interface.mtu)
    for number, address in enumerate(addresses_of(interface, 4)):
        suffix = str(number) if number else ""
        assigned[f"IPADDR{suffix}"] = str(address.ip)
        assigned[f"PREFIX{suffix}"] = str(address.network.prefixlen)
    gateway = simple_gateway(interface, 4)
    if gateway is not None:
        assigned["GATEWAY"] = str(gateway)
    assigned.update(_ipv6(interface, name))
    for number, server in enumerate(interface.dns, 1):
        assigned[f"DNS{number}"] = str(server)
    if interface.search:
        assigned["DOMAIN"] = " ".join(interface.search)
    return HEADER + assignments(assigned)


def _ipv6(interface: Interface, name: str) -> dict[str, str]:
    addresses = [str(address) for address in addresses_of(interface, 6)]
    if not (addresses or interface.dhcp6 or routes_of(interface, 6)):
        return {}
    assigned = {"IPV6INIT": "yes"}
    if interface.dhcp6:
        assigned["DHCPV6C"] = "yes"
    # NetworkManager's way with static addresses is not to wait for advertisements, see networkmanager.py.
    if ignores_advertisements(interface) or (addresses and not interface.dhcp6):
        assigned["IPV6_AUTOCONF"] = "no"
    if addresses:
        assigned["IPV6ADDR"] = addresses[0]
    if len(addresses) > 1:
        assigned["IPV6ADDR_SECONDARIES"] = " ".join(addresses[1:])
    gateway = simple_gateway(interface, 6)
    if gateway is not None:
        assigned["IPV6_DEFAULTGW"] = f"{gateway}%{name}" if gateway.is_link_local else str(gateway)
    return assigned


def _routes(interface: Interface, name: str, version: int) -> list[str]:
    lines = []
    for route in other_routes(interface, version):
        metric = "" if route.metric is None else f" metric {route.metric}"
        lines.append(f"{route.destination} via {route.gateway} dev {name}{metric}\n")
    return lines
