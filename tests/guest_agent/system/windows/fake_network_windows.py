"""CIM, registry and netsh of a Windows, on top of FakeWindows: what RunningNetwork needs, as the real ones are.

netsh takes exactly the words that Microsoft's reference has for each command, and an index wherever it takes a name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Interface, ip_address, ip_interface, ip_network
from typing import Any

from agent_protocol.outcomes import Failed
from guest_agent.system.windows.api import Ended, Value
from guest_agent.system.windows.network_model import IPV4, IPV6, StoredRoute
from guest_agent.system.windows.network_windows import RunningNetwork

from .fake_network import FakeAdapter, FakeWindows

SYSTEM = "C:\\Windows\\System32"

COMMANDS = {
    ("ipv4", "add", "address"): "name address mask type gateway gwmetric store skipassource",
    ("ipv4", "add", "dnsservers"): "name address index validate",
    ("ipv4", "add", "route"): "prefix interface nexthop siteprefixlength metric publish store",
    ("ipv4", "delete", "address"): "name address gateway store",
    ("ipv4", "delete", "route"): "prefix interface nexthop store",
    ("ipv4", "set", "address"): "name source address mask gateway gwmetric type store",
    ("ipv4", "set", "dnsservers"): "name source address register validate",
    ("ipv4", "set", "subinterface"): "interface mtu subinterface store",
    ("ipv6", "add", "address"): "interface address type store skipassource",
    ("ipv6", "add", "dnsservers"): "name address index validate",
    ("ipv6", "add", "route"): "prefix interface nexthop siteprefixlength metric publish store",
    ("ipv6", "delete", "address"): "interface address store",
    ("ipv6", "delete", "route"): "prefix interface nexthop store",
    ("ipv6", "set", "dnsservers"): "name source address register validate",
    ("ipv6", "set", "interface"): "interface mtu nud dadtransmits routerdiscovery managedaddress otherstateful store",
    ("ipv6", "set", "subinterface"): "interface mtu subinterface store",
}


class FakeCim:
    """network_cim.Cim. stored_by_default: whether a query without a store tells what is stored."""

    def __init__(self, windows: FakeWindows, stored_by_default: bool = True) -> None:
        self.windows = windows
        self.stored_by_default = stored_by_default

    def rows(self, class_name: str, index: int | None = None, *, stored: bool = False) -> Sequence[Mapping[str, Any]]:
        self.windows._called("rows")
        found = [row for row in getattr(self, class_name)() if index is None or row["InterfaceIndex"] == index]
        wanted = [0] if stored else [0, 1] if self.stored_by_default else [1]
        return [row for row in found if row.get("Store", 0) in wanted or "Store" not in row]

    def MSFT_NetAdapter(self) -> list[dict[str, Any]]:
        rows = [
            {
                "InterfaceGuid": adapter.guid.lower(),
                "InterfaceIndex": index,
                "NetworkAddresses": (adapter.mac.replace(":", "").upper(),),
                "PermanentAddress": "001122334455",
                "Name": adapter.name,
                "HardwareInterface": adapter.hardware,
                "Virtual": not adapter.hardware,
                "Hidden": adapter.hidden,
            }
            for index, adapter in self.windows.present.items()
        ]
        tunnel = {"InterfaceGuid": "{}", "InterfaceIndex": 99, "NetworkAddresses": None, "PermanentAddress": ""}
        return [*rows, tunnel]

    def MSFT_NetIPInterface(self) -> list[dict[str, Any]]:
        rows = [{"InterfaceIndex": 1, "AddressFamily": 2, "Dhcp": 0, "RouterDiscovery": 0, "NlMtu": -1}]
        for index, adapter in self.windows.present.items():
            for version, protocol in adapter.protocols.items():
                four = version == IPV4
                rows.append(
                    {
                        "InterfaceIndex": index,
                        "AddressFamily": 2 if four else 23,
                        "Dhcp": int(protocol.automatic) if four else 1,
                        # 2 is `controlled by DHCP`.
                        "RouterDiscovery": 2 if four else int(protocol.automatic),
                        "NlMtu": protocol.mtu,
                    }
                )
        return rows

    def MSFT_NetIPAddress(self) -> list[dict[str, Any]]:
        rows = []
        for index, adapter in self.windows.present.items():
            link_local = {"IPAddress": f"fe80::{index}%{index}", "PrefixLength": 64, "Type": 1, "AddressState": 4}
            rows.append({"InterfaceIndex": index, "Store": 1, **link_local})
            rows.append({"InterfaceIndex": index, "Store": 0, **link_local})
            for protocol in adapter.protocols.values():
                for store, addresses in ((0, list(protocol.stored)), (1, list(protocol.active))):
                    rows += [
                        {
                            "InterfaceIndex": index,
                            "Store": store,
                            "IPAddress": str(address.ip),
                            "PrefixLength": address.network.prefixlen,
                            "Type": 1,
                            "AddressState": 0
                            if store == 0
                            else int(self.windows._state(adapter, address, protocol.active[address])),
                        }
                        for address in addresses
                    ]
        return rows

    def MSFT_NetRoute(self) -> list[dict[str, Any]]:
        rows = []
        for index, adapter in self.windows.present.items():
            for protocol in adapter.protocols.values():
                for address in protocol.stored:
                    by_itself = {"DestinationPrefix": str(address.network), "NextHop": "0.0.0.0", "Protocol": 2}
                    rows += [
                        {"InterfaceIndex": index, "Store": store, "RouteMetric": 256, **by_itself} for store in (0, 1)
                    ]
                for route in protocol.stored_routes:
                    rows.append(self._route(index, 0, str(route.destination), str(route.gateway), route.metric))
                for destination, gateway in protocol.active_routes:
                    rows.append(self._route(index, 1, str(destination), str(gateway), 256))
        return rows

    def _route(self, index: int, store: int, destination: str, gateway: str, metric: int) -> dict[str, Any]:
        if gateway.startswith("fe80"):
            gateway += f"%{index}"
        return {
            "InterfaceIndex": index,
            "Store": store,
            "DestinationPrefix": destination,
            "NextHop": gateway,
            "RouteMetric": metric,
            "Protocol": 3,
        }

    def disable_dhcp(self, index: int) -> None:
        self.windows.use_static(index, None)

    def set_suffix(self, index: int, suffix: str) -> None:
        self.windows.set_suffix(index, suffix)

    def set_search_list(self, domains: Sequence[str]) -> None:
        self.windows.set_search_list(domains)


class FakeRegistry:
    """The TCP/IP parameters."""

    def __init__(self, windows: FakeWindows) -> None:
        self.windows = windows

    def value(self, key: str, name: str) -> Value | None:
        self.windows._called("registry")
        services = "SYSTEM\\CurrentControlSet\\Services\\"
        assert key.startswith(services)
        service, parameters, *rest = key[len(services) :].split("\\")
        assert parameters == "Parameters"
        if not rest:
            assert (service, name) == ("Tcpip", "SearchList")
            return ",".join(self.windows.domains) if self.windows.domains else None
        assert rest[0] == "Interfaces"
        adapter = next(each for each in self.windows.present.values() if each.guid == rest[1].upper())
        if name == "Domain":
            return adapter.suffix
        assert name == "NameServer"
        protocol = adapter.protocols[{"Tcpip": IPV4, "Tcpip6": IPV6}[service]]
        return ",".join(map(str, protocol.dns))

    def has_key(self, key: str) -> bool:
        return True


class FakeNetsh:
    """programs.run for netsh. ran: the command lines."""

    def __init__(self, windows: FakeWindows) -> None:
        self.windows = windows
        self.ran: list[list[str]] = []
        self._servers: dict[tuple[int, int], list[Any]] = {}

    def __call__(self, arguments: Sequence[str], environment: Mapping[str, str], timeout: float) -> Ended:
        self.ran.append(list(arguments))
        program, context, version, verb, noun, *rest = arguments
        assert (program, context) == (f"{SYSTEM}\\netsh.exe", "interface")
        assert environment == {"SystemRoot": "C:\\Windows"} and timeout > 0
        known = COMMANDS[version, verb, noun].split()
        words = dict(word.split("=", 1) for word in rest)
        assert len(words) == len(rest) and list(words) == [name for name in known if name in words], arguments
        assert words.get("store", "persistent") == "persistent"
        index = int(words.get("name") or words["interface"])
        try:
            self._do(int(version[-1]), f"{verb} {noun}", index, words)
        except Failed as error:
            return Ended(1, error.message)
        return Ended(0, "")

    def _do(self, version: int, command: str, index: int, words: Mapping[str, str]) -> None:
        windows = self.windows
        if command == "set address":
            if words["source"] == "dhcp":
                windows.use_dhcp(index)
            else:
                address = ip_interface(words["address"])
                assert isinstance(address, IPv4Interface)
                windows.use_static(index, address)
        elif command == "add address":
            windows.add_address(index, ip_interface(words["address"]))
        elif command == "delete address":
            windows.remove_address(index, self._with_prefix(windows._adapter(index), words["address"]))
        elif command.endswith("route"):
            destination, gateway = ip_network(words["prefix"]), ip_address(words["nexthop"])
            route = StoredRoute(destination, gateway, int(words.get("metric", 0)))
            if command == "add route":
                windows.add_route(index, route)
            else:
                windows.remove_route(index, route)
        elif command == "set dnsservers":
            assert (words["source"], words["validate"]) == ("static", "no")
            servers = [] if words["address"] == "none" else [ip_address(words["address"])]
            windows.set_dns(index, version, servers)
        elif command == "add dnsservers":
            present = windows._protocol(index, version).dns
            assert int(words["index"]) == len(present) + 1 and words["validate"] == "no"
            windows.set_dns(index, version, [*present, ip_address(words["address"])])
        elif command == "set subinterface":
            windows.set_mtu(index, version, int(words["mtu"]))
        else:
            assert command == "set interface" and version == IPV6
            windows.hear_advertisements(index, {"enabled": True, "disabled": False}[words["routerdiscovery"]])

    def _with_prefix(self, adapter: FakeAdapter, text: str) -> Any:
        for protocol in adapter.protocols.values():
            for address in protocol.stored:
                if address.ip == ip_address(text):
                    return address
        raise Failed("netsh", "Element not found.")


def running_network(windows: FakeWindows, *, stored_by_default: bool = True) -> RunningNetwork:
    cim = FakeCim(windows, stored_by_default)
    return RunningNetwork(cim, FakeRegistry(windows), FakeNetsh(windows), SYSTEM, sleep=windows.wait_for_change)
