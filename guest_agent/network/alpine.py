"""Alpine: /etc/network/interfaces as BusyBox or ifupdown-ng read it, and /etc/resolv.conf."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..system.paths import GuestPath
from .data import Interface, NetworkData, bad
from .facets import name_of
from .renderer import Change, Files, Renderer
from .resolver import resolver_changes
from .stanzas import stanzas, without
from .takeover import HEADER, copy

_INTERFACES = GuestPath("/etc/network/interfaces")


class Alpine(Renderer):
    """Stanzas in the one file that both read; those that were there for our interfaces are taken out.

    udhcpc replaces the DNS servers with each lease. DHCPv6 is refused (`bad_network_data`): BusyBox has no such method.
    """

    name = "alpine"
    needs_names = True

    def render(self, data: NetworkData, names: Mapping[str, str], files: Files) -> Sequence[Change]:
        taken = {name_of(interface, names) for interface in data.interfaces}
        present = files.read(_INTERFACES)
        text = (b"auto lo\niface lo inet loopback\n" if present is None else present).decode("utf-8", "surrogateescape")
        ours, others = _split(text)
        rest = without(others, taken)
        blocks = [without(block, taken) for block in ours]
        blocks = [block for block in blocks if block.strip()]
        blocks += [_block(interface, name_of(interface, names)) for interface in data.interfaces]
        separator = "" if not rest or rest.endswith("\n") else "\n"
        content = (rest + separator + "".join(f"\n{HEADER}{block}" for block in blocks)).encode(
            "utf-8", "surrogateescape"
        )
        saved = copy(files, _INTERFACES, present) if present is not None and rest != others else []
        return [*saved, Change(_INTERFACES, content), *resolver_changes(data, files)]

    def activation(self, data: NetworkData, names: Mapping[str, str]) -> Sequence[Sequence[str]]:
        """ifdown only knows the stanzas that are there now, so addresses of before are ended here, and a DHCP client of
        before is ended by the stanza itself."""
        commands: list[list[str]] = []
        for interface in data.interfaces:
            name = name_of(interface, names)
            commands.append(["ifdown", "-f", name])
            commands.append(["ip", "address", "flush", "dev", name, "scope", "global"])
            commands.append(["ifup", "-f", name])
        return commands


def _split(text: str) -> tuple[list[str], str]:
    """The agent's blocks, each from its header to the next empty line, and all the rest."""
    others, *ours = re.split(r"\n?^" + re.escape(HEADER), text, flags=re.MULTILINE)
    blocks = []
    for chunk in ours:
        block, end, after = chunk.partition("\n\n")
        blocks.append(block + "\n" if end else block)
        others += "\n" + after if end else ""
    return blocks, others


def _block(interface: Interface, name: str) -> str:
    if interface.dhcp6:
        raise bad(f"Alpine asks no DHCPv6 server, as {interface.mac} needs")
    ended = [] if interface.dhcp4 else [f"pre-up kill $(cat /run/udhcpc.{name}.pid 2>/dev/null) 2>/dev/null || true"]
    return stanzas(interface, name, first=ended)
