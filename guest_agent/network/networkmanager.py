"""NetworkManager: one keyfile, a connection profile, for each interface."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

from ..system.paths import GuestPath
from .data import Address, Interface, NetworkData, bad
from .facets import (
    addresses_of,
    dns_of,
    ignores_advertisements,
    label_of,
    other_routes,
    simple_gateway,
)
from .keyfile import entries
from .renderer import Change, Files, Renderer
from .takeover import HEADER, put, remove

_DIRECTORY = "/etc/NetworkManager/system-connections"

_MODE = 0o600
"""NetworkManager ignores keyfiles that others can read."""

_NAMESPACE = uuid.UUID("b3c5b0a2-7f0e-4f6c-9a54-5d5a0d1c7e11")
"""What our profiles' UUIDs are made from, together with the MAC address (RFC 9562, version 5)."""

_PRIORITY = 999
"""The most that autoconnect-priority can be (nm-settings(5)): ours comes up at boot, whatever else there is."""

_WITHOUT_DNS = ("disabled", "link-local")
"""Methods with which NetworkManager takes neither DNS servers nor search domains."""


def profile_uuid(mac: str) -> str:
    """The UUID of the profile for an interface: the same each time, so that a profile is replaced, not doubled."""
    return str(uuid.uuid5(_NAMESPACE, mac))


class NetworkManager(Renderer):
    """xenward-<MAC>.nmconnection. Profiles of others that name the interface, by MAC address or name, give way.

    Those that fit any interface stay, and come after ours by their priority.
    """

    name = "networkmanager"
    needs_names = False

    def render(self, data: NetworkData, names: Mapping[str, str], files: Files) -> Sequence[Change]:
        own = {f"{label_of(interface)}.nmconnection": interface for interface in data.interfaces}
        taken = {names[interface.mac] for interface in data.interfaces if interface.mac in names}
        changes: list[Change] = []
        for file_name in files.names(GuestPath(_DIRECTORY)):
            # Hidden files and backups are not read by NetworkManager either.
            if not file_name.startswith(".") and not file_name.endswith("~") and file_name not in own:
                path = GuestPath(f"{_DIRECTORY}/{file_name}")
                if _configures(files.read(path) or b"", {interface.mac for interface in data.interfaces}, taken):
                    changes += remove(files, path)
        for file_name, interface in own.items():
            changes += put(files, GuestPath(f"{_DIRECTORY}/{file_name}"), _profile(interface), _MODE)
        return changes

    def activation(self, data: NetworkData, names: Mapping[str, str]) -> Sequence[Sequence[str]]:  # noqa: ARG002
        activated = [
            ["nmcli", "connection", "up", "uuid", profile_uuid(interface.mac)] for interface in data.interfaces
        ]
        return [["nmcli", "connection", "reload"], *activated]


def _configures(content: bytes, macs: set[str], names: set[str]) -> bool:
    """Whether a profile is for one of these interfaces: an Ethernet one, not a VLAN or bridge on top of it."""
    connection = entries(content, "connection")
    if connection.get("type") not in (["ethernet"], ["802-3-ethernet"]):
        return False
    found = [
        *entries(content, "ethernet").get("mac-address", []),
        *entries(content, "802-3-ethernet").get("mac-address", []),
    ]
    return bool(macs & {mac.lower() for mac in found} or names & set(connection.get("interface-name", [])))


def _profile(interface: Interface) -> str:
    lines = [
        "[connection]",
        f"id={label_of(interface)}",
        f"uuid={profile_uuid(interface.mac)}",
        "type=ethernet",
        f"autoconnect-priority={_PRIORITY}",
        "",
        "[ethernet]",
        f"mac-address={interface.mac.upper()}",
    ]
    if interface.mtu is not None:
        lines.append(f"mtu={interface.mtu}")
    methods = {4: _method4(interface), 6: _method6(interface)}
    holding = [version for version, method in methods.items() if method not in _WITHOUT_DNS]
    if any(server.version not in holding for server in interface.dns) or (interface.search and not holding):
        raise bad(f"NetworkManager holds DNS only for a family that {interface.mac} has addresses of")
    # Search domains are the connection's, not a family's.
    search_in = holding[0] if holding else 4
    for version, method in methods.items():
        search = interface.search if version == search_in else ()
        lines += ["", f"[ipv{version}]", f"method={method}", *_family(interface, version, search)]
    return HEADER + "\n".join(lines) + "\n"


def _method4(interface: Interface) -> str:
    if interface.dhcp4:
        return "auto"
    if addresses_of(interface, 4):
        return "manual"
    return "disabled"


def _method6(interface: Interface) -> str:
    """How the interface comes to IPv6 addresses.

    `auto` hears router advertisements and starts DHCPv6 when they say so; an activation without any fails unless
    another family succeeds. `manual`, which is NetworkManager's way with static addresses, does not hear them.
    """
    if interface.dhcp6:
        return "auto"
    if addresses_of(interface, 6):
        return "manual"
    has_ipv4 = interface.dhcp4 or bool(addresses_of(interface, 4))
    return "auto" if has_ipv4 and not ignores_advertisements(interface) else "link-local"


def _family(interface: Interface, version: int, search: Sequence[str]) -> list[str]:
    lines = [f"address{number}={address}" for number, address in enumerate(addresses_of(interface, version), 1)]
    gateway = simple_gateway(interface, version)
    if gateway is not None:
        lines.append(f"gateway={gateway}")
    for number, route in enumerate(other_routes(interface, version), 1):
        metric = "" if route.metric is None else f",{route.metric}"
        lines.append(f"route{number}={route.destination},{route.gateway}{metric}")
    dns: list[Address] = dns_of(interface, version)
    if dns:
        lines.append("dns=" + "".join(f"{server};" for server in dns))
    if search:
        lines.append("dns-search=" + "".join(f"{domain};" for domain in search))
    return lines
