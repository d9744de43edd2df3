from __future__ import annotations

import contextlib
import json
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.outcomes import Refused
from guest_agent.network.data import DEFAULT4, DEFAULT6, MAX_INTERFACES, Interface, NetworkData, Route
from guest_agent.network.legacy import LegacyData, read_legacy_data
from guest_agent.system.hostname import HostName

from .strategies import networks

MAC = "00:16:3e:00:00:0a"
NODE = "00163E00000A"
WHOLE = {
    "label": "public",
    "mac": "00:16:3E:00:00:0A",
    "ips": [
        {"ip": "192.0.2.5", "netmask": "255.255.255.0", "enabled": "1", "gateway": "192.0.2.1"},
        {"ip": "192.0.2.9", "netmask": "255.255.255.0", "enabled": "0", "gateway": None},
    ],
    "ip6s": [{"ip": "2001:db8::5", "netmask": 64, "enabled": True, "gateway": "fe80::1"}],
    "gateway": "192.0.2.1",
    "broadcast": "192.0.2.255",
    "gateway_v6": "fe80::1",
    "dns": ["192.0.2.53", "192.0.2.53", "2001:db8::53"],
    "routes": [{"route": "10.0.0.0", "netmask": "255.0.0.0", "gateway": "192.0.2.2"}],
}


class Store:
    """Nodes as a dictionary."""

    def __init__(self, nodes: dict[str, bytes]) -> None:
        self.nodes = nodes

    def children(self, path: str) -> list[str]:
        start = path + "/"
        return sorted({node[len(start) :].partition("/")[0] for node in self.nodes if node.startswith(start)})

    def read(self, path: str) -> bytes | None:
        return self.nodes.get(path)


def read(entries: dict[str, Any], **others: bytes) -> LegacyData:
    nodes = {f"vm-data/networking/{name}": json.dumps(entry).encode() for name, entry in entries.items()}
    return read_legacy_data(Store({**nodes, **{path.replace("__", "/"): value for path, value in others.items()}}))


def interfaces(entries: dict[str, Any], **others: bytes) -> tuple[Interface, ...]:
    network = read(entries, **others).network
    assert network is not None
    return network.interfaces


def test_what_existing_hosts_write() -> None:
    assert interfaces({NODE: WHOLE}) == (
        Interface(
            MAC,
            (ip_interface("192.0.2.5/24"), ip_interface("2001:db8::5/64")),
            (
                Route(DEFAULT4, ip_address("192.0.2.1")),
                Route(DEFAULT6, ip_address("fe80::1")),
                Route(ip_network("10.0.0.0/8"), ip_address("192.0.2.2")),
            ),
            (ip_address("192.0.2.53"), ip_address("2001:db8::53")),
        ),
    )


def test_nothing() -> None:
    assert read({}) == LegacyData(None, None)
    assert read_legacy_data(Store({"vm-data/hostname": b""})) == LegacyData(None, None)


def test_a_name() -> None:
    assert read_legacy_data(Store({"vm-data/hostname": b"web-1\n"})) == LegacyData(None, HostName("web-1"))
    with pytest.raises(Refused) as caught:
        read_legacy_data(Store({"vm-data/hostname": b"my server"}))
    assert caught.value.code == "bad_hostname"


@pytest.mark.parametrize(
    ("enabled", "counts"), [("1", True), (1, True), (True, True), ("0", False), (0, False), (False, False)]
)
def test_enabled(enabled: object, counts: bool) -> None:
    entry = {"ips": [{"ip": "192.0.2.5", "netmask": 24, "enabled": enabled}], "gateway": "192.0.2.1"}
    (interface,) = interfaces({NODE: entry})
    # A gateway is of no use without an address.
    assert (len(interface.addresses), len(interface.routes)) == (counts, counts)


@pytest.mark.parametrize("netmask", ["64", 64, "ffff:ffff:ffff:ffff::"])
def test_masks_of_ipv6(netmask: object) -> None:
    (interface,) = interfaces({NODE: {"ip6s": [{"ip": "2001:db8::5", "netmask": netmask}]}})
    assert interface.addresses == (ip_interface("2001:db8::5/64"),)


def test_gateways_in_other_places() -> None:
    address = {"ip": "192.0.2.5", "netmask": "255.255.255.0"}
    default = {"route": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "192.0.2.3"}
    for entry, gateway in (
        ({"gateway": "192.0.2.1", "routes": [default]}, "192.0.2.1"),
        ({"ips": [{**address, "gateway": "192.0.2.2"}], "routes": [default]}, "192.0.2.2"),
        ({"routes": [default, default]}, "192.0.2.3"),
        ({"gateway": None, "routes": None}, None),
    ):
        (interface,) = interfaces({NODE: {"ips": [address], **entry}})
        assert interface.routes == (() if gateway is None else (Route(DEFAULT4, ip_address(gateway)),))


def entry(number: int, label: str = "private") -> dict[str, Any]:
    ips = [{"ip": f"10.{number}.0.5", "netmask": "255.255.0.0", "enabled": "1"}]
    return {"label": label, "ips": ips, "gateway": f"10.{number}.0.1"}


def test_one_default_route_is_first() -> None:
    entries = {
        f"0000000000{number:02X}": entry(number, "public" if number == 3 else "private") for number in (1, 2, 3, 4)
    }
    ordered = [(interface.mac[-1], interface.routes[0].metric) for interface in interfaces(entries)]
    assert ordered == [("3", 100), ("1", 200), ("2", 300), ("4", 400)]


