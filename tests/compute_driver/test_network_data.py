"""What is told to guests about their interfaces, read by the agent's own parsers, means what was meant."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given, settings

from agent_protocol.outcomes import Refused, Unsupported
from compute_driver.network import Interface
from compute_driver.network_data import LEGACY_NETWORKING, to_legacy, to_network_apply, to_network_data
from guest_agent.network import data as agent
from guest_agent.network.legacy import read_legacy_data
from guest_agent.network.sealed import parse_network_data

from .interfaces import SETS, sets

BASE = {"id": "port-1", "mac": "00:16:3e:00:00:01", "network": {"bridge": "xenbr0"}}


def an_interface(**members: Any) -> Interface:
    return Interface.from_dict({**BASE, **members})


def meaning(interfaces: tuple[Interface, ...], *, legacy: bool = False) -> list[agent.Interface]:
    """The same in the agent's words, by the rules of its default routes. legacy: without what is not told there."""
    defaults4 = agent.default_routes([it.gateway4 for it in interfaces])
    defaults6 = agent.default_routes([it.gateway6 for it in interfaces])
    return [
        agent.Interface(
            it.mac,
            it.addresses,
            (*default4, *default6, *(agent.Route(route.destination, route.gateway) for route in it.routes)),
            it.dns,
            () if legacy else it.search,
            it.dhcp4,
            it.dhcp6,
            None if legacy else it.mtu,
        )
        for it, default4, default6 in zip(interfaces, defaults4, defaults6, strict=True)
    ]


@settings(max_examples=30, deadline=None)
@given(SETS)
def test_the_agent_understands_network_apply(interfaces: tuple[Interface, ...]) -> None:
    assert list(parse_network_data(to_network_apply(interfaces)).interfaces) == meaning(interfaces)


class Nodes:
    """XenStore as a guest sees it: what the host published, and the devices in the order of the interfaces."""

    def __init__(self, published: dict[str, str], interfaces: tuple[Interface, ...]) -> None:
        self._nodes = {**published, **{f"device/vif/{n}/mac": it.mac for n, it in enumerate(interfaces)}}

    def children(self, path: str) -> list[str]:
        below = [name[len(path) + 1 :] for name in self._nodes if name.startswith(f"{path}/")]
        return list(dict.fromkeys(name.partition("/")[0] for name in below))

    def read(self, path: str) -> bytes | None:
        value = self._nodes.get(path)
        return None if value is None else value.encode()


def as_set(interfaces: Any) -> dict[str, Any]:
    return {it.mac: (set(it.addresses), set(it.routes), it.dns, it.mtu) for it in interfaces}


@settings(max_examples=30, deadline=None)
@given(sets(dhcp=False))
def test_old_agents_are_told_the_same(interfaces: tuple[Interface, ...]) -> None:
    published = to_legacy(interfaces)
    assert all(len(value) <= 2048 for value in published.values())
    read = read_legacy_data(Nodes(published, interfaces))
    assert read.network is not None
    assert as_set(read.network.interfaces) == as_set(meaning(interfaces, legacy=True))


def test_the_nodes_that_old_agents_read() -> None:
    published = to_legacy([an_interface(addresses=["192.0.2.5/24", "2001:db8::5/64"], gateway4="192.0.2.1")])
    ((name, value),) = published.items()
    assert name == f"{LEGACY_NETWORKING}/00163E000001"
    assert json.loads(value) == {
        "label": "public",
        "mac": "00:16:3E:00:00:01",
        "ips": [{"ip": "192.0.2.5", "netmask": "255.255.255.0", "enabled": "1"}],
        "ip6s": [{"ip": "2001:db8::5", "netmask": "64", "enabled": "1"}],
        "gateway": "192.0.2.1",
        "dns": [],
        "routes": [],
    }


@pytest.mark.parametrize(
    "members, code",
    [
        ({"dhcp4": True}, "legacy_dhcp"),
        ({"dhcp6": True}, "legacy_dhcp"),
        ({"addresses": ["192.0.2.5/24"], "gateway6": "fe80::1"}, "legacy_gateway"),
    ],
)
def test_what_old_agents_know_nothing_of(members: dict[str, Any], code: str) -> None:
    with pytest.raises(Unsupported) as caught:
        to_legacy([an_interface(**members)])
    assert caught.value.code == code


def test_more_than_a_node_holds() -> None:
    with pytest.raises(Refused) as caught:
        to_legacy([an_interface(addresses=[f"192.0.2.{n}/24" for n in range(1, 64)])])
    assert caught.value.code == "network_data_too_large"


def test_without_an_interface_there_is_nothing_to_tell() -> None:
    for render in (to_network_apply, to_legacy):
        with pytest.raises(Refused):
            render([])
    assert to_network_data([]) == {"links": [], "networks": [], "services": []}


@settings(max_examples=30, deadline=None)
@given(SETS)
def test_network_data_of_openstack_means_the_same(interfaces: tuple[Interface, ...]) -> None:
    told = to_network_data(interfaces)
    assert json.loads(json.dumps(told)) == told
    assert [(link["id"], link["ethernet_mac_address"], link["mtu"]) for link in told["links"]] == [
        (it.id, it.mac, it.mtu) for it in interfaces
    ]
    assert len({network["id"] for network in told["networks"]}) == len(told["networks"])
    assert {service["address"] for service in told["services"]} == {str(a) for it in interfaces for a in it.dns}
    for it in interfaces:
        networks = [network for network in told["networks"] if network["link"] == it.id]
        static = [n for n in networks if not n["type"].endswith("_dhcp")]
        assert {ip_interface(f"{n['ip_address']}/{_prefix(n['netmask'])}") for n in static} == set(it.addresses)
        assert {n["type"] for n in networks if n["type"].endswith("_dhcp")} == {
            *(["ipv4_dhcp"] if it.dhcp4 else []),
            *(["ipv6_dhcp"] if it.dhcp6 else []),
        }
        wanted = {(route.destination, route.gateway) for route in it.routes}
        wanted |= {(ip_network("0.0.0.0/0"), it.gateway4)} if it.gateway4 else set()
        wanted |= {(ip_network("::/0"), it.gateway6)} if it.gateway6 else set()
        told_routes = [
            (ip_network(f"{r['network']}/{_prefix(r['netmask'])}"), ip_address(r["gateway"]))
            for n in networks
            for r in n["routes"]
        ]
        assert len(told_routes) == len(set(told_routes))
        assert set(told_routes) == wanted


def _prefix(netmask: str) -> int:
    return bin(int(ip_address(netmask))).count("1")


def test_the_first_gateway_is_the_one_that_is_used() -> None:
    first = an_interface(addresses=["192.0.2.5/24"])
    second = an_interface(id="p2", mac="00:16:3e:00:00:02", addresses=["198.51.100.5/24"], gateway4="198.51.100.1")
    third = an_interface(id="p3", mac="00:16:3e:00:00:03", addresses=["203.0.113.5/24"], gateway4="203.0.113.1")
    labels = [json.loads(value)["label"] for value in to_legacy([first, second, third]).values()]
    assert labels == ["private", "public", "private"]
