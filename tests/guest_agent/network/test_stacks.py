from __future__ import annotations

import logging
from pathlib import Path

import pytest

from agent_protocol.outcomes import Unsupported
from guest_agent.configuration import NETWORK_STACKS, Configuration
from guest_agent.network.renderers import RENDERERS
from guest_agent.network.stacks import CANDIDATES, stack_of
from guest_agent.system.directory import DirectorySystem
from guest_agent.system.distributions import FAMILIES

WANTS = "etc/systemd/system/multi-user.target.wants"
NETPLAN = ["usr/sbin/netplan", "etc/netplan/50-cloud-init.yaml"]
NETWORKMANAGER = ["usr/sbin/NetworkManager", f"{WANTS}/NetworkManager.service"]
NETWORKD = ["usr/lib/systemd/systemd-networkd", f"{WANTS}/systemd-networkd.service"]
IFUPDOWN = ["sbin/ifup", "etc/network/interfaces=auto lo\niface lo inet loopback\n"]
IFUPDOWN_ETH0 = ["usr/sbin/ifup", "etc/network/interfaces=iface lo inet loopback\n  iface eth0 inet dhcp\n"]

DEBIAN, UBUNTU, ROCKY, AMAZON, FEDORA, LEAP, ALPINE, ARCH = (
    "ID=debian\nVERSION_ID=12",
    "ID=ubuntu\nVERSION_ID=24.04\nID_LIKE=debian",
    "ID=rocky\nVERSION_ID={}\nID_LIKE='rhel centos fedora'",
    "ID=amzn\nVERSION_ID={}\nID_LIKE=fedora",
    "ID=fedora\nVERSION_ID=42",
    "ID=opensuse-leap\nVERSION_ID=15.6\nID_LIKE='suse opensuse'",
    "ID=alpine\nVERSION_ID=3.20.1",
    "ID=arch",
)
UNITS = "/usr/lib/systemd/system"
IFCFG = "etc/sysconfig/network-scripts/ifcfg-eth0"


