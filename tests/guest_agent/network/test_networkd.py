"""systemd-networkd's files."""

from __future__ import annotations

import pytest

from agent_protocol.outcomes import Refused
from guest_agent.network.renderers import RENDERERS

from .cases import CASES, DUAL_STACK, NAMES, STATIC, TWO_INTERFACES, assert_golden, interface, network, route
from .memory import MemoryFiles, rendered

RENDERER = RENDERERS["networkd"]


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    assert_golden("networkd", case)


DIRECTORY = "/etc/systemd/network"
FILE = f"{DIRECTORY}/00-xenward-00163e000001.network"


def test_networkd_can_read_it() -> None:
    assert rendered(RENDERER, DUAL_STACK, NAMES).modes == {FILE: 0o644}


def test_activation() -> None:
    assert RENDERER.activation(TWO_INTERFACES, NAMES) == [
        ["networkctl", "reload"],
        ["networkctl", "reconfigure", "eth0", "eth1"],
    ]


@pytest.mark.parametrize(
    "match", ["MACAddress=00-16-3E-00-00-01", "PermanentMACAddress=00:16:3e:00:00:01", "Name=eth0", "Name=eth0 eth0"]
)
def test_gives_way(match: str) -> None:
    other = f"[Match]\n{match}\n".encode()
    files = rendered(RENDERER, STATIC, NAMES, {f"{DIRECTORY}/00-first.network": other})
    assert set(files.contents) == {FILE, f"{DIRECTORY}/.00-first.network.xenward-saved"}


@pytest.mark.parametrize(
    "match", ["MACAddress=00:16:3e:00:00:09", "Name=eth9", "Name=en* eth1", "Name=eth9\nType=ether"]
)
def test_does_not_match_ours(match: str) -> None:
    other = f"[Match]\n{match}\n".encode()
    files = rendered(RENDERER, STATIC, NAMES, {f"{DIRECTORY}/00-first.network": other})
    assert files.contents[f"{DIRECTORY}/00-first.network"] == other


@pytest.mark.parametrize(
    "match",
    ["Name=e*", "Name=!eth9", "Name=eth0 eth9", "Type=ether", "", "MACAddress=00:16:3e:00:00:01 00:16:3e:00:00:09"],
)
def test_may_match_ours_and_others(match: str) -> None:
    other = f"[Match]\n{match}\n".encode()
    with pytest.raises(Refused) as raised:
        RENDERER.render(STATIC, NAMES, MemoryFiles({f"{DIRECTORY}/00-first.network": other}))
    assert raised.value.code == "network_conflict"


@pytest.mark.parametrize("directory", ["/run/systemd/network", "/usr/lib/systemd/network"])
def test_what_is_not_the_administrators_is_not_removed(directory: str) -> None:
    with pytest.raises(Refused) as raised:
        RENDERER.render(STATIC, NAMES, MemoryFiles({f"{directory}/00-first.network": b"[Match]\nName=eth0\n"}))
    assert raised.value.code == "network_conflict"


@pytest.mark.parametrize(
    "name", ["00-first.link", "00-y.network", "05-first.network", ".00.network", "10-netplan-a.network"]
)
def test_files_that_cannot_come_before(name: str) -> None:
    files = rendered(RENDERER, STATIC, NAMES, {f"{DIRECTORY}/{name}": b"[Match]\nName=eth0\n"})
    assert set(files.contents) == {FILE, f"{DIRECTORY}/{name}"}


def test_a_gateway_with_no_address_beside_it() -> None:
    """networkd asks for the option then, in its log."""
    routed = route("2001:db8:9::/48", "fe80::1")
    bare = rendered(RENDERER, network(interface(dhcp4=True, routes=(routed,))), NAMES).text(FILE)
    assert "Gateway=fe80::1\nGatewayOnLink=yes\n" in bare
    beside = rendered(RENDERER, network(interface(addresses="192.0.2.2/24", routes=(routed,))), NAMES).text(FILE)
    assert "GatewayOnLink" not in beside
