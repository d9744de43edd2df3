"""Networks that each stack is shown with, and the comparison with the files that they are expected to become.

golden/<stack>/<case>/ is the guest's root afterwards; golden/<stack>/takeover-before is what takeover starts from.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

from guest_agent.network.data import Interface, NetworkData, Route
from guest_agent.network.renderers import RENDERERS

from .memory import MemoryFiles, rendered, tree

GOLDEN = Path(__file__).parent / "golden"

ETH0, ETH1 = "00:16:3e:00:00:01", "00:16:3e:00:00:02"
NAMES = {ETH0: "eth0", ETH1: "eth1"}


def route(destination: str, gateway: str, metric: int | None = None) -> Route:
    return Route(ip_network(destination), ip_address(gateway), metric)


def interface(
    mac: str = ETH0,
    addresses: str = "",
    routes: tuple[Route, ...] = (),
    dns: str = "",
    search: str = "",
    dhcp4: bool = False,
    dhcp6: bool = False,
    mtu: int | None = None,
) -> Interface:
    """An interface whose addresses, DNS servers and domains are given as words."""
    return Interface(
        mac,
        tuple(ip_interface(word) for word in addresses.split()),
        routes,
        tuple(ip_address(word) for word in dns.split()),
        tuple(search.split()),
        dhcp4,
        dhcp6,
        mtu,
    )


def network(*interfaces: Interface) -> NetworkData:
    return NetworkData(interfaces)


STATIC = network(
    interface(addresses="192.0.2.10/24", routes=(route("0.0.0.0/0", "192.0.2.1"),), dns="192.0.2.53 198.51.100.53")
)
DUAL_STACK = network(
    interface(
        addresses="192.0.2.10/24 192.0.2.11/24 203.0.113.5/28 2001:db8:1::10/64 2001:db8:1::11/64",
        routes=(
            route("0.0.0.0/0", "192.0.2.1"),
            route("0.0.0.0/0", "192.0.2.2", 500),
            route("10.0.0.0/8", "203.0.113.1"),
            route("172.16.0.0/12", "192.0.2.254", 50),
            route("::/0", "fe80::1"),
            route("2001:db8:2::/48", "2001:db8:1::1", 100),
        ),
        dns="192.0.2.53 2001:db8:1::53",
        search="example.org lab.example.org",
        mtu=1400,
    )
)
TWO_INTERFACES = network(
    interface(dhcp4=True),
    interface(ETH1, addresses="198.51.100.7/25 2001:db8:3::7/64", dns="198.51.100.1", search="example.net"),
)

CASES = {"static": STATIC, "dual-stack": DUAL_STACK, "two-interfaces": TWO_INTERFACES, "takeover": STATIC}


def case_files(stack: str, case: str) -> MemoryFiles:
    """The guest's files after the case."""
    before = tree(GOLDEN / stack / f"{case}-before")
    assert bool(before) == (case == "takeover"), "the files of the takeover are missing"
    return rendered(RENDERERS[stack], CASES[case], NAMES, before)


def assert_golden(stack: str, case: str) -> None:
    """The case's files are the expected ones, to the byte, with none missing and none too many."""
    expected = tree(GOLDEN / stack / case)
    assert expected
    assert case_files(stack, case).contents == expected
