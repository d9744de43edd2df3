"""The running system's network: which interfaces there are, how programs act on them, and what came of it."""

from __future__ import annotations

import abc
import time
from collections.abc import Collection, Iterator, Mapping, Sequence

from .. import process
from ..system import netlink
from ..system.paths import failures
from .data import InterfaceAddress

Standing = tuple[str, InterfaceAddress]
"""An address with its prefix, and the MAC address of the interface that has it."""

_STANDALONE_KINDS = ("", "dummy", "veth")
"""Kinds of interfaces that stand on their own: hardware, which a Xen guest's are to the kernel, and what stands in for
it in containers and labs. Bonds, bridges, VLANs and tunnels often have the MAC address of what they are made of."""

_NETLINK = "the kernel's list of network interfaces"


class LiveNetwork(abc.ABC):
    """The network of a running system. Interfaces are known by their MAC addresses: names can change."""

    @abc.abstractmethod
    def names(self) -> Mapping[str, Sequence[str]]:
        """As System.interface_names."""

    @abc.abstractmethod
    def run(self, arguments: Sequence[str], timeout: float) -> None:
        """Run a program of a renderer's activation to its end. Errors as process.run."""

    @abc.abstractmethod
    def permanent_addresses(self) -> Collection[Standing]:
        """The addresses that stand and that no lease ends, as far as the kernel tells; no link-local ones."""

    @abc.abstractmethod
    def wait_for(self, wanted: Collection[Standing], deadline: float) -> Collection[Standing]:
        """Wait until all these stand, or until `deadline` of time.monotonic(); returns those that do not.

        An IPv6 address that is still checked for being unique in its network stands; one that was found not to be
        does not, and ends the wait when nothing else is missing.
        """


class RunningNetwork(LiveNetwork):
    """That of the agent's own network namespace. Failed with the system's errno name when the kernel does not tell."""

    def names(self) -> Mapping[str, Sequence[str]]:
        """Hardware goes before anything else that has the same MAC address."""
        found: dict[str, list[netlink.Link]] = {}
        with failures(_NETLINK):
            for link in _own_links():
                found.setdefault(link.mac, []).append(link)
        return {mac: [link.name for link in _hardware(same) or same] for mac, same in found.items()}

    def run(self, arguments: Sequence[str], timeout: float) -> None:
        """By process.run."""
        process.run(arguments, timeout=timeout)

    def permanent_addresses(self) -> Collection[Standing]:
        """Those with the kernel's flag for it, IFA_F_PERMANENT."""
        with failures(_NETLINK):
            return {standing for standing, found in _standing() if found.permanent and not _is_link_local(found)}

    def wait_for(self, wanted: Collection[Standing], deadline: float) -> Collection[Standing]:
        """Woken by the kernel's events."""
        with failures(_NETLINK), netlink.AddressEvents() as events:
            while True:
                standing = dict(_standing())
                missing = [one for one in wanted if one not in standing or not standing[one].usable]
                remaining = deadline - time.monotonic()
                if remaining <= 0 or all(one in standing for one in missing):
                    return missing
                events.wait(remaining)


def _own_links() -> list[netlink.Link]:
    return [link for link in netlink.links() if link.mac and link.kind in _STANDALONE_KINDS and not link.enslaved]


def _hardware(links: Sequence[netlink.Link]) -> list[netlink.Link]:
    return [link for link in links if not link.kind]


def _standing() -> Iterator[tuple[Standing, netlink.LinkAddress]]:
    macs = {link.index: link.mac for link in _own_links()}
    for found in netlink.addresses():
        if found.index in macs:
            yield (macs[found.index], found.address), found


def _is_link_local(found: netlink.LinkAddress) -> bool:
    return found.address.version == 6 and found.address.ip.is_link_local
