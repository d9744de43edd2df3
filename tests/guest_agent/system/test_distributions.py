from __future__ import annotations

from pathlib import Path

import pytest

from agent_protocol.outcomes import Unsupported
from guest_agent.system.directory import DirectorySystem
from guest_agent.system.distributions import find_distribution


@pytest.mark.parametrize(
    ("identifier", "like", "family"),
    [
        ("debian", "", "debian"),
        ("ubuntu", "debian", "ubuntu"),
        ("raspbian", "debian", "debian"),
        ("pop", "ubuntu debian", "ubuntu"),
        ("rhel", "fedora", "rhel"),
        ("centos", "rhel fedora", "rhel"),
        ("rocky", "rhel centos fedora", "rhel"),
        ("almalinux", "rhel centos fedora", "rhel"),
        ("fedora", "", "rhel"),
        ("ol", "fedora", "rhel"),
        ("amzn", "fedora", "rhel"),
        ("sles", "suse", "suse"),
        ("sles_sap", "suse", "suse"),
        ("opensuse-leap", "suse opensuse", "suse"),
        ("opensuse-tumbleweed", "opensuse suse", "suse"),
        ("alpine", "", "alpine"),
        ("arch", "", "arch"),
        ("manjaro", "arch", "arch"),
        ("gentoo", "", None),
        ("", "", None),
        ("Debian", "", None),
        ("x", "debianish", None),
    ],
)
def test_families(identifier: str, like: str, family: str | None) -> None:
    assert find_distribution(identifier, like, "").family == family


@pytest.mark.parametrize(
    ("version", "major"),
    [("9.4", 9), ("12", 12), ("2023", 2023), ("", None), ("rolling", None), ("9x", None), ("٩", None), ("1" * 9, None)],
)
def test_major_versions(version: str, major: int | None) -> None:
    assert find_distribution("rhel", "", version).major_version == major


def test_from_os_release(root: Path) -> None:
    system = DirectorySystem(str(root))
    with pytest.raises(Unsupported, match="does not tell which it is") as caught:
        system.distribution().known_family()
    assert caught.value.code == "unknown_distribution"
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/lib/os-release").write_text('ID=\'mine\'\nID_LIKE="rhel fedora"\nVERSION_ID="9.1"\n')
    found = system.distribution()
    assert (found.id, found.known_family(), found.major_version) == ("mine", "rhel", 9)
    (root / "etc/os-release").write_text("ID=strange\n")
    with pytest.raises(Unsupported, match="calls itself 'strange'"):
        system.distribution().known_family()
