"""The pool's hosts, by the name that the cloud knows them by: their hypervisor_hostname is XenServer's hostname."""

from __future__ import annotations

from agent_protocol.outcomes import Refused

from ...errors import ObjectGone
from ..connection.session import XenServer


def names(server: XenServer) -> dict[str, str]:
    """All hosts of the pool: their references, by name. Refused with `node_name_ambiguous` when two bear the same."""
    hosts: dict[str, str] = {}
    for ref, untrusted_record in server.call("host.get_all_records").items():
        name = str(untrusted_record["hostname"])
        if name in hosts:
            raise Refused("node_name_ambiguous", f"the pool has several hosts {name!r}; give them names of their own")
        hosts[name] = str(ref)
    return hosts


def find(server: XenServer, node: str) -> str:
    """The reference of the host of that name. Refused with `node_not_found` when the pool has none."""
    try:
        return names(server)[node]
    except KeyError:
        raise Refused("node_not_found", f"the pool has no host {node!r}") from None


def name(server: XenServer, host: str) -> str:
    """The name of a host (a ref) as XenServer's events told of it; empty for none, or one that left the pool."""
    if host == "OpaqueRef:NULL":
        return ""
    try:
        return str(server.events.record("host", host)["hostname"])
    except ObjectGone:
        return ""
