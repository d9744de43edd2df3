"""Which network stack a guest uses. Decided once, at the agent's start, and told in the log and by `info`.

The image's builder may have decided in the agent's configuration. Otherwise the family of the distribution says which
stacks come into question and in which order, and the first that the guest's files show to be in use is the one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Callable

from agent_protocol.outcomes import Failed, Refused, Unsuccessful, Unsupported

from ..configuration import AUTO, Configuration
from ..system.base import System
from ..system.distributions import ALPINE, ARCH, DEBIAN, RHEL, SUSE, UBUNTU, Distribution
from ..system.files import read_file
from ..system.lookup import any_there, names_in
from ..system.paths import GuestPath
from ..system.units import is_enabled

Evidence = Callable[[str, Distribution], str]
"""What shows that the guest with this root uses a stack, as the end of a sentence; empty when nothing does."""

_LAST_WITH_IFCFG = 8
"""The last major version of RHEL and its like whose installer writes ifcfg files. Fedora's numbers are all higher, and
so are Amazon's of today: 2 still has ifcfg files, 2023 has systemd-networkd."""

_STANZA = re.compile(rb"^[ \t]*iface[ \t]+(?!lo[ \t])\S", re.MULTILINE)
"""interfaces(5): an interface that is configured, other than the loopback one."""

_INTERFACES = GuestPath("/etc/network/interfaces")
_INTERFACES_DIRECTORY = GuestPath("/etc/network/interfaces.d")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stack:
    """The stack that a guest uses. name: one of configuration.NETWORK_STACKS. reason: why it is this one."""

    name: str
    reason: str


def stack_of(system: System, configuration: Configuration) -> Stack:
    """The system's stack, decided when this is called first.

    Unsupported (`unknown_distribution`) when the agent does not know the distribution and the configuration names no
    stack; Unsupported (`no_network_stack`) when none of those that come into question is in use.
    """
    decided = system.network_stack
    if decided is None:
        try:
            decided = _decide(system, configuration)
            _log.info("network stack %s: %s", decided.name, decided.reason)
        except (Unsupported, Refused, Failed) as error:
            decided = error
            _log.warning("no network stack: %s", error)
        system.network_stack = decided
    if isinstance(decided, Unsuccessful):
        raise type(decided)(decided.code, decided.message)
    return decided


def _decide(system: System, configuration: Configuration) -> Stack:
    if configuration.network_stack != AUTO:
        return Stack(configuration.network_stack, f"{system.configuration_name} says so")
    distribution = system.distribution()
    candidates = CANDIDATES[distribution.known_family()]
    for name, evidence in candidates:
        reason = evidence(system.root, distribution)
        if reason:
            return Stack(name, reason)
    tried = ", ".join(dict.fromkeys(name for name, _ in candidates))
    raise Unsupported("no_network_stack", f"this guest is found to use none of {tried}")


def _netplan_configured(root: str, distribution: Distribution) -> str:
    del distribution
    program = any_there(root, "/usr/sbin/netplan")
    for directory in ("/etc/netplan", "/usr/lib/netplan", "/lib/netplan"):
        if program and any(name.endswith(".yaml") for name in names_in(root, GuestPath(directory))):
            return f"{program} and files in {directory} are there"
    return ""


def _netplan_installed(root: str, distribution: Distribution) -> str:
    del distribution
    program = any_there(root, "/usr/sbin/netplan")
    return f"{program} is there" if program else ""


def _ifupdown_configured(root: str, distribution: Distribution) -> str:
    installed = _ifupdown_installed(root, distribution)
    below = [GuestPath(f"{_INTERFACES_DIRECTORY.text}/{name}") for name in names_in(root, _INTERFACES_DIRECTORY)]
    for path in (_INTERFACES, *below):
        try:
            content = read_file(root, path) or b""
        except (Refused, Failed):
            continue
        if installed and _STANZA.search(content):
            return f"ifup is there and {path.text} configures an interface"
    return ""


def _ifupdown_installed(root: str, distribution: Distribution) -> str:
    del distribution
    program = any_there(root, "/sbin/ifup", "/usr/sbin/ifup")
    return f"{program} and {_INTERFACES.text} are there" if program and any_there(root, _INTERFACES.text) else ""


def _networkmanager(root: str, distribution: Distribution) -> str:
    del distribution
    program = any_there(root, "/usr/sbin/NetworkManager", "/usr/bin/NetworkManager")
    if not program or not is_enabled(root, "NetworkManager.service", "network.service"):
        return ""
    return f"{program} is there and enabled"


def _networkd(root: str, distribution: Distribution) -> str:
    del distribution
    program = any_there(root, "/usr/lib/systemd/systemd-networkd", "/lib/systemd/systemd-networkd")
    if not program or not is_enabled(root, "systemd-networkd.service", "dbus-org.freedesktop.network1.service"):
        return ""
    return f"{program} is there and enabled"


def _networkd_configured(root: str, distribution: Distribution) -> str:
    directory = "/etc/systemd/network"
    if not any(name.endswith(".network") for name in names_in(root, GuestPath(directory))):
        return ""
    enabled = _networkd(root, distribution)
    return f"{enabled}, with files in {directory}" if enabled else ""


def _ifcfg(root: str, distribution: Distribution) -> str:
    if distribution.major_version is None or distribution.major_version > _LAST_WITH_IFCFG:
        return ""
    directory = any_there(root, "/etc/sysconfig/network-scripts")
    reader = _networkmanager(root, distribution) or any_there(root, "/etc/init.d/network", "/etc/rc.d/init.d/network")
    return f"{directory} is there, for version {distribution.version}" if directory and reader else ""


def _wicked(root: str, distribution: Distribution) -> str:
    del distribution
    program = any_there(root, "/usr/sbin/wicked")
    return (
        f"{program} is there and enabled" if program and is_enabled(root, "wicked.service", "network.service") else ""
    )


def _alpine(root: str, distribution: Distribution) -> str:
    del distribution
    program = any_there(root, "/sbin/ifup", "/usr/sbin/ifup")
    return f"{program} is there, for Alpine" if program else ""


CANDIDATES: Mapping[str, tuple[tuple[str, Evidence], ...]] = {
    # A file that configures an interface says more than a service that is enabled; a program that is installed says
    # least. Where ifupdown has an interface, the others leave it alone.
    DEBIAN: (
        ("netplan", _netplan_configured),
        ("ifupdown", _ifupdown_configured),
        ("networkd", _networkd_configured),
        ("networkmanager", _networkmanager),
        ("networkd", _networkd),
        ("ifupdown", _ifupdown_installed),
    ),
    UBUNTU: (
        ("netplan", _netplan_configured),
        ("ifupdown", _ifupdown_configured),
        ("networkd", _networkd_configured),
        ("networkmanager", _networkmanager),
        ("networkd", _networkd),
        ("netplan", _netplan_installed),
        ("ifupdown", _ifupdown_installed),
    ),
    RHEL: (
        ("ifcfg", _ifcfg),
        ("networkmanager", _networkmanager),
        ("networkd", _networkd),
    ),
    SUSE: (
        ("wicked", _wicked),
        ("networkmanager", _networkmanager),
    ),
    ARCH: (
        ("networkd", _networkd_configured),
        ("networkmanager", _networkmanager),
        ("networkd", _networkd),
    ),
    ALPINE: (("alpine", _alpine),),
}
"""What is specific to the families of distributions: the stacks that come into question, the likeliest first."""
