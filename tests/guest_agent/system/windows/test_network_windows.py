from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Interface, ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.messages import MessageError
from agent_protocol.outcomes import Failed, Unknown, Unsupported
from guest_agent.network.data import NetworkData
from guest_agent.system.windows import network_cim, network_netsh, network_record
from guest_agent.system.windows.api import CallError, Ended
from guest_agent.system.windows.network_model import (
    IPV4,
    IPV6,
    AdapterSettings,
    AddressState,
    ProtocolSettings,
    StoredRoute,
)
from guest_agent.system.windows.network_plan import wanted_settings
from guest_agent.system.windows.network_windows import LOOK_SECONDS, NETSH_SECONDS, RunningNetwork

from ...network.strategies import networks
from .fake_network import FakeWindows, MemoryState
from .fake_network_windows import SYSTEM, FakeCim, FakeNetsh, FakeRegistry, running_network

MAC = "00:16:3e:00:00:01"
FOUR, SIX = ip_interface("192.0.2.5/24"), ip_interface("2001:db8::5/64")
ROUTE4 = StoredRoute(ip_network("10.0.0.0/8"), ip_address("192.0.2.1"), 50)
ROUTE6 = StoredRoute(ip_network("::/0"), ip_address("fe80::1"), 256)


def words(arguments: Sequence[str]) -> str:
    return " ".join(arguments)


def test_the_commands() -> None:
    """By Microsoft's reference of `netsh interface`."""
    assert isinstance(FOUR, IPv4Interface)
    assert [
        words(network_netsh.use_dhcp(5)),
        words(network_netsh.use_static(5, FOUR)),
        words(network_netsh.hear_advertisements(5, True)),
        words(network_netsh.hear_advertisements(5, False)),
        words(network_netsh.add_address(5, FOUR)),
        words(network_netsh.add_address(5, SIX)),
        words(network_netsh.remove_address(5, FOUR)),
        words(network_netsh.remove_address(5, SIX)),
        words(network_netsh.add_route(5, ROUTE4)),
        words(network_netsh.add_route(5, ROUTE6)),
        words(network_netsh.remove_route(5, ROUTE4)),
        words(network_netsh.remove_route(5, ROUTE6)),
        words(network_netsh.set_mtu(5, IPV4, 1400)),
        words(network_netsh.set_mtu(5, IPV6, 1400)),
        *map(words, network_netsh.set_dns(5, IPV4, [ip_address("192.0.2.53"), ip_address("192.0.2.54")])),
        *map(words, network_netsh.set_dns(5, IPV6, [])),
    ] == [
        "interface ipv4 set address name=5 source=dhcp",
        "interface ipv4 set address name=5 source=static address=192.0.2.5/24 store=persistent",
        "interface ipv6 set interface interface=5 routerdiscovery=enabled store=persistent",
        "interface ipv6 set interface interface=5 routerdiscovery=disabled store=persistent",
        "interface ipv4 add address name=5 address=192.0.2.5/24 store=persistent",
        "interface ipv6 add address interface=5 address=2001:db8::5/64 store=persistent",
        "interface ipv4 delete address name=5 address=192.0.2.5",
        "interface ipv6 delete address interface=5 address=2001:db8::5",
        "interface ipv4 add route prefix=10.0.0.0/8 interface=5 nexthop=192.0.2.1 metric=50 store=persistent",
        "interface ipv6 add route prefix=::/0 interface=5 nexthop=fe80::1 metric=256 store=persistent",
        "interface ipv4 delete route prefix=10.0.0.0/8 interface=5 nexthop=192.0.2.1",
        "interface ipv6 delete route prefix=::/0 interface=5 nexthop=fe80::1",
        "interface ipv4 set subinterface interface=5 mtu=1400 store=persistent",
        "interface ipv6 set subinterface interface=5 mtu=1400 store=persistent",
        "interface ipv4 set dnsservers name=5 source=static address=192.0.2.53 validate=no",
        "interface ipv4 add dnsservers name=5 address=192.0.2.54 index=2 validate=no",
        "interface ipv6 set dnsservers name=5 source=static address=none validate=no",
    ]