def make(root: Path, release: str, files: list[str]) -> DirectorySystem:
    """Files by their paths below root; `path=content`, `path->target` for a link."""
    (root / "etc/os-release").write_text(release + "\n")
    (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    for file in files:
        name, arrow, target = file.partition("->")
        name, _, content = name.partition("=")
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if arrow:
            (root / name).symlink_to(target)
        else:
            (root / name).write_text(content)
    return DirectorySystem(str(root))


@pytest.mark.parametrize(
    ("release", "files", "stack"),
    [
        (DEBIAN, [*NETPLAN, *NETWORKD], "netplan"),
        (DEBIAN, IFUPDOWN_ETH0, "ifupdown"),
        (DEBIAN, IFUPDOWN, "ifupdown"),
        (DEBIAN, [*IFUPDOWN, *NETWORKMANAGER], "networkmanager"),
        (DEBIAN, [*IFUPDOWN_ETH0, *NETWORKMANAGER], "ifupdown"),
        (DEBIAN, [*IFUPDOWN, "etc/network/interfaces.d/eth0=iface eth0 inet dhcp", *NETWORKMANAGER], "ifupdown"),
        (DEBIAN, [*IFUPDOWN, *NETWORKD], "networkd"),
        (DEBIAN, [*NETWORKMANAGER, *NETWORKD], "networkmanager"),
        (DEBIAN, [*NETWORKMANAGER, *NETWORKD, "etc/systemd/network/10.network"], "networkd"),
        (DEBIAN, [*IFUPDOWN, "usr/lib/systemd/systemd-networkd"], "ifupdown"),
        (DEBIAN, [*IFUPDOWN, "usr/sbin/NetworkManager"], "ifupdown"),
        # What is not installed any more does not count.
        (DEBIAN, [*NETWORKD, "etc/netplan/1.yaml", "etc/network/interfaces=iface eth0 inet dhcp\n"], "networkd"),
        (UBUNTU, NETPLAN, "netplan"),
        (UBUNTU, ["usr/sbin/netplan", "usr/lib/netplan/00-network-manager-all.yaml", *NETWORKMANAGER], "netplan"),
        (UBUNTU, ["usr/sbin/netplan"], "netplan"),
        (UBUNTU, ["usr/sbin/netplan", *IFUPDOWN_ETH0], "ifupdown"),
        (ROCKY.format("9.4"), [*NETWORKMANAGER, IFCFG], "networkmanager"),
        (ROCKY.format("8.10"), [*NETWORKMANAGER, IFCFG], "ifcfg"),
        (ROCKY.format("7"), ["etc/rc.d/init.d/network", IFCFG], "ifcfg"),
        (ROCKY.format("8.10"), NETWORKMANAGER, "networkmanager"),
        (AMAZON.format("2"), ["etc/rc.d/init.d/network", IFCFG], "ifcfg"),
        (AMAZON.format("2023"), NETWORKD, "networkd"),
        (FEDORA, [*NETWORKMANAGER, IFCFG], "networkmanager"),
        (FEDORA, ["usr/bin/NetworkManager", NETWORKMANAGER[1], "usr/sbin->bin"], "networkmanager"),
        (LEAP, ["usr/sbin/wicked", f"{WANTS}/wicked.service", "usr/sbin/NetworkManager"], "wicked"),
        (LEAP, ["usr/sbin/wicked", f"etc/systemd/system/network.service->{UNITS}/wicked.service"], "wicked"),
        (LEAP, ["usr/sbin/wicked", "usr/sbin/NetworkManager",
                f"etc/systemd/system/network.service->{UNITS}/NetworkManager.service"], "networkmanager"),
        (ALPINE, ["sbin/ifup->/bin/busybox"], "alpine"),
        (ARCH, [*NETWORKD, *NETWORKMANAGER], "networkmanager"),
        (ARCH, [*NETWORKD, *NETWORKMANAGER, "etc/systemd/network/eth.network"], "networkd"),
        (ARCH, NETWORKD, "networkd"),
        ("ID=linuxmint\nID_LIKE='ubuntu debian'", NETPLAN, "netplan"),
    ],
)  # fmt: skip
def test_by_the_files(root: Path, release: str, files: list[str], stack: str) -> None:
    found = stack_of(make(root, release, files), Configuration())
    assert found.name == stack
    assert " there" in found.reason


@pytest.mark.parametrize(
    ("release", "files"),
    [
        (DEBIAN, []),
        (DEBIAN, ["usr/sbin/netplan"]),
        (DEBIAN, ["usr/sbin/NetworkManager", "usr/lib/systemd/systemd-networkd"]),
        (DEBIAN, [*NETWORKMANAGER, "etc/systemd/system/NetworkManager.service->/dev/null"]),
        (ROCKY.format("9.4"), ["etc/rc.d/init.d/network", IFCFG]),
        (LEAP, ["usr/sbin/wicked"]),
        (ALPINE, ["etc/network/interfaces"]),
    ],
)
def test_none(root: Path, release: str, files: list[str]) -> None:
    with pytest.raises(Unsupported) as caught:
        stack_of(make(root, release, files), Configuration())
    assert caught.value.code == "no_network_stack"


@pytest.mark.parametrize("release", ["", "ID=gentoo\nVERSION_ID=2.15"])
def test_unknown_distributions(root: Path, release: str) -> None:
    with pytest.raises(Unsupported) as caught:
        stack_of(make(root, release, NETPLAN), Configuration())
    assert caught.value.code == "unknown_distribution"


def test_the_images_builder_decides(root: Path) -> None:
    found = stack_of(make(root, "ID=gentoo", NETPLAN), Configuration(network_stack="ifupdown"))
    assert (found.name, found.reason) == ("ifupdown", "/etc/xenward/agent.conf says so")


def test_decided_once_and_visibly(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    system = make(root, UBUNTU, NETPLAN)
    first = stack_of(system, Configuration())
    (root / "usr/sbin/netplan").unlink()
    assert stack_of(system, Configuration()) is first
    assert caplog.messages == [f"network stack netplan: {first.reason}"]


def test_what_cannot_be_decided_is_decided_once_too(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    system = make(root, UBUNTU, [])
    for _ in range(2):
        with pytest.raises(Unsupported, match="none of netplan, ifupdown, networkd, networkmanager"):
            stack_of(system, Configuration())
        make(root, UBUNTU, NETPLAN)
    assert len(caplog.messages) == 1


def test_all_that_can_be_decided_can_be_served() -> None:
    assert set(CANDIDATES) == set(FAMILIES.values())
    assert {name for candidates in CANDIDATES.values() for name, _ in candidates} == set(NETWORK_STACKS)
    assert set(RENDERERS) == set(NETWORK_STACKS)
