from __future__ import annotations

from ipaddress import IPv6Address, IPv6Interface, ip_address, ip_interface, ip_network
from typing import Any

import pytest

from agent_protocol.outcomes import Refused
from guest_agent.network.data import (
    DEFAULT4,
    DEFAULT6,
    MAX_ADDRESSES,
    MAX_DNS,
    MAX_INTERFACES,
    MAX_ROUTES,
    MAX_SEARCH,
    Interface,
    NetworkData,
    Route,
    default_routes,
)

MAC = "00:16:3e:00:00:01"
OWN = ip_interface("192.0.2.5/24")
GATEWAY = ip_address("192.0.2.1")


def refused(**members: Any) -> str:
    with pytest.raises(Refused) as caught:
        Interface(**{"mac": MAC, **members})
    assert caught.value.code == "bad_network_data"
    return caught.value.message


@pytest.mark.parametrize(
    "mac",
    [
        "",
        "00163e000001",
        "00:16:3E:00:00:01",
        "01:16:3e:00:00:01",
        "00:00:00:00:00:00",
        "00:16:3e:00:00:01\n",
        "ff" * 6,
    ],
)
def test_macs(mac: str) -> None:
    assert "unicast MAC address" in refused(mac=mac)


@pytest.mark.parametrize(
    "address", ["224.0.0.1/4", "0.0.0.0/0", "127.0.0.1/8", "255.255.255.255/32", "::1/128", "ff02::1/64", "fe80::1/64"]
)
def test_addresses_that_no_interface_can_have(address: str) -> None:
    assert "cannot be the address" in refused(addresses=(ip_interface(address),))


def test_text_behind_an_address() -> None:
    # Python takes anything for a scope, and gives it back with the address.
    text = "%eth0\nroot::0:0:::"
    assert "cannot be the address" in refused(addresses=(IPv6Interface(f"2001:db8::1{text}/64"),))
    assert "cannot be a DNS server" in refused(dns=(IPv6Address(f"2001:db8::1{text}"),))
    with pytest.raises(Refused, match="cannot be a gateway"):
        Route(DEFAULT6, IPv6Address(f"fe80::1{text}"))


def test_gateways() -> None:
    default = Route(DEFAULT4, GATEWAY)
    assert "does not reach the gateway" in refused(routes=(default,))
    assert "does not reach the gateway" in refused(routes=(default,), dhcp6=True)
    assert "own address" in refused(addresses=(ip_interface("192.0.2.1/24"),), routes=(default,))
    assert "two routes" in refused(addresses=(OWN,), routes=(default, Route(DEFAULT4, ip_address("192.0.2.2"))))
    for unusable in ("192.0.2.0", "192.0.2.255"):
        route = Route(DEFAULT4, ip_address(unusable))
        assert "whole network" in refused(addresses=(ip_interface("192.0.2.5/24"),), routes=(route,))
    Interface(MAC, (ip_interface("192.0.2.0/31"),), (Route(DEFAULT4, ip_address("192.0.2.1")),))
    Interface(MAC, (OWN,), (default, Route(DEFAULT4, GATEWAY, 5)))
    Interface(MAC, (), (default,), dhcp4=True)
    Interface(MAC, (), (Route(DEFAULT6, ip_address("fe80::1")),))


@pytest.mark.parametrize("metric", [0, -1, 2**32 - 1])
def test_metrics(metric: int) -> None:
    with pytest.raises(Refused, match="metric"):
        Route(DEFAULT4, GATEWAY, metric)


def test_families() -> None:
    with pytest.raises(Refused, match="other family"):
        Route(DEFAULT6, GATEWAY)


def test_mtus() -> None:
    assert "between 576" in refused(mtu=575)
    assert "between 1280" in refused(mtu=1279, dhcp6=True)
    assert "between 1280" in refused(mtu=1279, addresses=(ip_interface("2001:db8::1/64"),))
    assert "65535" in refused(mtu=65536)
    Interface(MAC, mtu=576)


@pytest.mark.parametrize("domain", ["", ".", "a..b", "-a", "a b", "a\n", "ä", "a" * 64, ".".join(["a" * 60] * 5)])
def test_domains(domain: str) -> None:
    assert "DNS name" in refused(search=(domain,))


def test_limits() -> None:
    many = [ip_interface(f"10.0.{number // 200}.{number % 200 + 1}/16") for number in range(100)]
    assert f"at most {MAX_ADDRESSES} addresses, these are {MAX_ADDRESSES + 1}" in refused(
        addresses=tuple(many[: MAX_ADDRESSES + 1])
    )
    routes = tuple(Route(ip_network(f"172.16.{number}.0/24"), GATEWAY) for number in range(MAX_ROUTES + 1))
    assert "routes" in refused(addresses=(OWN,), routes=routes)
    assert "DNS servers" in refused(dns=(GATEWAY,) * (MAX_DNS + 1))
    assert "search domains" in refused(search=("a",) * (MAX_SEARCH + 1))
    with pytest.raises(Refused, match="interfaces"):
        NetworkData(tuple(Interface(f"02:00:00:00:00:{number:02x}") for number in range(MAX_INTERFACES + 1)))


def test_what_two_interfaces_cannot_share() -> None:
    with pytest.raises(Refused, match="no interface"):
        NetworkData(())
    with pytest.raises(Refused, match="one MAC address"):
        NetworkData((Interface(MAC), Interface(MAC)))
    with pytest.raises(Refused, match="one address"):
        NetworkData((Interface(MAC, (OWN,)), Interface("00:16:3e:00:00:02", (OWN,))))
    assert "an address twice" in refused(addresses=(OWN, ip_interface("192.0.2.5/25")))


def test_default_routes_do_not_compete() -> None:
    other = ip_address("198.51.100.1")
    assert default_routes([None, GATEWAY]) == [(), (Route(DEFAULT4, GATEWAY),)]
    assert default_routes([GATEWAY, None, other]) == [
        (Route(DEFAULT4, GATEWAY, 100),),
        (),
        (Route(DEFAULT4, other, 200),),
    ]
    assert default_routes([ip_address("fe80::1")])[0][0].destination == DEFAULT6