@given(networks(), st.integers(1, 2**24))
def test_no_argument_needs_quotes(network: NetworkData, index: int) -> None:
    """Whatever the data are, nothing in a command line has a meaning to Windows or to netsh but its own."""
    for interface in network.interfaces:
        for address in interface.addresses:
            assert_plain(network_netsh.add_address(index, address))
        for route in interface.routes:
            assert_plain(network_netsh.add_route(index, StoredRoute(route.destination, route.gateway, 1)))
        for version in (IPV4, IPV6):
            servers = [server for server in interface.dns if server.version == version]
            for arguments in network_netsh.set_dns(index, version, servers):
                assert_plain(arguments)


def assert_plain(arguments: Sequence[str]) -> None:
    for argument in arguments:
        assert set(argument) <= set("abcdefghijklmnopqrstuvwxyz0123456789=.:/"), argument


@pytest.fixture
def windows() -> FakeWindows:
    windows = FakeWindows()
    adapter = windows.add(5, MAC, name='a "name" & %PATH% name=7')
    four = adapter.protocols[IPV4]
    four.automatic, four.stored, four.stored_routes = False, [FOUR], [ROUTE4]
    adapter.protocols[IPV6].stored, adapter.protocols[IPV6].stored_routes = [SIX], [ROUTE6]
    for protocol in adapter.protocols.values():
        protocol.start(0)
    return windows


@pytest.mark.parametrize("stored_by_default", [True, False])
def test_reading(windows: FakeWindows, stored_by_default: bool) -> None:
    """What is stored is found whether or not a query without a store tells it."""
    network = running_network(windows, stored_by_default=stored_by_default)
    assert network.settings(5) == windows.settings(5)
    assert network.adapters() == windows.adapters()
    standing = network.standing(5)
    assert standing.addresses == {**windows.standing(5).addresses, ip_interface("fe80::5/64"): AddressState.PREFERRED}
    assert standing.routes >= windows.standing(5).routes


def test_a_lease_is_not_stored(windows: FakeWindows) -> None:
    four = windows.present[5].protocols[IPV4]
    four.stored, four.stored_routes, four.automatic = [], [], True
    four.lease, four.lease_route = FOUR, (ip_network("0.0.0.0/0"), ip_address("192.0.2.1"))
    four.start(0)
    settings = running_network(windows).settings(5).protocols[IPV4]
    assert (settings.automatic, settings.addresses, settings.routes) == (True, (), ())


def with_netsh(windows: FakeWindows, run: Any) -> RunningNetwork:
    return RunningNetwork(FakeCim(windows), FakeRegistry(windows), run, SYSTEM)


def test_how_netsh_is_run(windows: FakeWindows) -> None:
    seen: list[Any] = []

    def run(arguments: Sequence[str], environment: Mapping[str, str], timeout: float) -> Ended:
        seen.append((arguments[0], environment, timeout))
        return Ended(0, "")

    with_netsh(windows, run).set_mtu(5, IPV4, 1400)
    assert seen == [("C:\\Windows\\System32\\netsh.exe", {"SystemRoot": "C:\\Windows"}, NETSH_SECONDS)]


def test_the_name_of_a_connection_is_in_no_command(windows: FakeWindows) -> None:
    netsh = FakeNetsh(windows)
    with_netsh(windows, netsh).add_address(5, ip_interface("192.0.2.6/24"))
    assert "PATH" not in str(netsh.ran)


@pytest.mark.parametrize(
    "error", [Unknown("program_timeout", "it was ended"), Unsupported("program_missing", "it is not there")]
)
def test_a_netsh_that_does_not_run(windows: FakeWindows, error: Exception) -> None:
    def run(arguments: Sequence[str], environment: Mapping[str, str], timeout: float) -> Ended:
        raise error

    with pytest.raises(Failed, match=r"^it ") as caught:
        with_netsh(windows, run).use_dhcp(5)
    assert caught.value.code == "network_failed"


