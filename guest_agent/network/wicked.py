"""wicked: SUSE's /etc/sysconfig/network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..system.paths import GuestPath
from .data import Interface, NetworkData
from .facets import ignores_advertisements, is_default, name_of
from .renderer import Change, Files, Renderer
from .sysconfig import assignments, foreign_values, values, with_values
from .takeover import HEADER, copy, put, remove

_DIRECTORY = "/etc/sysconfig/network"
_CONFIG = GuestPath(f"{_DIRECTORY}/config")
_ROUTES = GuestPath(f"{_DIRECTORY}/routes")

_PROTOCOLS = {(False, False): "static", (True, False): "dhcp4", (False, True): "dhcp6", (True, True): "dhcp"}
"""BOOTPROTO by (DHCPv4, DHCPv6), ifcfg(5). Static addresses are set with each of them."""


class Wicked(Renderer):
    """ifcfg-<name> and ifroute-<name>; DNS servers and search domains are the system's, in `config`.

    A routes file for all interfaces stays, but for lines of ours, and for default routes without an interface where the
    data has a default route of that family.
    """

    name = "wicked"
    needs_names = True

    def render(self, data: NetworkData, names: Mapping[str, str], files: Files) -> Sequence[Change]:
        changes: list[Change] = []
        for interface in data.interfaces:
            name = name_of(interface, names)
            changes += put(files, _path("ifcfg", name), _ifcfg(interface))
            lines = _routes(interface, name)
            path = _path("ifroute", name)
            changes += put(files, path, HEADER + "".join(lines)) if lines else remove(files, path)
            changes += _advertisements(interface, name, files)
        return [*changes, *_dns(data, files), *_common_routes(data, names, files)]

    def activation(self, data: NetworkData, names: Mapping[str, str]) -> Sequence[Sequence[str]]:
        return [
            ["wicked", "ifreload", *(name_of(interface, names) for interface in data.interfaces)],
            # DNS servers of `config` belong to no interface, so no reload brings them.
            ["netconfig", "update", "-f"],
        ]


def _path(prefix: str, name: str) -> GuestPath:
    return GuestPath(f"{_DIRECTORY}/{prefix}-{name}")


def _ifcfg(interface: Interface) -> str:
    assigned = {"STARTMODE": "auto", "BOOTPROTO": _PROTOCOLS[interface.dhcp4, interface.dhcp6]}
    if interface.mtu is not None:
        assigned["MTU"] = str(interface.mtu)
    for number, address in enumerate(interface.addresses):
        assigned[f"IPADDR_{number}" if number else "IPADDR"] = str(address)
    return HEADER + assignments(assigned)


def _routes(interface: Interface, name: str) -> list[str]:
    """Destination, gateway, netmask, interface, and with a metric the type and the option (ifroute(5))."""
    lines = []
    for route in interface.routes:
        destination = "default" if is_default(route) else str(route.destination)
        metric = "" if route.metric is None else f" - metric {route.metric}"
        lines.append(f"{destination} {route.gateway} - {name}{metric}\n")
    return lines


def _advertisements(interface: Interface, name: str, files: Files) -> list[Change]:
    """ifsysctl-<name>, where other settings of the interface stay."""
    path = _path("ifsysctl", name)
    present = files.read(path)
    ours = f"net.ipv6.conf.{name}.accept_ra = 0\n"
    text = (present or b"").decode("utf-8", "surrogateescape")
    rest = text.replace(ours, "")
    if ignores_advertisements(interface):
        rest += ("" if not rest or rest.endswith("\n") else "\n") + ours
    if rest == text:
        return []
    return [Change(path, rest.encode("utf-8", "surrogateescape") if rest else None)]


def _dns(data: NetworkData, files: Files) -> list[Change]:
    servers = dict.fromkeys(str(server) for interface in data.interfaces for server in interface.dns)
    domains = dict.fromkeys(domain for interface in data.interfaces for domain in interface.search)
    assigned = {}
    if servers:
        assigned["NETCONFIG_DNS_STATIC_SERVERS"] = " ".join(servers)
    if domains:
        assigned["NETCONFIG_DNS_STATIC_SEARCHLIST"] = " ".join(domains)
    present = files.read(_CONFIG)
    found = values(present or b"")
    if all(found.get(key) == value for key, value in assigned.items()):
        return []
    # Values that were set by hand are worth a copy; empty ones, as SUSE ships them, are not.
    foreign = foreign_values(present or b"")
    saved = copy(files, _CONFIG, present) if present is not None and any(foreign.get(key) for key in assigned) else []
    return [*saved, Change(_CONFIG, with_values(present or b"", assigned))]


def _common_routes(data: NetworkData, names: Mapping[str, str], files: Files) -> list[Change]:
    present = files.read(_ROUTES)
    if present is None:
        return []
    ours = {name_of(interface, names) for interface in data.interfaces}
    routes = [route for interface in data.interfaces for route in interface.routes]
    defaults: set[int] = {route.gateway.version for route in routes if is_default(route)}
    lines = present.decode("utf-8", "surrogateescape").split("\n")
    rest = "\n".join(line for line in lines if not _gives_way(line.split(), ours, defaults))
    content = rest.encode("utf-8", "surrogateescape")
    return [] if content == present else [*copy(files, _ROUTES, present), Change(_ROUTES, content)]


def _gives_way(columns: Sequence[str], ours: set[str], defaults: set[int]) -> bool:
    if len(columns) < 2 or columns[0].startswith("#"):
        return False
    interface = columns[3] if len(columns) > 3 else "-"
    if interface != "-":
        return interface in ours
    version = 6 if ":" in columns[0] + columns[1] else 4
    return columns[0] in ("default", "0.0.0.0/0", "::/0") and version in defaults
