"""What it takes to put a Windows guest's network back, kept in a file of the agent while a change is under way.

The record is written before the first change and removed after the last look. One that stands when the agent starts
means that an earlier run ended in the middle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network

from agent_protocol.messages import MessageError
from agent_protocol.strict import Members, dumps

from .network_model import IPV4, IPV6, AdapterSettings, ProtocolSettings, StateFiles, StoredRoute

RECORD = "network-undo.json"
"""Its name among the agent's files."""

_VERSION = 1
_GUID = re.compile(r"\{[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}\}\Z")


@dataclass(frozen=True)
class Record:
    """A change under way. adapters: their settings before it, by GUID. search_list: that of the system, None when the
    change does not concern it."""

    adapters: Mapping[str, AdapterSettings]
    search_list: tuple[str, ...] | None


def keep(state: StateFiles, record: Record) -> None:
    """Write the record, over any that is there. Errors as write_state."""
    adapters = {guid: _encode(settings) for guid, settings in record.adapters.items()}
    search_list = {} if record.search_list is None else {"search": list(record.search_list)}
    state.write_state(RECORD, dumps({"v": _VERSION, "adapters": adapters, **search_list}).encode("ascii"))


def read(state: StateFiles) -> Record | None:
    """The record, None when there is none. MessageError for an unusable one; errors as read_state."""
    untrusted_content = state.read_state(RECORD)
    if untrusted_content is None:
        return None
    members = Members.loads(untrusted_content, "record")
    members.version(_VERSION)
    adapters = {}
    for untrusted_guid, untrusted in members.tree("adapters").items():
        if not _GUID.match(untrusted_guid):
            raise MessageError("an adapter of the record is not named by a GUID")
        adapters[untrusted_guid] = _settings(Members(untrusted, "record of an adapter"))
    return Record(adapters, members.texts("search") if "search" in members else None)


def forget(state: StateFiles) -> None:
    """Remove the record. Errors as remove_state."""
    state.remove_state(RECORD)


def _encode(settings: AdapterSettings) -> dict[str, object]:
    protocols = {f"ipv{version}": _encode_protocol(settings.protocols[version]) for version in settings.protocols}
    return {"suffix": settings.suffix, **protocols}


def _encode_protocol(settings: ProtocolSettings) -> dict[str, object]:
    routes = [f"{route.destination} {route.gateway} {route.metric}" for route in settings.routes]
    return {
        "automatic": int(settings.automatic),
        "addresses": [str(address) for address in settings.addresses],
        "routes": routes,
        "dns": [str(server) for server in settings.dns],
        "mtu": settings.mtu,
    }


def _settings(members: Members) -> AdapterSettings:
    names = [(version, f"ipv{version}") for version in (IPV4, IPV6) if f"ipv{version}" in members]
    protocols = {version: _protocol(members.object(name), version) for version, name in names}
    return AdapterSettings(protocols, members.text("suffix"))


def _protocol(members: Members, version: int) -> ProtocolSettings:
    try:
        addresses = tuple(ip_interface(text) for text in members.texts("addresses"))
        routes = tuple(_route(text) for text in members.texts("routes"))
        dns = tuple(ip_address(text) for text in members.texts("dns"))
    except ValueError:
        raise MessageError("an address of the record is none") from None
    versions = {entry.version for entry in (*addresses, *dns, *(route.destination for route in routes))}
    if not versions <= {version}:
        raise MessageError("an address of the record is of the other family")
    return ProtocolSettings(bool(members.number("automatic")), addresses, routes, dns, members.number("mtu"))


def _route(untrusted_text: str) -> StoredRoute:
    destination, gateway, metric = untrusted_text.split(" ")
    return StoredRoute(ip_network(destination), ip_address(gateway), int(metric))
