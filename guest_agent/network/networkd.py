"""systemd-networkd: one .network file for each interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from agent_protocol.outcomes import Refused

from ..system.paths import GuestPath
from .data import Interface, NetworkData
from .facets import ignores_advertisements, label_of, name_of
from .keyfile import entries
from .renderer import Change, Files, Renderer
from .takeover import HEADER, put, remove

_DIRECTORY = "/etc/systemd/network"
_DIRECTORIES = (_DIRECTORY, "/run/systemd/network", "/usr/lib/systemd/network")

_FIRST = "00-xenward-"
_MAC_KEYS = ("MACAddress", "PermanentMACAddress")

_MODE = 0o644
"""networkd runs as a user of its own and must be able to read them."""


class Networkd(Renderer):
    """00-xenward-<MAC>.network. Of the files that match an interface networkd takes the first one by name.

    So what netplan, cloud-init and administrators name 05- or 10- may stay. A file that comes before ours even so gives
    way when it names nothing but our interface, and is refused (`network_conflict`) when it matches others too.
    """

    name = "networkd"
    needs_names = False

    def render(self, data: NetworkData, names: Mapping[str, str], files: Files) -> Sequence[Change]:
        macs = {interface.mac for interface in data.interfaces}
        taken = {names[mac] for mac in macs if mac in names}
        changes: list[Change] = []
        for directory in _DIRECTORIES:
            for file_name in files.names(GuestPath(directory)):
                if file_name.endswith(".network") and not file_name.startswith(".") and file_name < _FIRST:
                    changes += _give_way(files, GuestPath(f"{directory}/{file_name}"), macs, taken)
        for interface in data.interfaces:
            path = GuestPath(f"{_DIRECTORY}/00-{label_of(interface)}.network")
            changes += put(files, path, _network(interface), _MODE)
        return changes

    def activation(self, data: NetworkData, names: Mapping[str, str]) -> Sequence[Sequence[str]]:
        return [
            ["networkctl", "reload"],
            ["networkctl", "reconfigure", *(name_of(interface, names) for interface in data.interfaces)],
        ]


def _give_way(files: Files, path: GuestPath, macs: set[str], names: set[str]) -> list[Change]:
    match = entries(files.read(path) or b"", "Match")
    found_macs = {mac.lower().replace("-", ":") for key in _MAC_KEYS for mac in match.get(key, [])}
    found_names = set(match.get("Name", []))
    if (found_macs and not found_macs & macs) or (found_names and not any(_fits(name, names) for name in found_names)):
        return []
    only_ours = (found_macs and found_macs <= macs) or (found_names and found_names <= names)
    if only_ours and path.text.startswith(_DIRECTORY + "/"):
        return remove(files, path)
    raise Refused("network_conflict", f"{path.text[:200]!r} comes before the agent's files and may match ours")


def _fits(pattern: str, names: set[str]) -> bool:
    """Whether a pattern of Name= may stand for one of these; a negated one may for any."""
    return pattern.startswith("!") or any(fnmatchcase(name, pattern) for name in names)


def _network(interface: Interface) -> str:
    # Type: a bridge or VLAN on top of the interface has its MAC address too, but another type.
    lines = ["[Match]", f"MACAddress={interface.mac}", "Type=ether"]
    if interface.mtu is not None:
        lines += ["", "[Link]", f"MTUBytes={interface.mtu}"]
    dhcp = {(False, False): "no", (True, False): "ipv4", (False, True): "ipv6", (True, True): "yes"}
    lines += ["", "[Network]", f"DHCP={dhcp[interface.dhcp4, interface.dhcp6]}"]
    if ignores_advertisements(interface):
        lines.append("IPv6AcceptRA=no")
    lines += [f"Address={address}" for address in interface.addresses]
    lines += [f"DNS={server}" for server in interface.dns]
    lines += [f"Domains={domain}" for domain in interface.search]
    for route in interface.routes:
        lines += ["", "[Route]", f"Destination={route.destination}", f"Gateway={route.gateway}"]
        if not interface.addresses:
            # networkd does so by itself then, with a complaint in its log.
            lines.append("GatewayOnLink=yes")
        if route.metric is not None:
            lines.append(f"Metric={route.metric}")
    return HEADER + "\n".join(lines) + "\n"
