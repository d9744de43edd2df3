"""Guests are told their network: sealed where the agent can, through vm-data where it is old."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent_protocol.outcomes import Failed, Outcome, Unknown, Unsupported
from compute_driver.agents import AgentsInMemory
from compute_driver.network import Interface
from compute_driver.network_data import to_legacy, to_network_apply
from compute_driver.xenapi.agents.agent import GuestAgents

from ..guest import VM_RECORD, Guest
from ..plugin import Plugin, reply

INTERFACE = Interface.from_dict(
    {
        "id": "port-1",
        "mac": "00:16:3e:00:00:01",
        "network": {"bridge": "xenbr0"},
        "addresses": ["192.0.2.5/24"],
        "gateway4": "192.0.2.1",
    }
)
OTHERS = {"vm-data/networking/00163E0000FF": "{}", "vm-data/hostname": "web", "other": "kept"}


class Server:
    """XenServer with one guest, its plugin, and what is published to it."""

    def __init__(self, plugin: Plugin) -> None:
        self.plugin = plugin
        self.published = dict(OTHERS)
        self.order: list[str] = []

    def call(self, method: str, *arguments: Any, timeout: float = 0.0) -> Any:
        self.order.append(method)
        if method == "VM.get_xenstore_data":
            return dict(self.published)
        if method == "VM.set_xenstore_data":
            self.published = arguments[1]
            return ""
        return self.plugin.call(method, *arguments, timeout=timeout)


def agents(plugin: Plugin, policy: str = "prefer-sealed") -> tuple[GuestAgents, Server]:
    server: Any = Server(plugin)
    return GuestAgents(server, AgentsInMemory(), policy=policy, timeout=10.0, boot_timeout=10.0), server


def test_an_agent_of_ours_is_told_sealed_and_nothing_is_published() -> None:
    guest = Guest()
    it, server = agents(guest.plugin)
    it.apply_network(VM_RECORD, [INTERFACE])
    assert guest.agent.done == [("network_apply", json.loads(to_network_apply([INTERFACE])))]
    assert server.published == OTHERS


def test_an_old_agent_reads_it_where_it_always_did() -> None:
    plugin = Plugin()
    it, server = agents(plugin)
    it.apply_network(VM_RECORD, [INTERFACE])
    assert plugin.requests[-1] == ("resetnetwork", "")
    assert server.published == {
        "vm-data/hostname": "web",
        "other": "kept",
        **to_legacy([INTERFACE]),
    }
    published = server.order.index("VM.set_xenstore_data")
    assert "host.call_plugin" in server.order[published:]
    it.apply_network(VM_RECORD, [INTERFACE])
    assert server.order.count("VM.set_xenstore_data") == 1


def test_what_an_old_agent_cannot_be_told_is_not_half_told() -> None:
    it, server = agents(Plugin())
    leased = Interface("port-1", "00:16:3e:00:00:01", INTERFACE.network, dhcp4=True)
    with pytest.raises(Unsupported) as caught:
        it.apply_network(VM_RECORD, [leased])
    assert caught.value.code == "legacy_dhcp"
    assert server.published == OTHERS


def test_an_error_of_an_old_agent_proves_nothing() -> None:
    plugin = Plugin()
    it, _ = agents(plugin, "legacy")
    plugin.say("resetnetwork", reply("500", "something"), reply("1", "told why", code="no_network"))
    with pytest.raises(Unknown) as caught:
        it.reset_network(VM_RECORD)
    assert (caught.value.outcome, caught.value.code) == (Outcome.UNKNOWN, "network_reset_unclear")
    with pytest.raises(Failed) as failed:
        it.reset_network(VM_RECORD)
    assert failed.value.code == "no_network"


def test_reading_it_again() -> None:
    plugin = Plugin()
    it, server = agents(plugin)
    it.reset_network(VM_RECORD)
    assert plugin.requests[-1] == ("resetnetwork", "")
    assert "VM.set_xenstore_data" not in server.order
    sealed, _ = agents(Guest().plugin)
    with pytest.raises(Unsupported) as caught:
        sealed.reset_network(VM_RECORD)
    assert caught.value.code == "network_data_needed"
