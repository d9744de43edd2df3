"""Making network data the configuration of a Windows guest: all of it, or nothing, and never without having looked.

How. Settings are read from the CIM classes of root\\StandardCimv2, on which the PowerShell module NetTCPIP is built
(MSFT_NetAdapter, MSFT_NetIPInterface, MSFT_NetIPAddress, MSFT_NetRoute): they tell numbers and addresses in any
language of Windows, and what is stored apart from what is in force. Settings are written by netsh with
store=persistent, which is documented for all of Windows 10 and 11 and Windows Server 2016 to 2025, needs no PowerShell
(slow to start, and forbidden by some policies), and changes what is in force and what is stored in one step; iphlpapi's
functions (CreateUnicastIpAddressEntry and others) do not store anything. Only what netsh cannot say goes by CIM and WMI
too: DHCP off without an address, and search domains. netsh is given interface indexes and addresses, never names.

What Windows has and has not, and what follows:

- IPv4 has DHCP or static addresses: both at once are refused (`bad_network_data`), as are an adapter without the
  protocol, metrics above 9999, and two routes to a destination by one gateway.
- DHCPv6 is started by router advertisements. Without dhcp6 they are heard as well, unless the data have a default route
  of IPv6, the same as on Linux. Temporary addresses (privacy) are a setting of the whole system, not of an adapter, and
  duplicate address detection guards the network; both stay as they are.
- An MTU that the data do not name stays as it is: Windows has no word for its own.
- The connection keeps its name. Network data have none, and firewall rules and scripts of the guest may use it.
- Addresses that are in force but not stored are those of cluster software, and are left alone, as are routes without a
  gateway.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from agent_protocol.messages import MessageError
from agent_protocol.outcomes import Failed, Refused, Unsuccessful

from ...network.apply import APPLY_SECONDS, Applied
from ...network.data import Address, InterfaceAddress, Network, NetworkData
from ...network.undo import UNDO_SECONDS
from . import network_record
from .network_model import Adapter, AdapterSettings, AddressState, StateFiles, WindowsNetwork
from .network_plan import Step, Wanted, converge, differences, wanted_search_list, wanted_settings
from .network_record import Record

Clock = Callable[[], float]

_FORWARD_SECONDS = APPLY_SECONDS - UNDO_SECONDS
"""Seconds after which the new configuration must be in force; what remains is for going back."""

_MAX_NAME = 64
"""Characters of an adapter's name in a message."""

_Addresses = Mapping[int, Collection[InterfaceAddress]]
_Routes = Mapping[int, Collection[tuple[Network, Address]]]

_log = logging.getLogger(__name__)


def apply_network(
    network: WindowsNetwork, data: NetworkData, state: StateFiles, *, clock: Clock = time.monotonic
) -> Applied:
    """Configure these interfaces of the guest. `changed` names each thing that was, by the adapter's MAC address.

    Nothing was changed when it is Refused: `no_such_interface` or `ambiguous_interface` when not exactly one adapter
    has the MAC address, `bad_network_data` when Windows cannot express it, `network_undo_pending` when an earlier
    change cannot be put back yet. Failed (`network_failed`) when something went wrong and the old configuration is
    back; Failed (`network_lost`) when it is not, or not all of it. Errors as those of `state` before anything changed.
    """
    try:
        _undo_pending(network, state, wait_for_adapters=False)
    except Unsuccessful as error:
        raise Refused("network_undo_pending", f"an earlier change waits for being put back: {error}") from None
    deadline = clock() + _FORWARD_SECONDS
    adapters = _adapters(network, data)
    before = {adapter.index: network.settings(adapter.index) for adapter in adapters.values()}
    list_before = network.search_list()
    list_wanted = wanted_search_list(data, list_before)
    wanted = {
        adapters[interface.mac].index: wanted_settings(
            interface, before[adapters[interface.mac].index], search_list=bool(list_wanted)
        )
        for interface in data.interfaces
    }
    stood = _preferred(network, before)
    stored = {adapter.guid: before[adapter.index] for adapter in adapters.values()}
    record = Record(stored, list_before if list_wanted != list_before else None)
    network_record.keep(state, record)
    try:
        changed = _forward(network, wanted, list_before, list_wanted, deadline, clock)
        seen = _look(network, wanted, list_wanted, deadline, clock)
        network_record.forget(state)
    except BaseException as error:
        try:
            _restore(network, before, record, state)
            _check_standing(network, stood, clock)
        except Unsuccessful as lost:
            raise Failed("network_lost", f"{_words(error)}; and {lost}") from None
        if isinstance(error, Unsuccessful):
            raise Failed("network_failed", f"{error}; the old configuration is back") from None
        raise
    macs = {adapter.index: adapter.mac for adapter in adapters.values()}
    return Applied(tuple(f"{macs[index]} {aspect}" if index else aspect for index, aspect in changed), seen)


