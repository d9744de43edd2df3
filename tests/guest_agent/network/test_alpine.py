"""Alpine's files."""

from __future__ import annotations

import pytest

from agent_protocol.outcomes import Refused
from guest_agent.network.renderers import RENDERERS

from .cases import CASES, ETH0, NAMES, STATIC, TWO_INTERFACES, assert_golden, interface, network
from .memory import SAVED, MemoryFiles, rendered

RENDERER = RENDERERS["alpine"]


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    assert_golden("alpine", case)


MAIN = "/etc/network/interfaces"


def test_a_block_of_another_interface_stays() -> None:
    both = rendered(RENDERER, TWO_INTERFACES, NAMES)
    block = both.text(MAIN).split("\n\n")[2].rstrip("\n")
    assert "auto eth1" in block
    files = rendered(RENDERER, STATIC, {ETH0: "eth0"}, both.contents)
    assert block in files.text(MAIN)
    assert files.text(MAIN).count("auto eth0\n") == files.text(MAIN).count("auto eth1\n") == 1
    assert not any(SAVED in path for path in files.contents)


def test_what_was_added_after_a_block_stays() -> None:
    before = rendered(RENDERER, STATIC, NAMES).text(MAIN) + "\nauto eth9\niface eth9 inet dhcp\n"
    files = rendered(RENDERER, STATIC, NAMES, {MAIN: before.encode()})
    assert "\nauto eth9\niface eth9 inet dhcp\n" in files.text(MAIN)
    assert files.text(MAIN).count("iface eth0 inet static") == 1


def test_dhcpv6_is_refused() -> None:
    with pytest.raises(Refused, match="DHCPv6"):
        RENDERER.render(network(interface(dhcp6=True)), NAMES, MemoryFiles())


def test_the_client_of_before_is_ended_unless_it_is_asked_for() -> None:
    text = rendered(RENDERER, TWO_INTERFACES, NAMES).text(MAIN)
    assert "/run/udhcpc.eth1.pid" in text
    assert "/run/udhcpc.eth0.pid" not in text


def test_activation() -> None:
    assert RENDERER.activation(STATIC, {ETH0: "eth0"}) == [
        ["ifdown", "-f", "eth0"],
        ["ip", "address", "flush", "dev", "eth0", "scope", "global"],
        ["ifup", "-f", "eth0"],
    ]
