"""What the CIM classes of Windows tell about its network, as the agent's own types.

The classes are documented by Microsoft as those of the TCP/IP WMI v2 provider and of the network adapter provider.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, Protocol

from ...network.data import Address, InterfaceAddress
from .network_model import IPV4, IPV6, Adapter, AddressState, StoredRoute

ADAPTER = "MSFT_NetAdapter"
IP_INTERFACE = "MSFT_NetIPInterface"
IP_ADDRESS = "MSFT_NetIPAddress"
IP_ROUTE = "MSFT_NetRoute"

AF_INET, AF_INET6 = 2, 23
FAMILIES = {AF_INET: IPV4, AF_INET6: IPV6}
"""AddressFamily, by the numbers of Windows."""

_PERSISTENT, _ACTIVE = 0, 1
"""Store of addresses and routes."""

_UNICAST = 1
"""Type of addresses."""

_NET_MGMT = 3
"""Protocol of routes that an administrator, a program or DHCP made (RouteProtocolNetMgmt), not Windows by itself."""

_GUID = re.compile(r"\{[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}\}\Z")
_NOT_HEX = re.compile("[^0-9a-f]")

Row = Mapping[str, Any]
"""The properties of an object, by name."""


class Cim(Protocol):
    """The objects of root\\StandardCimv2. Failed (`network_failed`) when Windows does not answer."""

    def rows(self, class_name: str, index: int | None = None, *, stored: bool = False) -> Sequence[Row]:
        """The objects of a class, those of one interface if its index is given.

        stored: ask for the PersistentStore only, as the parameter PolicyStore of the PowerShell module does.
        """

    def disable_dhcp(self, index: int) -> None:
        """Switch DHCP for IPv4 off."""

    def set_suffix(self, index: int, suffix: str) -> None:
        """Win32_NetworkAdapterConfiguration.SetDNSDomain."""

    def set_search_list(self, domains: Sequence[str]) -> None:
        """Win32_NetworkAdapterConfiguration.SetDNSSuffixSearchOrder."""


def adapters(cim: Cim) -> list[Adapter]:
    """All that have a GUID and a MAC address."""
    bound: dict[int, set[int]] = {}
    for row in cim.rows(IP_INTERFACE):
        if row["AddressFamily"] in FAMILIES:
            bound.setdefault(row["InterfaceIndex"], set()).add(FAMILIES[row["AddressFamily"]])
    found = []
    for row in cim.rows(ADAPTER):
        guid, mac = str(row["InterfaceGuid"]).upper(), _mac(row)
        if mac is None or not _GUID.match(guid):
            continue
        index = int(row["InterfaceIndex"])
        hardware = bool(row.get("HardwareInterface")) and not row.get("Virtual")
        protocols = frozenset(bound.get(index, ()))
        found.append(Adapter(guid, index, mac, str(row.get("Name")), protocols, hardware, bool(row.get("Hidden"))))
    return found


def stored_addresses(cim: Cim, index: int) -> list[InterfaceAddress]:
    """The static addresses; link-local ones are Windows' own."""
    rows = [row for row in _stored(cim, IP_ADDRESS, index) if row.get("Type", _UNICAST) == _UNICAST]
    return [address for address in map(_address, rows) if not address.ip.is_link_local or address.version == IPV4]


def stored_routes(cim: Cim, index: int) -> list[StoredRoute]:
    """The static routes that have a gateway; the others belong to addresses, or are of no concern to the agent."""
    found = []
    for row in _stored(cim, IP_ROUTE, index):
        gateway = _plain(row["NextHop"])
        if not gateway.is_unspecified and row.get("Protocol", _NET_MGMT) == _NET_MGMT:
            found.append(StoredRoute(ip_network(row["DestinationPrefix"]), gateway, int(row["RouteMetric"])))
    return found


def active_addresses(cim: Cim, index: int) -> dict[InterfaceAddress, AddressState]:
    """The addresses in force."""
    rows = [row for row in cim.rows(IP_ADDRESS, index) if row["Store"] == _ACTIVE]
    return {_address(row): AddressState(row["AddressState"]) for row in rows}


def active_routes(cim: Cim, index: int) -> list[StoredRoute]:
    """The routes in force."""
    return [
        StoredRoute(ip_network(row["DestinationPrefix"]), _plain(row["NextHop"]), int(row["RouteMetric"]))
        for row in cim.rows(IP_ROUTE, index)
        if row["Store"] == _ACTIVE
    ]


def _stored(cim: Cim, class_name: str, index: int) -> list[Row]:
    """A query without a store tells both; should it leave the stored ones out, the other one has them."""
    rows = [row for row in cim.rows(class_name, index) if row["Store"] == _PERSISTENT]
    return rows or [row for row in cim.rows(class_name, index, stored=True) if row["Store"] == _PERSISTENT]


def _address(row: Row) -> InterfaceAddress:
    return ip_interface(f"{_plain(row['IPAddress'])}/{row['PrefixLength']}")


def _plain(untrusted: object) -> Address:
    """An address without the scope that Windows writes behind link-local ones."""
    return ip_address(str(untrusted).partition("%")[0])


def _mac(row: Row) -> str | None:
    """The one in use, which need not be the one that the device came with."""
    for untrusted in (*(row.get("NetworkAddresses") or ()), row.get("PermanentAddress")):
        digits = _NOT_HEX.sub("", str(untrusted or "").lower())
        if len(digits) == 12:
            return ":".join(digits[place : place + 2] for place in range(0, 12, 2))
    return None
