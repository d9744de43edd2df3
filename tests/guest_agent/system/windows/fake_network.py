"""A Windows with its network adapters: what is stored, what is in force, and what a reboot makes of it.

It follows what Windows documents, and is as unhelpful: it refuses what is there already, or is not there, and each
protocol forgets other things when DHCP is switched. Its clock moves when somebody waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface

from agent_protocol.outcomes import Failed
from guest_agent.network.data import Address, InterfaceAddress, Network
from guest_agent.system.windows.network_model import (
    IPV4,
    IPV6,
    Adapter,
    AdapterSettings,
    AddressState,
    ProtocolSettings,
    Standing,
    StoredRoute,
)

DAD_SECONDS = 3.0
"""That a new address is tentative."""

LINK_MTU = 9000


def refused(words: str) -> Failed:
    return Failed("network_failed", words)


@dataclass
class FakeProtocol:
    """One protocol of an adapter. leases: what DHCP or a router would bring, an address and its gateway.

    active: the addresses in force, with the time from which they can be used.
    """

    version: int
    automatic: bool = True
    lease: InterfaceAddress | None = None
    lease_route: tuple[Network, Address] | None = None
    stored: list[InterfaceAddress] = field(default_factory=list)
    stored_routes: list[StoredRoute] = field(default_factory=list)
    active: dict[InterfaceAddress, float] = field(default_factory=dict)
    active_routes: set[tuple[Network, Address]] = field(default_factory=set)
    dns: tuple[Address, ...] = ()
    mtu: int = 1500

    def start(self, now: float) -> None:
        """What comes into force with the adapter."""
        self.active = dict.fromkeys(self.stored, now)
        self.active_routes = {(route.destination, route.gateway) for route in self.stored_routes}
        self.take_lease(now)

    def take_lease(self, now: float) -> None:
        if self.automatic and self.lease is not None:
            self.active[self.lease] = now
        if self.automatic and self.lease_route is not None:
            self.active_routes.add(self.lease_route)

    def drop_lease(self) -> None:
        if self.lease is not None and self.lease not in self.stored:
            self.active.pop(self.lease, None)
        if self.lease_route is not None:
            self.active_routes.discard(self.lease_route)

    def clear(self) -> None:
        """What `set address` does first: the static addresses and the gateways go, other routes stay."""
        for address in self.stored:
            self.active.pop(address, None)
        self.stored = []
        for route in [route for route in self.stored_routes if not route.destination.prefixlen]:
            self.stored_routes.remove(route)
            self.active_routes.discard((route.destination, route.gateway))


@dataclass
class FakeAdapter:
    guid: str
    mac: str
    name: str
    protocols: dict[int, FakeProtocol]
    hardware: bool = True
    hidden: bool = False
    connected: bool = True
    suffix: str = ""


class FakeWindows:
    """A WindowsNetwork. Adapters are added to `present`, by their index.

    duplicates: addresses that somebody else in the network has. on_call: called with the name of a change before it is
    made; what it raises is raised, and True makes the change have no effect. after_call: the same, when it is made.
    """

    def __init__(self) -> None:
        self.present: dict[int, FakeAdapter] = {}
        self.domains: tuple[str, ...] = ()
        self.duplicates: set[Address] = set()
        self.now = 1000.0
        self.on_call: Callable[[str], bool | None] = lambda name: None
        self.after_call: Callable[[str], None] = lambda name: None
        self.calls: list[str] = []

    def add(
        self, index: int, mac: str, *, name: str = "Ethernet", versions: Sequence[int] = (IPV4, IPV6)
    ) -> FakeAdapter:
        guid = f"{{{index:08X}-0000-4000-8000-{mac.replace(':', '').upper()}}}"
        adapter = FakeAdapter(guid, mac, name, {version: FakeProtocol(version) for version in versions})
        self.present[index] = adapter
        return adapter

    def clock(self) -> float:
        return self.now

    def reboot(self) -> None:
        """Only what is stored remains, and adapters have other indexes."""
        self.present = {index + 10: adapter for index, adapter in self.present.items()}
        for adapter in self.present.values():
            for protocol in adapter.protocols.values():
                protocol.start(self.now)
        self.now += 60

    # Reading.

    def adapters(self) -> Sequence[Adapter]:
        self._called("adapters")
        return [
            Adapter(each.guid, index, each.mac, each.name, frozenset(each.protocols), each.hardware, each.hidden)
            for index, each in self.present.items()
        ]

    def settings(self, index: int) -> AdapterSettings:
        self._called("settings")
        adapter = self._adapter(index)
        return AdapterSettings(
            {
                version: ProtocolSettings(
                    each.automatic,
                    tuple(each.stored),
                    tuple(route for route in each.stored_routes if not route.gateway.is_unspecified),
                    each.dns,
                    each.mtu,
                )
                for version, each in adapter.protocols.items()
            },
            adapter.suffix,
        )

    def standing(self, index: int) -> Standing:
        self._called("standing")
        adapter = self._adapter(index)
        states = {
            address: self._state(adapter, address, since)
            for each in adapter.protocols.values()
            for address, since in each.active.items()
        }
        routes = {route for each in adapter.protocols.values() for route in each.active_routes}
        return Standing(states, frozenset(routes))

    def search_list(self) -> tuple[str, ...]:
        self._called("search_list")
        return self.domains

    def wait_for_change(self, seconds: float) -> None:
        self._called("wait_for_change")
        assert seconds > 0
        self.now += min(seconds, 0.5)

    # Changing.

    def use_dhcp(self, index: int) -> None:
        if self._ignored("use_dhcp"):
            return
        protocol = self._protocol(index, IPV4)
        if protocol.automatic:
            raise refused("DHCP is already enabled on this interface.")
        protocol.clear()
        protocol.automatic = True
        protocol.take_lease(self.now)
        self.after_call("use_dhcp")

    def use_static(self, index: int, address: IPv4Interface | None) -> None:
        if self._ignored("use_static"):
            return
        protocol = self._protocol(index, IPV4)
        protocol.drop_lease()
        protocol.clear()
        protocol.automatic = False
        if address is not None:
            self._add(protocol, address)
        self.after_call("use_static")

    def hear_advertisements(self, index: int, heard: bool) -> None:
        if self._ignored("hear_advertisements"):
            return
        protocol = self._protocol(index, IPV6)
        protocol.automatic = heard
        protocol.take_lease(self.now)
        if not heard:
            protocol.drop_lease()
        self.after_call("hear_advertisements")

    def add_address(self, index: int, address: InterfaceAddress) -> None:
        if self._ignored("add_address"):
            return
        protocol = self._protocol(index, address.version)
        if address.version == IPV4 and protocol.automatic:
            protocol.drop_lease()
            protocol.automatic = False
        self._add(protocol, address)
        self.after_call("add_address")

    def remove_address(self, index: int, address: InterfaceAddress) -> None:
        if self._ignored("remove_address"):
            return
        protocol = self._protocol(index, address.version)
        if address not in protocol.stored:
            raise refused("Element not found.")
        protocol.stored.remove(address)
        protocol.active.pop(address, None)
        self.after_call("remove_address")

    def add_route(self, index: int, route: StoredRoute) -> None:
        if self._ignored("add_route"):
            return
        protocol = self._protocol(index, route.destination.version)
        way = (route.destination, route.gateway)
        if way in {(each.destination, each.gateway) for each in protocol.stored_routes} | protocol.active_routes:
            raise refused("The object already exists.")
        protocol.stored_routes.append(route)
        protocol.active_routes.add(way)
        self.after_call("add_route")

    def remove_route(self, index: int, route: StoredRoute) -> None:
        if self._ignored("remove_route"):
            return
        protocol = self._protocol(index, route.destination.version)
        way = (route.destination, route.gateway)
        found = [each for each in protocol.stored_routes if (each.destination, each.gateway) == way]
        if not found:
            raise refused("Element not found.")
        protocol.stored_routes.remove(found[0])
        protocol.active_routes.discard(way)
        self.after_call("remove_route")

    def set_dns(self, index: int, version: int, servers: Sequence[Address]) -> None:
        if self._ignored("set_dns"):
            return
        assert all(server.version == version for server in servers)
        self._protocol(index, version).dns = tuple(servers)
        self.after_call("set_dns")

    def set_mtu(self, index: int, version: int, mtu: int) -> None:
        if self._ignored("set_mtu"):
            return
        if mtu > LINK_MTU or mtu < (1280 if version == IPV6 else 576):
            raise refused("The parameter is incorrect.")
        self._protocol(index, version).mtu = mtu
        self.after_call("set_mtu")

    def set_suffix(self, index: int, suffix: str) -> None:
        if self._ignored("set_suffix"):
            return
        self._adapter(index).suffix = suffix
        self.after_call("set_suffix")

    def set_search_list(self, domains: Sequence[str]) -> None:
        if self._ignored("set_search_list"):
            return
        self.domains = tuple(domains)
        self.after_call("set_search_list")

    def _called(self, name: str) -> None:
        self.calls.append(name)
        self.on_call(name)

    def _ignored(self, name: str) -> bool:
        self.calls.append(name)
        return bool(self.on_call(name))

    def _adapter(self, index: int) -> FakeAdapter:
        if index not in self.present:
            raise refused("The system cannot find the file specified.")
        return self.present[index]

    def _protocol(self, index: int, version: int) -> FakeProtocol:
        protocols = self._adapter(index).protocols
        if version not in protocols:
            raise refused("Element not found.")
        return protocols[version]

    def _add(self, protocol: FakeProtocol, address: InterfaceAddress) -> None:
        for adapter in self.present.values():
            for each in adapter.protocols.values():
                if address.ip in {one.ip for one in (*each.stored, *each.active)}:
                    raise refused("The object already exists.")
        assert isinstance(address, IPv4Interface if protocol.version == IPV4 else IPv6Interface)
        protocol.stored.append(address)
        protocol.active[address] = self.now

    def _state(self, adapter: FakeAdapter, address: InterfaceAddress, since: float) -> AddressState:
        if not adapter.connected or self.now < since + DAD_SECONDS:
            return AddressState.TENTATIVE
        return AddressState.DUPLICATE if address.ip in self.duplicates else AddressState.PREFERRED


class MemoryState:
    """StateFiles in memory. on_call as FakeWindows.on_call."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.on_call: Callable[[str], bool | None] = lambda name: None

    def read_state(self, name: str) -> bytes | None:
        self.on_call("read_state")
        return self.files.get(name)

    def write_state(self, name: str, content: bytes) -> None:
        self.on_call("write_state")
        self.files[name] = content

    def remove_state(self, name: str) -> None:
        self.on_call("remove_state")
        self.files.pop(name, None)
