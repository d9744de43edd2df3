"""From what an adapter has to what it shall have: which settings follow from network data, and the steps to them.

Going forward and going back are the same work with other settings, and both begin with looking at what is there. So a
change that ended in the middle is finished or undone by the same steps, wherever it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface

from ...network.data import MIN_MTU6, Interface, InterfaceAddress, NetworkData, bad
from ...network.facets import ignores_advertisements
from .network_model import (
    IPV4,
    IPV6,
    MAX_METRIC,
    SYSTEM_METRIC,
    AdapterSettings,
    ProtocolSettings,
    StoredRoute,
    WindowsNetwork,
)


@dataclass(frozen=True)
class Step:
    """One change of one thing. index: of the adapter. aspect: what it changes, for people; empty if it only reads."""

    index: int
    aspect: str
    run: Callable[[], None]


def wanted_settings(interface: Interface, present: AdapterSettings, search_list: bool) -> AdapterSettings:
    """What the adapter shall have. What the data leave to Windows stays: the MTU, and IPv6's advertisements.

    search_list: whether the search domains go to the whole system, and so the adapter needs none of its own.
    Refused (`bad_network_data`) for what Windows cannot express.
    """
    protocols = {}
    for version in (IPV4, IPV6):
        settings = present.protocols.get(version)
        if settings is not None:
            protocols[version] = _wanted(interface, version, settings)
        elif _names(interface, version):
            raise bad(f"IPv{version} is switched off on the adapter {interface.mac}")
    return AdapterSettings(protocols, interface.search[0] if interface.search and not search_list else "")


def wanted_search_list(data: NetworkData, present: tuple[str, ...]) -> tuple[str, ...]:
    """The search domains of the whole system.

    An adapter holds one domain, and the list of the system makes Windows pass over those of adapters. So they stand in
    that list when an interface has several, or when there is a list already; otherwise with their adapters.
    """
    if not any(interface.search for interface in data.interfaces):
        return present
    if not present and all(len(interface.search) <= 1 for interface in data.interfaces):
        return present
    return tuple(dict.fromkeys(domain for interface in data.interfaces for domain in interface.search))


def _wanted(interface: Interface, version: int, present: ProtocolSettings) -> ProtocolSettings:
    addresses = tuple(address for address in interface.addresses if address.version == version)
    if version == IPV4:
        automatic = interface.dhcp4
        if automatic and addresses:
            raise bad(f"Windows has either DHCP or static addresses for IPv4, and {interface.mac} asks for both")
    else:
        automatic = not ignores_advertisements(interface) if _names(interface, IPV6) else present.automatic
    mtu = present.mtu
    if interface.mtu is not None and (version == IPV4 or interface.mtu >= MIN_MTU6):
        mtu = interface.mtu
    dns = tuple(server for server in interface.dns if server.version == version)
    return ProtocolSettings(automatic, addresses, _routes(interface, version), dns, mtu)


def _routes(interface: Interface, version: int) -> tuple[StoredRoute, ...]:
    routes = []
    for route in interface.routes:
        if route.destination.version != version:
            continue
        metric = SYSTEM_METRIC if route.metric is None else route.metric
        if metric > MAX_METRIC:
            raise bad(f"the metric of a route of Windows is at most {MAX_METRIC}")
        routes.append(StoredRoute(route.destination, route.gateway, metric))
    if len({(route.destination, route.gateway) for route in routes}) < len(routes):
        raise bad(f"Windows has one route to a destination by a gateway, and {interface.mac} asks for two")
    return tuple(routes)


def _names(interface: Interface, version: int) -> bool:
    """Whether the data say anything of this protocol."""
    named: Iterable[int] = (
        *(address.version for address in interface.addresses),
        *(route.destination.version for route in interface.routes),
        *(server.version for server in interface.dns),
    )
    return version in named or (interface.dhcp4 if version == IPV4 else interface.dhcp6)


Wanted = Mapping[int, AdapterSettings]
"""What adapters shall have, by interface index."""


def converge(network: WindowsNetwork, wanted: Wanted, attempt: Callable[[Step], None]) -> None:
    """Bring these adapters to these settings, by steps that `attempt` runs.

    First everything goes that is not wanted, from all adapters: an address may move from one to another. Then DHCP is
    switched, and then the rest is added. Each of the three begins with reading anew what is there, for what a step of
    Windows takes along, or leaves, differs between its releases.
    """
    for steps in (_removals, _switches, _additions):
        for index, settings in wanted.items():
            for step in _guarded(network, index, settings, steps, attempt):
                attempt(step)


_Steps = Callable[[WindowsNetwork, int, AdapterSettings, AdapterSettings], Iterator[Step]]


def _guarded(
    network: WindowsNetwork, index: int, wanted: AdapterSettings, steps: _Steps, attempt: Callable[[Step], None]
) -> list[Step]:
    """The steps for an adapter; none when it cannot be read and `attempt` bears that."""
    found: list[AdapterSettings] = []
    attempt(Step(index, "", lambda: found.append(network.settings(index))))
    return [step for present in found for step in steps(network, index, present, wanted)]


def _removals(network: WindowsNetwork, index: int, present: AdapterSettings, wanted: AdapterSettings) -> Iterator[Step]:
    for version, settings, target in _both(present, wanted):
        for route in settings.routes:
            if route not in target.routes:
                yield Step(index, f"ipv{version} routes", _bind(network.remove_route, index, route))
        for address in settings.addresses:
            if address not in target.addresses:
                yield Step(index, f"ipv{version} addresses", _bind(network.remove_address, index, address))


def _switches(network: WindowsNetwork, index: int, present: AdapterSettings, wanted: AdapterSettings) -> Iterator[Step]:
    for version, settings, target in _both(present, wanted):
        if settings.automatic == target.automatic:
            continue
        if version == IPV6:
            yield Step(index, "ipv6 advertisements", _bind(network.hear_advertisements, index, target.automatic))
        elif target.automatic:
            yield Step(index, "ipv4 dhcp", _bind(network.use_dhcp, index))
        else:
            yield Step(index, "ipv4 dhcp", _bind(network.use_static, index, _first(target.addresses)))


def _additions(
    network: WindowsNetwork, index: int, present: AdapterSettings, wanted: AdapterSettings
) -> Iterator[Step]:
    for version, settings, target in _both(present, wanted):
        if settings.mtu != target.mtu:
            yield Step(index, f"ipv{version} mtu", _bind(network.set_mtu, index, version, target.mtu))
        for address in target.addresses:
            if address not in settings.addresses:
                yield Step(index, f"ipv{version} addresses", _bind(network.add_address, index, address))
        for route in target.routes:
            if route not in settings.routes:
                yield Step(index, f"ipv{version} routes", _bind(network.add_route, index, route))
        if settings.dns != target.dns:
            yield Step(index, f"ipv{version} dns", _bind(network.set_dns, index, version, target.dns))
    if present.suffix != wanted.suffix:
        yield Step(index, "search domain", _bind(network.set_suffix, index, wanted.suffix))


def differences(present: AdapterSettings, wanted: AdapterSettings) -> list[str]:
    """What is not as it is wanted, for people."""
    found = [f"IPv{version}" for version in wanted.protocols if version not in present.protocols]
    for version, settings, target in _both(present, wanted):
        pairs = {
            "automatic configuration": (settings.automatic, target.automatic),
            "addresses": (set(settings.addresses), set(target.addresses)),
            "routes": (set(settings.routes), set(target.routes)),
            "DNS servers": (settings.dns, target.dns),
            "MTU": (settings.mtu, target.mtu),
        }
        found += [f"IPv{version} {what}" for what, (one, other) in pairs.items() if one != other]
    if present.suffix != wanted.suffix:
        found.append("search domain")
    return found


def _both(
    present: AdapterSettings, wanted: AdapterSettings
) -> Iterator[tuple[int, ProtocolSettings, ProtocolSettings]]:
    for version, target in wanted.protocols.items():
        if version in present.protocols:
            yield version, present.protocols[version], target


def _first(addresses: tuple[InterfaceAddress, ...]) -> IPv4Interface | None:
    return next((address for address in addresses if isinstance(address, IPv4Interface)), None)


def _bind(function: Callable[..., None], *arguments: object) -> Callable[[], None]:
    return lambda: function(*arguments)
