"""A guest with adapters to be configured, and what can happen to it at any moment."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from agent_protocol.outcomes import Failed, Unsuccessful
from guest_agent.network.data import NetworkData
from guest_agent.network.sealed import parse_network_data
from guest_agent.system.windows.network import apply_network, recover
from guest_agent.system.windows.network_model import IPV4, IPV6, StoredRoute, WindowsNetwork
from guest_agent.system.windows.network_record import RECORD

from .fake_network import FakeWindows, MemoryState
from .fake_network_windows import running_network

ETH0, ETH1 = "00:16:3e:00:00:01", "00:16:3e:00:00:02"


def data(*interfaces: dict[str, Any]) -> NetworkData:
    filled = [{"mac": mac, **members} for mac, members in zip([ETH0, ETH1], interfaces)]
    return parse_network_data(json.dumps({"interfaces": filled}))


OLD = data(
    {"addresses": ["192.0.2.5/24", "2001:db8::5/64"], "gateway4": "192.0.2.1", "dns": ["192.0.2.53"], "mtu": 1400}
)
NEW = data(
    {
        "addresses": ["192.0.2.6/24", "2001:db8::5/64", "2001:db8::6/64"],
        "gateway4": "192.0.2.1",
        "gateway6": "2001:db8::1",
        "routes": [{"to": "10.0.0.0/8", "via": "192.0.2.9", "metric": 50}],
        "dns": ["192.0.2.54", "192.0.2.53", "2001:db8::53"],
        "search": ["example.com", "example.net"],
        "mtu": 1300,
    },
    {"addresses": ["198.51.100.6/24"], "gateway4": "198.51.100.1"},
)


ON_LINK = StoredRoute(ip_network("203.0.113.0/24"), ip_address("0.0.0.0"), 7)
"""Something of other software's."""


class Guest:
    """A guest with two adapters: eth0 with OLD and what the host does not know of, and eth1 with DHCP.

    running: whether its network is reached as that of a running Windows is.
    """

    def __init__(self, running: bool = False) -> None:
        self.windows, self.state = FakeWindows(), MemoryState()
        self.network: WindowsNetwork = running_network(self.windows) if running else self.windows
        self.eth0 = self.windows.add(5, ETH0, name='Ethernet "0" & \u00fcber')
        self.eth1 = self.windows.add(6, ETH1, name="Ethernet 2")
        four = self.eth1.protocols[IPV4]
        four.lease = ip_interface("198.51.100.77/24")
        four.lease_route = (ip_network("0.0.0.0/0"), ip_address("198.51.100.1"))
        self.eth1.protocols[IPV6].lease = ip_interface("2001:db8:1::77/64")
        for adapter in (self.eth0, self.eth1):
            for protocol in adapter.protocols.values():
                protocol.start(0)
        self.eth0.suffix = "old.example"
        self.apply(OLD)
        self.eth0.suffix = "old.example"
        # Something that an administrator added, to the link itself, and what cluster software did.
        self.eth0.protocols[IPV4].stored_routes.append(ON_LINK)
        self.eth0.protocols[IPV4].stored_routes.append(
            StoredRoute(ip_network("203.0.114.0/24"), ip_address("192.0.2.77"), 7)
        )
        self.eth0.protocols[IPV4].active[ip_interface("192.0.2.200/24")] = 0
        self.windows.calls.clear()

    def apply(self, wanted: NetworkData) -> Any:
        return apply_network(self.network, wanted, self.state, clock=self.windows.clock)

    def recover(self) -> None:
        recover(self.network, self.state)

    def picture(self) -> Any:
        """All that is stored."""
        return {
            adapter.guid: (
                adapter.suffix,
                {
                    version: (each.automatic, set(each.stored), set(each.stored_routes), each.dns, each.mtu)
                    for version, each in adapter.protocols.items()
                },
            )
            for adapter in self.windows.present.values()
        }, self.windows.domains

    def usable(self) -> set[str]:
        """The addresses that can be used, once all were looked for."""
        self.windows.now += 60
        return {
            str(address)
            for index in self.windows.present
            for address, state in self.windows.standing(index).addresses.items()
            if state.name == "PREFERRED"
        }


OLD_USABLE = {"192.0.2.5/24", "2001:db8::5/64", "192.0.2.200/24", "198.51.100.77/24", "2001:db8:1::77/64"}
NEW_USABLE = {
    "192.0.2.6/24",
    "2001:db8::5/64",
    "2001:db8::6/64",
    "192.0.2.200/24",
    "198.51.100.6/24",
    "2001:db8:1::77/64",
}


def failing(guest: Guest, code: str, wanted: NetworkData = NEW) -> str:
    with pytest.raises(Unsuccessful) as caught:
        guest.apply(wanted)
    assert caught.value.code == code, caught.value
    return caught.value.message


class Crash(BaseException):
    """The end of the agent: nothing more happens."""


class Faults:
    """Something that happens at the call of a number, counted from 0, of a guest's network and its files."""

    def __init__(
        self, guest: Guest, at: int | None, fault: Callable[[], bool | None], *, lasting: bool = False
    ) -> None:
        self.guest, self.at, self.fault, self.lasting = guest, at, fault, lasting
        self.count = 0
        guest.windows.on_call = guest.state.on_call = self.call

    def call(self, name: str) -> bool | None:
        number, self.count = self.count, self.count + 1
        if self.at is not None and (number == self.at or (self.lasting and number > self.at)):
            return self.fault()
        return None

    def after(self) -> None:
        """Only let calls that change something fail, when they have done so."""
        self.guest.windows.on_call = self.guest.state.on_call = lambda name: None
        self.guest.windows.after_call = lambda name: (self.call(name), None)[1]

    def end(self) -> None:
        self.guest.windows.on_call = self.guest.state.on_call = lambda name: None
        self.guest.windows.after_call = lambda name: None

    def happened(self) -> bool:
        return self.at is not None and self.count > self.at


def fail() -> bool | None:
    raise Failed("network_failed", "the fault")


def stop() -> bool | None:
    raise Crash


def divide_by_zero() -> bool | None:
    raise ZeroDivisionError


def crashing(guest: Guest, at: int) -> Callable[[], None]:
    """Let the agent end at its call of that number, and whatever it calls afterwards. Returns what starts it again."""
    return Faults(guest, at, stop, lasting=True).end


def crash_half_way(guest: Guest) -> None:
    """Begin with NEW, and end when both adapters are changed, but neither as it shall be."""
    faults = Faults(guest, None, stop, lasting=True)

    def crash(name: str) -> None:
        faults.at = -1 if name == "use_static" else faults.at
        if faults.at is not None:
            raise Crash

    guest.windows.after_call = crash
    with pytest.raises(Crash):
        guest.apply(NEW)
    faults.end()
    assert not guest.eth1.protocols[IPV4].automatic and RECORD in guest.state.files
