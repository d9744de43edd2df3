"""/etc/resolv.conf, for stacks that have no place of their own for DNS servers."""

from __future__ import annotations

from agent_protocol.outcomes import Refused

from ..system.paths import GuestPath
from .data import NetworkData, bad
from .renderer import Change, Files
from .takeover import HEADER, copy

_RESOLV_CONF = GuestPath("/etc/resolv.conf")


def resolver_changes(data: NetworkData, files: Files) -> list[Change]:
    """The changes that give the system data's DNS servers and search domains, in their order, each once.

    Other lines stay, as the options. Without any in the data the file stays as it is, for the ones in it came from
    elsewhere. All of them are written, though C libraries ask the first three only (resolv.conf(5)). Refused
    (`bad_network_data`) when another program keeps the file: then it is a symbolic link.
    """
    servers = list(dict.fromkeys(str(server) for interface in data.interfaces for server in interface.dns))
    domains = list(dict.fromkeys(domain for interface in data.interfaces for domain in interface.search))
    if not servers and not domains:
        return []
    try:
        present = files.read(_RESOLV_CONF)
    except Refused:
        raise bad("/etc/resolv.conf is no plain file: DNS servers are another program's to set here") from None
    replaced = {"nameserver"} if servers else set()
    replaced |= {"search", "domain"} if domains else set()
    lines = (present or b"").decode("utf-8", "surrogateescape").split("\n")
    kept = [line for line in lines if line.split()[:1] and line.split()[0] not in replaced and line + "\n" != HEADER]
    written = ["search " + " ".join(domains)] if domains else []
    written += [f"nameserver {server}" for server in servers]
    text = HEADER + "".join(f"{line}\n" for line in [*kept, *written])
    content = text.encode("utf-8", "surrogateescape")
    if content == present:
        return []
    saved = [] if present is None or present.startswith(HEADER.encode()) else copy(files, _RESOLV_CONF, present)
    return [*saved, Change(_RESOLV_CONF, content)]
