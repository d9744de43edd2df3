"""The network of the running Windows: read through CIM and the registry, written by netsh, see network.py."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Interface, ip_address

from agent_protocol.outcomes import Failed, Unsuccessful

from ...network.data import Address, InterfaceAddress
from . import network_cim as cim_rows
from . import network_netsh as netsh
from .api import CallError, Registry, Run
from .network_cim import ADAPTER, FAMILIES, IP_INTERFACE, Cim
from .network_model import IPV4, IPV6, Adapter, AdapterSettings, ProtocolSettings, Standing, StoredRoute

NETSH_SECONDS = 5.0
"""That one command of netsh may take; tenths of a second are usual."""

LOOK_SECONDS = 0.25
"""Between two looks at addresses that are not usable yet."""

_SERVICES = {IPV4: "Tcpip", IPV6: "Tcpip6"}
_PARAMETERS = "SYSTEM\\CurrentControlSet\\Services\\{}\\Parameters"

_NOT_FOUND = 1
"""How netsh ends when it fails. A removal may fail because nothing was there, which is what reading shows."""


class RunningNetwork:
    """A WindowsNetwork. system_directory: where netsh is. sleep: time.sleep, or what stands in for it."""

    def __init__(
        self,
        cim: Cim,
        registry: Registry,
        run: Run,
        system_directory: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sleep = sleep
        self._cim = cim
        self._registry = registry
        self._run = run
        self._system_directory = system_directory

    def adapters(self) -> Sequence[Adapter]:
        """As WindowsNetwork says."""
        with _reading():
            return cim_rows.adapters(self._cim)

    def settings(self, index: int) -> AdapterSettings:
        """As WindowsNetwork says. Link-local IPv6 addresses and routes without a gateway are left out."""
        with _reading():
            guid = self._guid(index)
            addresses = cim_rows.stored_addresses(self._cim, index)
            routes = cim_rows.stored_routes(self._cim, index)
            protocols = {}
            for row in self._cim.rows(IP_INTERFACE, index):
                version = FAMILIES.get(row["AddressFamily"])
                if version is None or version in protocols:
                    continue
                protocols[version] = ProtocolSettings(
                    bool(row["Dhcp"] if version == IPV4 else row["RouterDiscovery"]),
                    tuple(address for address in addresses if address.version == version),
                    tuple(route for route in routes if route.destination.version == version),
                    self._dns(guid, version),
                    int(row["NlMtu"]),
                )
            return AdapterSettings(protocols, self._text(f"{_interfaces(IPV4)}\\{guid}", "Domain"))

    def standing(self, index: int) -> Standing:
        """As WindowsNetwork says."""
        with _reading():
            routes = {(route.destination, route.gateway) for route in cim_rows.active_routes(self._cim, index)}
            return Standing(cim_rows.active_addresses(self._cim, index), frozenset(routes))

    def use_dhcp(self, index: int) -> None:
        """As WindowsNetwork says."""
        self._netsh(netsh.use_dhcp(index))

    def use_static(self, index: int, address: IPv4Interface | None) -> None:
        """As WindowsNetwork says. netsh does not switch DHCP off without an address."""
        if address is None:
            self._cim.disable_dhcp(index)
        else:
            self._netsh(netsh.use_static(index, address))

    def hear_advertisements(self, index: int, heard: bool) -> None:
        """As WindowsNetwork says."""
        self._netsh(netsh.hear_advertisements(index, heard))

    def add_address(self, index: int, address: InterfaceAddress) -> None:
        """As WindowsNetwork says."""
        self._netsh(netsh.add_address(index, address))

    def remove_address(self, index: int, address: InterfaceAddress) -> None:
        """As WindowsNetwork says."""
        self._netsh(netsh.remove_address(index, address), allowed=_NOT_FOUND)

    def add_route(self, index: int, route: StoredRoute) -> None:
        """As WindowsNetwork says."""
        self._netsh(netsh.add_route(index, route))

    def remove_route(self, index: int, route: StoredRoute) -> None:
        """As WindowsNetwork says."""
        self._netsh(netsh.remove_route(index, route), allowed=_NOT_FOUND)

    def set_dns(self, index: int, version: int, servers: Sequence[Address]) -> None:
        """As WindowsNetwork says."""
        for arguments in netsh.set_dns(index, version, servers):
            self._netsh(arguments)

    def set_mtu(self, index: int, version: int, mtu: int) -> None:
        """As WindowsNetwork says."""
        self._netsh(netsh.set_mtu(index, version, mtu))

    def set_suffix(self, index: int, suffix: str) -> None:
        """As WindowsNetwork says."""
        self._cim.set_suffix(index, suffix)

    def search_list(self) -> tuple[str, ...]:
        """As WindowsNetwork says."""
        with _reading():
            text = self._text(_PARAMETERS.format(_SERVICES[IPV4]), "SearchList")
            return tuple(domain for domain in text.split(",") if domain)

    def set_search_list(self, domains: Sequence[str]) -> None:
        """As WindowsNetwork says."""
        self._cim.set_search_list(domains)

    def wait_for_change(self, seconds: float) -> None:
        """As WindowsNetwork says."""
        self._sleep(min(seconds, LOOK_SECONDS))

    def _netsh(self, arguments: Sequence[str], *, allowed: int = 0) -> None:
        program = f"{self._system_directory}\\netsh.exe"
        environment = {"SystemRoot": self._system_directory.rpartition("\\")[0]}
        try:
            ended = self._run([program, *arguments], environment, NETSH_SECONDS)
        except Unsuccessful as error:
            raise Failed("network_failed", error.message) from None
        if ended.exit_code not in (0, allowed):
            words = " ".join(arguments)
            raise Failed("network_failed", f"netsh {words} ended with {ended.exit_code}: {ended.output}")

    def _guid(self, index: int) -> str:
        for row in self._cim.rows(ADAPTER, index):
            return str(row["InterfaceGuid"])
        raise Failed("network_failed", f"the adapter with the index {index} is gone")

    def _dns(self, guid: str, version: int) -> tuple[Address, ...]:
        """The static servers: CIM tells them and those of DHCP in one list."""
        text = self._text(f"{_interfaces(version)}\\{guid}", "NameServer")
        return tuple(ip_address(server) for server in text.replace(",", " ").split())

    def _text(self, key: str, name: str) -> str:
        value = self._registry.value(key, name)
        return value if isinstance(value, str) else ""


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Turn what Windows tells, but the agent does not understand, into an outcome."""
    try:
        yield
    except (ValueError, TypeError, KeyError) as error:
        raise Failed("network_failed", f"Windows' network settings cannot be read: {type(error).__name__}") from None
    except CallError as error:
        raise Failed("network_failed", f"Windows' network settings cannot be read: {error}") from None


def _interfaces(version: int) -> str:
    return _PARAMETERS.format(_SERVICES[version]) + "\\Interfaces"
