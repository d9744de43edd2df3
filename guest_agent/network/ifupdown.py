"""ifupdown: Debian's /etc/network/interfaces and the files of /etc/network/interfaces.d."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..system.paths import GuestPath
from .data import Interface, NetworkData
from .facets import label_of, name_of
from .renderer import Change, Files, Renderer
from .resolver import resolver_changes
from .stanzas import stanzas, without
from .takeover import HEADER, copy, put

_INTERFACES = GuestPath("/etc/network/interfaces")
_DIRECTORY = GuestPath("/etc/network/interfaces.d")
_HOOKS = GuestPath("/etc/network/if-up.d")

_SOURCED = re.compile(
    r"^[ \t]*(source[ \t]+(/etc/network/)?interfaces\.d/\*"
    r"|source-dir(ectory)?[ \t]+(/etc/network/)?interfaces\.d/?)[ \t]*$",
    re.MULTILINE,
)

_CLIENTS = ("dhclient.{}", "dhclient6.{}", "udhcpc.{}", "dhcpcd/{}", "dhcpcd/{}-4", "dhcpcd/{}-6")
"""Below /run, without `.pid`: where ifupdown's DHCP clients, and dhcpcd itself, note their process ids."""


class Ifupdown(Renderer):
    """interfaces.d/xenward-<MAC>, with stanzas by name. Stanzas that others have for the interface are taken out, for
    ifupdown runs all there are; `mapping` stanzas, and files sourced from elsewhere, stay.

    DNS servers are options of the stanza where a hook of resolvconf is there to take them, else /etc/resolv.conf has
    them; a DHCP client then replaces them with each lease.
    """

    name = "ifupdown"
    needs_names = True

    def render(self, data: NetworkData, names: Mapping[str, str], files: Files) -> Sequence[Change]:
        own = {label_of(interface): interface for interface in data.interfaces}
        taken = {name_of(interface, names) for interface in data.interfaces}
        changes = _main_file(files, taken)
        for file_name in files.names(_DIRECTORY):
            if not file_name.startswith(".") and file_name not in own:
                path = GuestPath(f"{_DIRECTORY.text}/{file_name}")
                changes += _edited(path, files, files.read(path) or b"", taken)
        hooked = any("resolvconf" in hook for hook in files.names(_HOOKS))
        for file_name, interface in own.items():
            options = _dns_options(interface) if hooked else []
            text = HEADER + stanzas(interface, name_of(interface, names), last=options)
            changes += put(files, GuestPath(f"{_DIRECTORY.text}/{file_name}"), text)
        return changes if hooked else [*changes, *resolver_changes(data, files)]

    def activation(self, data: NetworkData, names: Mapping[str, str]) -> Sequence[Sequence[str]]:
        """ifdown goes by the stanza that is there now, not by the one that ifup went by: so DHCP clients and addresses
        of before are ended here. Interfaces go down and up one after the other."""
        commands: list[list[str]] = []
        for interface in data.interfaces:
            name = name_of(interface, names)
            commands.append(["ifdown", "--force", name])
            for client in _CLIENTS:
                pidfile = f"/run/{client.format(name)}.pid"
                commands.append(["start-stop-daemon", "--stop", "--oknodo", "--quiet", "--pidfile", pidfile])
            commands.append(["ip", "address", "flush", "dev", name, "scope", "global"])
            commands.append(["ifup", "--force", name])
        return commands


def _dns_options(interface: Interface) -> list[str]:
    options = []
    if interface.dns:
        options.append("dns-nameservers " + " ".join(str(server) for server in interface.dns))
    if interface.search:
        options.append("dns-search " + " ".join(interface.search))
    return options


def _main_file(files: Files, taken: set[str]) -> list[Change]:
    present = files.read(_INTERFACES)
    if present is None:
        present = b"auto lo\niface lo inet loopback\n"
    text = present.decode("utf-8", "surrogateescape")
    if _SOURCED.search(text):
        return _edited(_INTERFACES, files, present, taken)
    rest = without(text, taken)
    rest += "\n" if rest and not rest.endswith("\n") else ""
    content = (rest + f"\nsource {_DIRECTORY.text}/*\n").encode("utf-8", "surrogateescape")
    saved = copy(files, _INTERFACES, present) if without(text, taken) != text else []
    return [*saved, Change(_INTERFACES, content)]


def _edited(path: GuestPath, files: Files, present: bytes, taken: set[str]) -> list[Change]:
    text = present.decode("utf-8", "surrogateescape")
    rest = without(text, taken)
    if rest == text:
        return []
    saved = [] if text.startswith(HEADER) else copy(files, path, present)
    return [*saved, Change(path, rest.encode("utf-8", "surrogateescape"))]
