"""interfaces(5), which Debian's ifupdown, ifupdown-ng and BusyBox read: writing stanzas, and taking them out.

What is written here all three take: one stanza for each family, for BusyBox knows no second one; a netmask of its own,
for BusyBox needs it; everything that their options differ in is a command of iproute2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .data import Interface
from .facets import addresses_of, ignores_advertisements, routes_of

_ONE_STANZA = ("iface", "mapping", "template")
_ONE_LINE = ("auto", "source", "source-directory", "source-dir", "no-auto-down", "no-scripts", "rename")

_AUTO = re.compile(r"auto|allow-\S+")


def stanzas(interface: Interface, name: str, first: Sequence[str] = (), last: Sequence[str] = ()) -> str:
    """What configures the interface. first, last: options to start the first stanza with, and to end it."""
    commands = list(first)
    if interface.mtu is not None:
        commands.append(f"pre-up ip link set dev {name} mtu {interface.mtu}")
    if ignores_advertisements(interface):
        commands.append(f"pre-up echo 0 > /proc/sys/net/ipv6/conf/{name}/accept_ra")
    has_ipv4 = interface.dhcp4 or bool(addresses_of(interface, 4))
    has_ipv6 = interface.dhcp6 or bool(addresses_of(interface, 6)) or bool(routes_of(interface, 6))
    lines = [f"auto {name}"]
    for version in [4] * has_ipv4 + [6] * has_ipv6 or [4]:
        lines += _stanza(interface, name, version, commands, last)
        commands, last = [], ()
    return "\n".join(lines) + "\n"


def _stanza(interface: Interface, name: str, version: int, first: Sequence[str], last: Sequence[str]) -> list[str]:
    family = "inet" if version == 4 else "inet6"
    addresses = addresses_of(interface, version)
    options = list(first)
    if interface.dhcp4 if version == 4 else interface.dhcp6:
        method = "dhcp"
    elif addresses:
        method = "static"
        one = addresses.pop(0)
        options += [f"address {one.ip}", f"netmask {one.netmask if version == 4 else one.network.prefixlen}"]
    else:
        method = "manual"
        options.append(f"up ip link set dev {name} up")
    options += [f"up ip -{version} address replace {address} dev {name}" for address in addresses]
    for route in routes_of(interface, version):
        metric = "" if route.metric is None else f" metric {route.metric}"
        options.append(f"up ip -{version} route replace {route.destination} via {route.gateway} dev {name}{metric}")
    return [f"iface {name} {family} {method}", *(f"    {option}" for option in [*options, *last])]


def without(text: str, names: set[str]) -> str:
    """The text without the stanzas of these interfaces and of their aliases (as eth0:1), and without starting them.

    Everything else, comments and empty lines in and after those stanzas too, stays as it is to the byte.
    """
    kept: list[str] = []
    dropping = False
    for line in _logical_lines(text):
        words = line.replace("\\\n", " ").split()
        if not words or words[0].startswith("#"):
            kept.append(line)
            continue
        if words[0] in _ONE_STANZA:
            dropping = words[0] == "iface" and len(words) > 1 and _is_one_of(words[1], names)
        elif _AUTO.fullmatch(words[0]):
            dropping = False
            left = [word for word in words[1:] if not _is_one_of(word, names)]
            if len(left) < len(words) - 1:
                if left:
                    kept.append(" ".join([words[0], *left]) + "\n")
                continue
        elif words[0] in _ONE_LINE:
            dropping = False
        if not dropping:
            kept.append(line)
    return "".join(kept)


def _is_one_of(word: str, names: set[str]) -> bool:
    return word in names or word.partition(":")[0] in names


def _logical_lines(text: str) -> list[str]:
    """Lines with their ends; one that ends in a backslash goes on in the next. A comment does too (interfaces(5))."""
    lines: list[str] = []
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        if lines and lines[-1].endswith("\\\n"):
            lines[-1] += line
        else:
            lines.append(line)
    return lines