def test_how_netsh_ends(windows: FakeWindows) -> None:
    ended = [1]
    network = with_netsh(windows, lambda *arguments: Ended(ended[0], "words"))
    # What is not there any more need not be removed.
    network.remove_address(5, FOUR)
    network.remove_route(5, ROUTE4)
    with pytest.raises(Failed, match=r"^netsh interface ipv4 add address .* ended with 1: words$"):
        network.add_address(5, FOUR)
    ended[0] = 3
    with pytest.raises(Failed, match="ended with 3"):
        network.remove_address(5, FOUR)


@pytest.mark.parametrize(
    "change",
    [
        {"AddressState": 9},
        {"IPAddress": "somewhere"},
        {"PrefixLength": None},
        {"Store": KeyError},
        {"IPAddress": None},
    ],
)
def test_rows_that_make_no_sense(windows: FakeWindows, change: dict[str, Any]) -> None:
    class Odd(FakeCim):
        def MSFT_NetIPAddress(self) -> list[dict[str, Any]]:
            rows = [{**row, **change} for row in super().MSFT_NetIPAddress()]
            return [{name: value for name, value in row.items() if value is not KeyError} for row in rows]

    network = RunningNetwork(Odd(windows), FakeRegistry(windows), FakeNetsh(windows), SYSTEM)
    with pytest.raises(Failed, match="cannot be read") as caught:
        (network.settings if "AddressState" not in change else network.standing)(5)
        network.standing(5)
    assert caught.value.code == "network_failed"


def test_a_registry_that_is_closed(windows: FakeWindows) -> None:
    class Closed(FakeRegistry):
        def value(self, key: str, name: str) -> Any:
            raise CallError("RegOpenKeyEx", 5, "Access is denied.")

    network = RunningNetwork(FakeCim(windows), Closed(windows), FakeNetsh(windows), SYSTEM)
    for read in (network.search_list, lambda: network.settings(5)):
        with pytest.raises(Failed, match="error 5: Access is denied") as caught:
            read()
        assert caught.value.code == "network_failed"


def test_an_adapter_that_is_gone(windows: FakeWindows) -> None:
    with pytest.raises(Failed, match="the index 7 is gone"):
        running_network(windows).settings(7)


def test_adapters_by_their_rows() -> None:
    class Rows:
        def rows(self, class_name: str, index: int | None = None, *, stored: bool = False) -> Any:
            if class_name == network_cim.IP_INTERFACE:
                return [{"InterfaceIndex": 3, "AddressFamily": family} for family in (2, 23, 99)]
            guid = "{12345678-1234-1234-1234-12345678ABCD}"
            common = {"InterfaceGuid": guid, "InterfaceIndex": 3, "Name": None, "PermanentAddress": "00-16-3E-0A-0B-0C"}
            return [
                {**common, "NetworkAddresses": None, "HardwareInterface": True, "Virtual": True},
                {**common, "NetworkAddresses": (), "HardwareInterface": None},
                {**common, "NetworkAddresses": ("02163E0A0B0C",), "HardwareInterface": True, "Hidden": True},
                {**common, "InterfaceGuid": "{1}' OR '1'='1"},
                {**common, "PermanentAddress": "00163E0A0B0C0D0E", "NetworkAddresses": ("",)},
            ]

    found = network_cim.adapters(Rows())  # type: ignore[arg-type]
    assert [(adapter.mac, adapter.hardware, adapter.hidden, sorted(adapter.bound)) for adapter in found] == [
        ("00:16:3e:0a:0b:0c", False, False, [4, 6]),
        ("00:16:3e:0a:0b:0c", False, False, [4, 6]),
        ("02:16:3e:0a:0b:0c", True, True, [4, 6]),
    ]


