"""netplan's files."""

from __future__ import annotations

import pytest

from agent_protocol.outcomes import Refused
from guest_agent.network.data import NetworkData
from guest_agent.network.renderers import RENDERERS

from .cases import CASES, DUAL_STACK, ETH0, NAMES, STATIC, assert_golden, interface, network, route
from .memory import MemoryFiles, rendered

RENDERER = RENDERERS["netplan"]


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    assert_golden("netplan", case)


FILE = "/etc/netplan/90-xenward-00163e000001.yaml"


def test_only_the_superuser_reads_it() -> None:
    assert rendered(RENDERER, STATIC, NAMES).modes == {FILE: 0o600}


def test_activation() -> None:
    assert RENDERER.activation(DUAL_STACK, NAMES) == [["netplan", "apply"]]


def advertisements(**options: object) -> bool:
    """Whether router advertisements are left to the system."""
    data = network(interface(addresses="2001:db8::2/64", **options))  # type: ignore[arg-type]
    return "accept-ra" not in rendered(RENDERER, data, NAMES).text(FILE)


def test_advertisements_are_ignored_only_where_the_default_route_is_given() -> None:
    assert advertisements()
    assert advertisements(routes=(route("2001:db8:9::/48", "fe80::1"),))
    assert not advertisements(routes=(route("::/0", "fe80::1"),))
    assert advertisements(routes=(route("::/0", "fe80::1"),), dhcp6=True)


@pytest.mark.parametrize(
    "other",
    [
        "network: {renderer: NetworkManager, ethernets: {eth0: {dhcp4: true}}}",
        'network:\n  renderer: "NetworkManager"\n  ethernets:\n    x:\n      match: {macaddress: 00:16:3E:00:00:01}\n',
    ],
)
@pytest.mark.parametrize("directory", ["/etc/netplan", "/run/netplan", "/usr/lib/netplan"])
def test_a_second_definition_for_networkmanager(other: str, directory: str) -> None:
    """NetworkManager might choose either, and it cannot be taken out here: it is refused."""
    with pytest.raises(Refused) as raised:
        RENDERER.render(STATIC, NAMES, MemoryFiles({f"{directory}/01-mine.yaml": other.encode()}))
    assert raised.value.code == "network_conflict"
    assert "01-mine.yaml" in raised.value.message


@pytest.mark.parametrize(
    "other",
    [
        "network: {renderer: NetworkManager}",
        "network: {renderer: NetworkManager}\n# eth0 00:16:3e:00:00:01",
        "network: {renderer: NetworkManager, ethernets: {eth01: {dhcp4: true}}, vlans: {eth0.5: {id: 5}}}",
        "network: {renderer: networkd, ethernets: {eth0: {dhcp4: true}}}",
        "network: {ethernets: {eth0: {dhcp4: true}}} # renderer: NetworkManager",
    ],
)
def test_no_conflict(other: str) -> None:
    files = rendered(RENDERER, STATIC, NAMES, {"/etc/netplan/01-mine.yaml": other.encode()})
    assert set(files.contents) == {FILE, "/etc/netplan/01-mine.yaml"}


def test_metrics_that_netplan_writes_wrongly() -> None:
    def with_metric(metric: int) -> NetworkData:
        return network(interface(addresses="192.0.2.2/24", routes=(route("10.0.0.0/8", "192.0.2.1", metric),)))

    assert "metric: 2147483647\n" in rendered(RENDERER, with_metric(2**31 - 1), NAMES).text(FILE)
    with pytest.raises(Refused, match="2147483647"):
        RENDERER.render(with_metric(2**31), NAMES, MemoryFiles())


def test_what_was_edited_by_hand_is_kept() -> None:
    files = rendered(RENDERER, STATIC, {ETH0: "eth0"}, {FILE: b"network: {}\n"})
    assert files.contents["/etc/netplan/.90-xenward-00163e000001.yaml.xenward-saved"] == b"network: {}\n"
    again = rendered(RENDERER, STATIC, NAMES, {**files.contents, FILE: b"network: {version: 2}\n"})
    assert again.contents["/etc/netplan/.90-xenward-00163e000001.yaml.xenward-saved"] == b"network: {}\n"
    assert again.contents["/etc/netplan/.90-xenward-00163e000001.yaml.xenward-saved-2"] == b"network: {version: 2}\n"
