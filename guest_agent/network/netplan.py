"""netplan: Ubuntu's YAML files, which it turns into files of systemd-networkd or NetworkManager."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from agent_protocol.outcomes import Refused

from ..system.paths import GuestPath
from .data import Interface, NetworkData, bad
from .facets import ignores_advertisements, label_of
from .renderer import Change, Files, Renderer
from .takeover import HEADER, put

_DIRECTORY = "/etc/netplan"
_DIRECTORIES = ("/usr/lib/netplan", _DIRECTORY, "/run/netplan")
"""Where netplan reads files (netplan(5))."""

_MODE = 0o600
"""netplan warns of files that others can read: they may hold secrets."""

_MAX_METRIC = 2**31 - 1
"""netplan 0.106 writes greater ones as negative numbers, which networkd does not take."""

_NETWORKMANAGER = re.compile(r"""^[^#\n]*\brenderer["']?\s*:\s*["']?NetworkManager\b""", re.MULTILINE)


class Netplan(Renderer):
    """One file for each interface, 90-xenward-<MAC>.yaml, and a definition that matches the MAC address.

    Definitions of other files stay as they are. Those that match the interface too lose to ours with systemd-networkd:
    it takes the first file that matches, netplan names the files after the definitions, and ours sorts before any other
    that people would think of. NetworkManager has no such order, so there a second definition is refused
    (`network_conflict`) rather than left to chance; to edit it would take a YAML parser, which guests do not have.
    """

    name = "netplan"
    needs_names = False

    def render(self, data: NetworkData, names: Mapping[str, str], files: Files) -> Sequence[Change]:
        own = {f"90-{label_of(interface)}.yaml": interface for interface in data.interfaces}
        _check_conflicts(data, names, _other_texts(files, set(own)))
        return [
            change
            for file_name, interface in own.items()
            for change in put(files, GuestPath(f"{_DIRECTORY}/{file_name}"), _definition(interface), _MODE)
        ]

    def activation(self, data: NetworkData, names: Mapping[str, str]) -> Sequence[Sequence[str]]:  # noqa: ARG002
        return [["netplan", "apply"]]


def _other_texts(files: Files, own: set[str]) -> dict[str, str]:
    texts = {}
    for directory in _DIRECTORIES:
        for file_name in files.names(GuestPath(directory)):
            if file_name.endswith(".yaml") and not file_name.startswith(".") and file_name not in own:
                content = files.read(GuestPath(f"{directory}/{file_name}"))
                texts[file_name] = (content or b"").decode("utf-8", "replace")
    return texts


def _check_conflicts(data: NetworkData, names: Mapping[str, str], texts: Mapping[str, str]) -> None:
    if not any(_NETWORKMANAGER.search(text) for text in texts.values()):
        return
    for interface in data.interfaces:
        words = [re.escape(word) for word in (interface.mac, names.get(interface.mac)) if word]
        mention = re.compile(rf"^[^#\n]*(?<![\w.:-])({'|'.join(words)})(?![\w.-]|:\w)", re.MULTILINE | re.IGNORECASE)
        for file_name, text in texts.items():
            if mention.search(text):
                raise Refused(
                    "network_conflict",
                    f"{file_name[:100]!r} configures {interface.mac} too, and NetworkManager might choose either",
                )


def _definition(interface: Interface) -> str:
    # A digit first: see the class. Every text is written as JSON, which YAML never takes for a number, a time or a key.
    lines = [
        "network:",
        "  version: 2",
        "  ethernets:",
        f"    {json.dumps('00-' + label_of(interface))}:",
        "      match:",
        f"        macaddress: {json.dumps(interface.mac)}",
        f"      dhcp4: {json.dumps(interface.dhcp4)}",
        f"      dhcp6: {json.dumps(interface.dhcp6)}",
    ]
    if ignores_advertisements(interface):
        lines.append("      accept-ra: false")
    if interface.mtu is not None:
        lines.append(f"      mtu: {interface.mtu}")
    if interface.addresses:
        lines.append("      addresses:")
        lines += [f"        - {json.dumps(str(address))}" for address in interface.addresses]
    if interface.routes:
        lines.append("      routes:")
    for route in interface.routes:
        lines.append(f"        - to: {json.dumps(str(route.destination))}")
        lines.append(f"          via: {json.dumps(str(route.gateway))}")
        if route.metric is not None:
            if route.metric > _MAX_METRIC:
                raise bad(f"with netplan a metric is at most {_MAX_METRIC}")
            lines.append(f"          metric: {route.metric}")
    if interface.dns or interface.search:
        lines.append("      nameservers:")
    if interface.dns:
        lines.append(f"        addresses: {json.dumps([str(server) for server in interface.dns])}")
    if interface.search:
        lines.append(f"        search: {json.dumps(list(interface.search))}")
    return HEADER + "\n".join(lines) + "\n"
