"""wicked's files."""

from __future__ import annotations

import pytest

from guest_agent.network.renderers import RENDERERS

from .cases import CASES, DUAL_STACK, NAMES, STATIC, TWO_INTERFACES, assert_golden, interface, network
from .memory import SAVED, rendered

RENDERER = RENDERERS["wicked"]


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    assert_golden("wicked", case)


DIRECTORY = "/etc/sysconfig/network"
SYSCTL = f"{DIRECTORY}/ifsysctl-eth0"


def test_other_settings_of_the_kernel_stay() -> None:
    other = b"net.ipv6.conf.eth0.use_tempaddr = 2"
    files = rendered(RENDERER, DUAL_STACK, NAMES, {SYSCTL: other})
    assert files.contents[SYSCTL] == other + b"\nnet.ipv6.conf.eth0.accept_ra = 0\n"
    assert rendered(RENDERER, STATIC, NAMES, files.contents).contents[SYSCTL] == other + b"\n"


def test_new_servers_in_place_of_ours_need_no_copy() -> None:
    files = rendered(RENDERER, STATIC, NAMES)
    later = rendered(RENDERER, TWO_INTERFACES, NAMES, files.contents)
    assert "NETCONFIG_DNS_STATIC_SERVERS='198.51.100.1'" in later.text(f"{DIRECTORY}/config")
    assert not any(SAVED in path for path in later.contents)


def test_activation() -> None:
    assert RENDERER.activation(TWO_INTERFACES, NAMES) == [
        ["wicked", "ifreload", "eth0", "eth1"],
        ["netconfig", "update", "-f"],
    ]


def test_default_routes_of_the_other_family_stay() -> None:
    before = b"default 192.0.2.254 - -\ndefault fe80::9 - -\n::/0 fe80::9\n0.0.0.0/0 192.0.2.254 -\n"
    files = rendered(RENDERER, STATIC, NAMES, {f"{DIRECTORY}/routes": before})
    assert files.text(f"{DIRECTORY}/routes") == "default fe80::9 - -\n::/0 fe80::9\n"
    leased = rendered(RENDERER, network(interface(dhcp4=True)), NAMES, {f"{DIRECTORY}/routes": before})
    assert leased.contents[f"{DIRECTORY}/routes"] == before