def recover(network: WindowsNetwork, state: StateFiles) -> None:
    """Put back what an earlier run of the agent left in the middle, at its start.

    The log tells what happened, and nothing is raised. Adapters that are not there yet, as their drivers may start
    later, are put back before the next change.
    """
    try:
        if _undo_pending(network, state, wait_for_adapters=True):
            _log.warning("a change of the network was interrupted: the old configuration is back")
    except Unsuccessful as error:
        _log.error("a change of the network was interrupted: %s", error)


def _adapters(network: WindowsNetwork, data: NetworkData) -> dict[str, Adapter]:
    """The one adapter with each MAC address.

    Members of a team or of a virtual switch have no protocols: what stands upon them has their MAC address and the
    protocols. Of several that have protocols, devices go before what is made of them, and hidden ones do not count.
    """
    found = [adapter for adapter in network.adapters() if adapter.bound and not adapter.hidden]
    chosen = {}
    for mac in [interface.mac for interface in data.interfaces]:
        same = [adapter for adapter in found if adapter.mac == mac]
        same = [adapter for adapter in same if adapter.hardware] or same
        if not same:
            raise Refused("no_such_interface", f"this guest has no adapter in use with the MAC address {mac}")
        if len(same) > 1:
            names = ", ".join(repr(adapter.name[:_MAX_NAME]) for adapter in same)
            raise Refused("ambiguous_interface", f"{names} have the MAC address {mac}")
        chosen[mac] = same[0]
    return chosen


def _preferred(network: WindowsNetwork, before: Wanted) -> _Addresses:
    """The static addresses that can be used now: what must be there again if the old settings are put back."""
    return {
        index: [
            address
            for address, state in network.standing(index).addresses.items()
            if state is AddressState.PREFERRED and address in _static(before, index)
        ]
        for index in before
    }


def _forward(
    network: WindowsNetwork,
    wanted: Wanted,
    list_before: tuple[str, ...],
    list_wanted: tuple[str, ...],
    deadline: float,
    clock: Clock,
) -> Collection[tuple[int, str]]:
    """Returns what was changed: the aspects of each adapter, by its index, and 0 for the system."""
    changed: dict[tuple[int, str], None] = {}

    def attempt(step: Step) -> None:
        if clock() >= deadline:
            raise Failed("network_failed", "no time was left for all of the new configuration")
        step.run()
        if step.aspect:
            changed[step.index, step.aspect] = None

    converge(network, wanted, attempt)
    if list_wanted != list_before:
        attempt(Step(0, "search list", lambda: network.set_search_list(list_wanted)))
    return changed


def _look(network: WindowsNetwork, wanted: Wanted, search_list: tuple[str, ...], deadline: float, clock: Clock) -> int:
    """Returns how many static addresses stand, which is all of them."""
    for index, settings in wanted.items():
        found = differences(network.settings(index), settings)
        if found:
            raise Failed("network_failed", f"Windows does not have what was set: {', '.join(found)}")
    if network.search_list() != search_list:
        raise Failed("network_failed", "Windows does not have what was set: search domains")
    addresses = {index: _static(wanted, index) for index in wanted}
    routes = {
        index: [(route.destination, route.gateway) for each in settings.protocols.values() for route in each.routes]
        for index, settings in wanted.items()
    }
    missing = _wait(network, addresses, routes, deadline, clock)
    if missing:
        raise Failed("network_failed", f"the settings are stored, but {', '.join(missing)} does not come up")
    return sum(map(len, addresses.values()))