def test_waiting() -> None:
    slept: list[float] = []
    windows = FakeWindows()
    network = RunningNetwork(FakeCim(windows), FakeRegistry(windows), FakeNetsh(windows), SYSTEM, sleep=slept.append)
    network.wait_for_change(0.1)
    network.wait_for_change(9)
    assert slept == [0.1, LOOK_SECONDS]


EMPTY = ProtocolSettings(False, (), (), (), 1500)


@given(networks(), st.none() | st.just(("a.example", "b.example")))
def test_the_record(network: NetworkData, search_list: tuple[str, ...] | None) -> None:
    state = MemoryState()
    adapters = {}
    for number, interface in enumerate(network.interfaces):
        routes = tuple(StoredRoute(route.destination, route.gateway, 1) for route in interface.routes)
        protocols = {
            version: ProtocolSettings(
                interface.dhcp4,
                tuple(address for address in interface.addresses if address.version == version),
                tuple(route for route in routes if route.destination.version == version),
                tuple(server for server in interface.dns if server.version == version),
                interface.mtu or 1500,
            )
            for version in ((IPV4,), (IPV6,), (IPV4, IPV6))[number % 3]
        }
        guid = f"{{0000000{number:X}-0000-4000-8000-00163E0000AF}}"
        adapters[guid] = AdapterSettings(protocols, interface.search[0] if interface.search else "")
    record = network_record.Record(adapters, search_list)
    network_record.keep(state, record)
    assert network_record.read(state) == record
    network_record.forget(state)
    assert network_record.read(state) is None


GUID = "{00000000-0000-4000-8000-00163E0000AF}"
PROTOCOL = '{"automatic":0,"addresses":["192.0.2.5/24"],"routes":["0.0.0.0/0 192.0.2.1 5"],"dns":[],"mtu":1500}'


def record_of(protocol: str, guid: str = GUID) -> bytes:
    return f'{{"v":1,"adapters":{{"{guid}":{{"suffix":"","ipv4":{protocol}}}}}}}'.encode()


def test_a_good_record() -> None:
    state = MemoryState()
    state.files[network_record.RECORD] = record_of(PROTOCOL)
    record = network_record.read(state)
    assert record is not None and record.adapters[GUID].protocols[IPV4].addresses == (FOUR,)


@pytest.mark.parametrize(
    "content",
    [
        record_of(PROTOCOL, "Ethernet"),
        record_of(PROTOCOL, GUID.lower()),
        record_of(PROTOCOL.replace("192.0.2.5/24", "2001:db8::5/64")),
        record_of(PROTOCOL.replace("192.0.2.5/24", "nowhere")),
        record_of(PROTOCOL.replace("192.0.2.1 5", "192.0.2.1")),
        record_of(PROTOCOL.replace("192.0.2.1 5", "192.0.2.1 x")),
        record_of(PROTOCOL.replace("1500", "-1")),
        record_of("[]"),
        b"[]",
    ],
)
def test_a_bad_record(content: bytes) -> None:
    state = MemoryState()
    state.files[network_record.RECORD] = content
    with pytest.raises(MessageError):
        network_record.read(state)


@given(networks())
def test_what_the_data_leave_to_windows_stays(network: NetworkData) -> None:
    present = AdapterSettings({IPV4: ProtocolSettings(False, (), (), (), 1234), IPV6: EMPTY}, "old.example")
    for interface in network.interfaces:
        if interface.dhcp4 and any(address.version == IPV4 for address in interface.addresses):
            continue
        if any((route.metric or 0) > 9999 for route in interface.routes):
            continue
        wanted = wanted_settings(interface, present, search_list=False)
        assert wanted.protocols[IPV4].mtu == (interface.mtu or 1234)
        six = wanted.protocols[IPV6]
        if not (six.addresses or six.routes or six.dns or interface.dhcp6):
            assert not six.automatic
