"""Which family of Linux distributions a guest belongs to: the members of one keep their configuration in one way."""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent_protocol.outcomes import Unsupported

DEBIAN, UBUNTU, RHEL, SUSE, ALPINE, ARCH = "debian", "ubuntu", "rhel", "suse", "alpine", "arch"

WINDOWS = "windows"
"""No family of Linux: no os-release(5) brings a guest here."""

FAMILIES = {
    "debian": DEBIAN,
    "ubuntu": UBUNTU,
    "rhel": RHEL,
    "centos": RHEL,
    "rocky": RHEL,
    "almalinux": RHEL,
    "fedora": RHEL,
    "ol": RHEL,
    "amzn": RHEL,
    "sles": SUSE,
    "suse": SUSE,
    "opensuse": SUSE,
    "opensuse-leap": SUSE,
    "opensuse-tumbleweed": SUSE,
    "alpine": ALPINE,
    "arch": ARCH,
}
"""The family of each ID of os-release(5); the words of ID_LIKE are IDs too, and stand for a relative's distribution."""

_MAJOR = re.compile(r"[0-9]{1,4}(?=\.|\Z)", re.ASCII)


@dataclass(frozen=True)
class Distribution:
    """A guest's distribution.

    id, version: ID and VERSION_ID of os-release(5), empty where it has none. family: one of those above; None when the
    agent does not know it.
    """

    id: str
    version: str
    family: str | None

    @property
    def major_version(self) -> int | None:
        """The number that the version begins with; None when it does not begin with one."""
        number = _MAJOR.match(self.version)
        return int(number.group()) if number else None

    def known_family(self) -> str:
        """The family. Unsupported (`unknown_distribution`) when the agent does not know it."""
        if self.family is None:
            told = f"calls itself {self.id[:64]!r}" if self.id else "does not tell which it is in /etc/os-release"
            raise Unsupported(
                "unknown_distribution",
                f"this guest {told}, and the agent does not know where such a distribution keeps its configuration",
            )
        return self.family


def find_distribution(identifier: str, like: str, version: str) -> Distribution:
    """What ID, ID_LIKE and VERSION_ID of os-release(5) mean. The nearest relative in ID_LIKE stands first there."""
    for word in (identifier, *like.split()):
        if word in FAMILIES:
            return Distribution(identifier, version, FAMILIES[word])
    return Distribution(identifier, version, None)