def _wait(
    network: WindowsNetwork, addresses: _Addresses, routes: _Routes, deadline: float, clock: Clock
) -> Sequence[str]:
    """Wait until all these are in force; returns those that are not. A duplicate address ends the wait."""
    while True:
        standing = {index: network.standing(index) for index in addresses}
        states = {
            address: standing[index].addresses.get(address) for index in addresses for address in addresses[index]
        }
        missing = [str(address) for address, state in states.items() if state is not AddressState.PREFERRED]
        for index, wanted in routes.items():
            missing += [f"the route to {route[0]}" for route in wanted if route not in standing[index].routes]
        remaining = deadline - clock()
        if not missing or remaining <= 0 or AddressState.DUPLICATE in states.values():
            return list(dict.fromkeys(missing))
        network.wait_for_change(remaining)


def _restore(network: WindowsNetwork, before: Wanted, record: Record, state: StateFiles) -> None:
    """Put the settings back; as much of them as can be, and then without the record.

    Failed (`network_lost`) when not all could be; the record stays then, and the next start tries again.
    """
    lost: dict[str, None] = {}

    def attempt(step: Step) -> None:
        try:
            step.run()
        except Unsuccessful as error:
            lost[str(error)] = None

    def compare(index: int, settings: AdapterSettings) -> None:
        present = network.settings(index)
        # A protocol that was switched off meanwhile has no settings to put back.
        bound = {version: each for version, each in settings.protocols.items() if version in present.protocols}
        lost.update(dict.fromkeys(differences(present, AdapterSettings(bound, settings.suffix))))

    def compare_search_list() -> None:
        if search_list is not None and network.search_list() != search_list:
            lost["search domains"] = None

    converge(network, before, attempt)
    search_list = record.search_list
    if search_list is not None:
        attempt(Step(0, "search list", lambda: network.set_search_list(search_list)))
    # A step back may have failed because it was not needed: what counts is what is there.
    failures = list(lost)
    lost.clear()
    for index, settings in before.items():
        attempt(Step(index, "", functools.partial(compare, index, settings)))
    attempt(Step(0, "", compare_search_list))
    if lost:
        reasons = "; ".join([", ".join(lost), *failures])
        raise Failed(
            "network_lost", f"the old settings, kept in {network_record.RECORD}, cannot be put back: {reasons}"
        )
    network_record.forget(state)


def _check_standing(network: WindowsNetwork, stood: _Addresses, clock: Clock) -> None:
    missing = _wait(network, stood, {}, clock() + UNDO_SECONDS, clock)
    if missing:
        raise Failed("network_lost", f"the old settings are back, but not {', '.join(missing)}")


def _undo_pending(network: WindowsNetwork, state: StateFiles, *, wait_for_adapters: bool) -> bool:
    """Put back what an earlier run left in the middle; whether there was anything.

    wait_for_adapters: whether those that are absent are kept in the record rather than given up.
    Failed (`network_lost`) when it cannot be done, and the record stays.
    """
    try:
        record = network_record.read(state)
    except MessageError as error:
        raise Failed("network_lost", f"{network_record.RECORD} cannot be used: {error}") from None
    if record is None:
        return False
    indexes = {adapter.guid: adapter.index for adapter in network.adapters() if adapter.bound}
    before = {indexes[guid]: settings for guid, settings in record.adapters.items() if guid in indexes}
    _restore(network, before, record, state)
    absent = {guid: settings for guid, settings in record.adapters.items() if guid not in indexes}
    if absent and wait_for_adapters:
        network_record.keep(state, Record(absent, None))
        raise Failed("network_lost", f"{len(absent)} of its adapters are not there yet")
    return True


def _static(settings: Wanted, index: int) -> list[InterfaceAddress]:
    return [address for each in settings[index].protocols.values() for address in each.addresses]


def _words(error: BaseException) -> str:
    return str(error) if isinstance(error, Unsuccessful) else "the agent met an error of its own"
