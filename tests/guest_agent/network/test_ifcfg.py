"""The ifcfg files of RHEL."""

from __future__ import annotations

import pytest

from agent_protocol.outcomes import Refused
from guest_agent.network.renderers import RENDERERS

from .cases import CASES, ETH0, NAMES, STATIC, TWO_INTERFACES, assert_golden, interface, network
from .memory import MemoryFiles, rendered

RENDERER = RENDERERS["ifcfg"]


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    assert_golden("ifcfg", case)


DIRECTORY = "/etc/sysconfig/network-scripts"


def test_leases_beside_addresses_are_refused() -> None:
    with pytest.raises(Refused, match="both"):
        RENDERER.render(network(interface(addresses="192.0.2.2/24", dhcp4=True)), NAMES, MemoryFiles())


def test_an_interface_under_a_new_name() -> None:
    """The file of the old name was the agent's own, so there is nothing to keep a copy of."""
    before = rendered(RENDERER, STATIC, {ETH0: "eth0"})
    assert set(rendered(RENDERER, STATIC, {ETH0: "ens3"}, before.contents).contents) == {f"{DIRECTORY}/ifcfg-ens3"}


def test_activation() -> None:
    assert RENDERER.activation(TWO_INTERFACES, NAMES) == [
        ["nmcli", "connection", "load", f"{DIRECTORY}/ifcfg-eth0", f"{DIRECTORY}/ifcfg-eth1"],
        ["nmcli", "connection", "up", "uuid", "6b446f8c-4ef8-5b17-9140-ea59c65f3a47"],
        ["nmcli", "connection", "up", "uuid", "1b876778-c84b-52e3-899b-3afb82845cd3"],
    ]