def test_the_order_of_xens_devices() -> None:
    entries = {f"0000000000{number:02X}": entry(number) for number in (1, 2, 3, 4)}
    devices = {
        "device__vif__0__mac": b"00:00:00:00:00:04",
        "device__vif__10__mac": b"00:00:00:00:00:02",
        "device__vif__9__mac": b"00:00:00:00:00:03",
        "device__vif__x__mac": b"00:00:00:00:00:01",
        "device__vif__7__state": b"1",
    }
    assert [interface.mac[-1] for interface in interfaces(entries, **devices)] == ["4", "3", "2", "1"]


@pytest.mark.parametrize(
    "entry",
    [
        [],
        {"mac": "00:16:3e:00:00:0b"},
        {"mac": 5},
        {"ips": {}},
        {"ips": [5]},
        {"ips": [{"netmask": 24}]},
        {"ips": [{"ip": "192.0.2.5"}]},
        {"ips": [{"ip": "192.0.2.5", "netmask": "255.0.255.0"}]},
        {"ips": [{"ip": "192.0.2.5", "netmask": "ffff::"}]},
        {"ips": [{"ip": "192.0.2.5", "netmask": 33}]},
        {"ips": [{"ip": "192.0.2.5", "netmask": True}]},
        {"ips": [{"ip": "192.0.2.5", "netmask": "10" * 99}]},
        {"ips": [{"ip": "192.0.2.5", "netmask": 24, "enabled": "yes"}]},
        {"ips": [{"ip": "2001:db8::1", "netmask": 24}]},
        {"ips": [{"ip": "192.0.2.5", "netmask": 24}], "gateway": "198.51.100.1"},
        {"ips": [{"ip": "192.0.2.5", "netmask": 24}], "gateway": ["192.0.2.1"]},
        {"ip6s": [{"ip": "2001:db8::1%a\nb", "netmask": 64}]},
        {"dns": [5]},
        {"dns": "192.0.2.53"},
        {"routes": [{"route": "10.0.0.1", "netmask": "255.0.0.0", "gateway": "192.0.2.1"}]},
        {"routes": [{"route": "10.0.0.0", "netmask": "255.0.0.0", "gateway": None}]},
    ],
)
def test_bad_entries(entry: object) -> None:
    with pytest.raises(Refused) as caught:
        read({NODE: entry})
    assert caught.value.code == "bad_network_data"


def test_bad_nodes() -> None:
    for nodes in (
        {"vm-data/networking/eth0": b"{}"},
        {f"vm-data/networking/{NODE}": b"\xff"},
        {f"vm-data/networking/{NODE}": b""},
        {f"vm-data/networking/00163E00000{letter}": b"{}" for letter in "aA"},
        {f"vm-data/networking/00163E0000{number:02x}": b"{}" for number in range(MAX_INTERFACES + 1)},
        {f"vm-data/networking/{number}": b"{}" for number in range(100)},
    ):
        with pytest.raises(Refused) as caught:
            read_legacy_data(Store(nodes))
        assert caught.value.code == "bad_network_data"


def as_old_host(interface: Interface) -> dict[str, Any]:
    """An interface as existing hosts write it, as far as they can."""
    entry: dict[str, Any] = {"mac": interface.mac.upper(), "ips": [], "ip6s": [], "routes": []}
    for address in interface.addresses:
        netmask = str(address.netmask) if address.version == 4 else str(address.network.prefixlen)
        members = {"ip": str(address.ip), "netmask": netmask, "enabled": "1"}
        entry["ips" if address.version == 4 else "ip6s"].append(members)
    for route in interface.routes:
        if route.destination.prefixlen == 0:
            entry["gateway" if route.gateway.version == 4 else "gateway_v6"] = str(route.gateway)
        else:
            network, gateway = route.destination, route.gateway
            members = {"route": str(network.network_address), "netmask": str(network.netmask), "gateway": str(gateway)}
            entry["routes"].append(members)
    entry["dns"] = [str(server) for server in interface.dns]
    return entry


@given(networks())
def test_what_old_hosts_can_say_arrives(data: NetworkData) -> None:
    nodes = {interface.mac.replace(":", "").upper(): as_old_host(interface) for interface in data.interfaces}
    for wanted, got in zip(data.interfaces, interfaces(nodes)):
        assert (got.mac, got.addresses, got.dns) == (wanted.mac, wanted.addresses, tuple(dict.fromkeys(wanted.dns)))
        assert {(route.destination, route.gateway) for route in got.routes} == {
            (route.destination, route.gateway) for route in wanted.routes
        }


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=20)
    | st.sampled_from(["192.0.2.5", "2001:db8::1", "1"]),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.sampled_from([*WHOLE, "ip", "netmask", "enabled", "route"]), children, max_size=5)
    ),
    max_leaves=20,
)


@given(st.binary(max_size=50) | JSON.map(lambda value: json.dumps(value).encode()), st.binary(max_size=70))
def test_nothing_but_refusals(value: bytes, name: bytes) -> None:
    with contextlib.suppress(Refused):
        read_legacy_data(Store({f"vm-data/networking/{NODE}": value, "vm-data/hostname": name}))
