from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from agent_protocol.outcomes import Failed
from guest_agent.network.data import Interface, NetworkData, Route
from guest_agent.system.windows.network_model import IPV4, IPV6, StoredRoute
from guest_agent.system.windows.network_record import RECORD

from .fake_network_guest import ETH0, ETH1, NEW, NEW_USABLE, OLD, OLD_USABLE, ON_LINK, Guest, data, failing


@pytest.fixture(params=[False, True], ids=["model", "running"])
def guest(request: pytest.FixtureRequest) -> Guest:
    """As the agent's own types tell it, and as CIM and netsh do: all must hold for both."""
    return Guest(request.param)


def test_apply(guest: Guest) -> None:
    before = guest.usable()
    assert before == OLD_USABLE
    applied = guest.apply(NEW)
    assert applied.seen == 4
    assert set(applied.changed) == {
        f"{ETH0} ipv4 routes",
        f"{ETH0} ipv4 addresses",
        f"{ETH1} ipv4 dhcp",
        f"{ETH0} ipv6 advertisements",
        f"{ETH0} ipv4 mtu",
        f"{ETH0} ipv4 dns",
        f"{ETH0} ipv6 mtu",
        f"{ETH0} ipv6 addresses",
        f"{ETH0} ipv6 routes",
        f"{ETH0} ipv6 dns",
        f"{ETH0} search domain",
        f"{ETH1} ipv4 routes",
        "search list",
    }
    assert guest.usable() == NEW_USABLE
    four, six = guest.eth0.protocols[IPV4], guest.eth0.protocols[IPV6]
    assert not four.automatic and not six.automatic and not guest.eth1.protocols[IPV4].automatic
    assert guest.eth1.protocols[IPV6].automatic
    assert set(four.stored_routes) == {
        StoredRoute(ip_network("0.0.0.0/0"), ip_address("192.0.2.1"), 100),
        StoredRoute(ip_network("10.0.0.0/8"), ip_address("192.0.2.9"), 50),
        ON_LINK,
    }
    assert set(guest.eth1.protocols[IPV4].stored_routes) == {
        StoredRoute(ip_network("0.0.0.0/0"), ip_address("198.51.100.1"), 200)
    }
    assert set(six.stored_routes) == {StoredRoute(ip_network("::/0"), ip_address("2001:db8::1"), 256)}
    assert [str(server) for server in (*four.dns, *six.dns)] == ["192.0.2.54", "192.0.2.53", "2001:db8::53"]
    assert (four.mtu, six.mtu, guest.eth1.protocols[IPV4].mtu) == (1300, 1300, 1500)
    assert (guest.windows.domains, guest.eth0.suffix) == (("example.com", "example.net"), "")
    assert RECORD not in guest.state.files


def test_it_stays_after_a_reboot(guest: Guest) -> None:
    guest.apply(NEW)
    stored = guest.picture()
    guest.windows.reboot()
    assert guest.picture() == stored
    # What was in force only is gone.
    assert guest.usable() == NEW_USABLE - {"192.0.2.200/24"}


def test_twice_changes_nothing(guest: Guest) -> None:
    guest.apply(NEW)
    guest.windows.calls.clear()
    assert guest.apply(NEW).changed == ()
    reads = {"adapters", "settings", "standing", "search_list", "wait_for_change", "rows", "registry"}
    assert set(guest.windows.calls) <= reads


def test_only_what_differs_is_touched(guest: Guest) -> None:
    """An address that stays must not go for a moment: connections are on it."""
    guest.apply(NEW)
    removed: list[str] = []
    guest.windows.on_call = lambda name: removed.append(name) if name.startswith("remove") else None
    more = data({"addresses": ["192.0.2.6/24", "192.0.2.7/24"], "gateway4": "192.0.2.1", "dns": []})
    guest.apply(NetworkData((*more.interfaces, NEW.interfaces[1])))
    assert "192.0.2.6/24" in guest.usable()
    # Two IPv6 addresses, IPv6's default route, the route to 10.0.0.0/8, and the default route's other metric.
    assert sorted(removed) == ["remove_address"] * 2 + ["remove_route"] * 3


def test_dhcp(guest: Guest) -> None:
    guest.apply(NEW)
    guest.apply(data({"addresses": ["192.0.2.6/24"]}, {"dhcp4": True, "dhcp6": True, "dns": ["192.0.2.53"]}))
    four, six = guest.eth1.protocols[IPV4], guest.eth1.protocols[IPV6]
    assert (four.automatic, six.automatic, four.stored, four.stored_routes) == (True, True, [], [])
    assert [str(server) for server in four.dns] == ["192.0.2.53"]
    assert {"198.51.100.77/24", "2001:db8:1::77/64"} <= guest.usable()


def test_dhcp_with_a_route(guest: Guest) -> None:
    route = {"to": "10.0.0.0/8", "via": "198.51.100.9"}
    guest.apply(data({"addresses": ["192.0.2.5/24"]}, {"dhcp4": True, "routes": [route]}))
    assert guest.eth1.protocols[IPV4].stored_routes == [
        StoredRoute(ip_network("10.0.0.0/8"), ip_address("198.51.100.9"), 256)
    ]


def test_ipv6_only(guest: Guest) -> None:
    guest.apply(data({"addresses": ["192.0.2.5/24"]}, {"addresses": ["2001:db8:1::6/64"], "gateway6": "fe80::1"}))
    four = guest.eth1.protocols[IPV4]
    assert (four.automatic, four.stored) == (False, [])
    assert {"2001:db8:1::6/64"} == guest.usable() - {"192.0.2.5/24", "192.0.2.200/24"}


def test_an_address_moves_to_another_adapter(guest: Guest) -> None:
    guest.apply(data({"addresses": ["192.0.2.5/24"]}, {"addresses": ["192.0.2.6/24"]}))
    guest.apply(data({"addresses": ["192.0.2.6/24"]}, {"addresses": ["192.0.2.5/24"]}))
    assert (guest.eth0.protocols[IPV4].stored, guest.eth1.protocols[IPV4].stored) == (
        [ip_interface("192.0.2.6/24")],
        [ip_interface("192.0.2.5/24")],
    )
    guest.apply(data({"dhcp4": True}, {"addresses": ["192.0.2.6/24"]}))


def test_a_static_address_moves_to_an_adapter_with_dhcp(guest: Guest) -> None:
    guest.apply(data({"addresses": ["192.0.2.9/24"]}, {"addresses": ["192.0.2.5/24"]}))
    guest.apply(data({"addresses": ["192.0.2.5/24"]}, {"dhcp4": True}))
    wanted = data({"addresses": ["192.0.2.9/24"]}, {"addresses": ["192.0.2.5/24"]})
    guest.apply(NetworkData(wanted.interfaces[::-1]))
    assert {"192.0.2.9/24", "192.0.2.5/24"} <= guest.usable()


def test_another_prefix(guest: Guest) -> None:
    guest.apply(data({"addresses": ["192.0.2.5/25"], "gateway4": "192.0.2.1"}))
    assert guest.eth0.protocols[IPV4].stored == [ip_interface("192.0.2.5/25")]


def test_the_leased_address_becomes_static(guest: Guest) -> None:
    guest.apply(data({"addresses": ["192.0.2.5/24"]}, {"addresses": ["198.51.100.77/24"], "gateway4": "198.51.100.1"}))
    assert guest.eth1.protocols[IPV4].stored == [ip_interface("198.51.100.77/24")]


@pytest.mark.parametrize(
    ("before", "search", "after", "suffix"),
    [
        ((), ["a.example"], (), "a.example"),
        ((), [], (), ""),
        (("corp.example",), [], ("corp.example",), ""),
        (("corp.example",), ["a.example"], ("a.example",), ""),
        ((), ["a.example", "b.example"], ("a.example", "b.example"), ""),
    ],
)
def test_search_domains(
    guest: Guest, before: tuple[str, ...], search: list[str], after: tuple[str, ...], suffix: str
) -> None:
    guest.windows.domains = before
    guest.apply(data({"addresses": ["192.0.2.5/24"], "search": search}))
    assert (guest.windows.domains, guest.eth0.suffix) == (after, suffix)


def test_a_small_mtu_is_for_ipv4_only(guest: Guest) -> None:
    guest.apply(data({"addresses": ["192.0.2.5/24"], "mtu": 1000}))
    assert (guest.eth0.protocols[IPV4].mtu, guest.eth0.protocols[IPV6].mtu) == (1000, 1400)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (data({"addresses": ["192.0.2.5/24"], "dhcp4": True}), "either DHCP or static"),
        (
            data({"dhcp4": True, "routes": [{"to": "10.0.0.0/8", "via": "192.0.2.1", "metric": 10000}]}),
            "at most 9999",
        ),
        (
            NetworkData(
                (
                    Interface(
                        ETH0,
                        routes=tuple(
                            Route(ip_network("10.0.0.0/8"), ip_address("192.0.2.1"), metric) for metric in (1, 2)
                        ),
                        dhcp4=True,
                    ),
                )
            ),
            "asks for two",
        ),
    ],
)
def test_what_windows_cannot_express(guest: Guest, wanted: NetworkData, words: str) -> None:
    before = guest.picture()
    assert words in failing(guest, "bad_network_data", wanted)
    assert (guest.picture(), guest.state.files) == (before, {})


@pytest.mark.parametrize("members", [{"addresses": ["2001:db8::6/64"]}, {"dhcp6": True}, {"dns": ["2001:db8::53"]}])
def test_a_protocol_that_is_switched_off(guest: Guest, members: dict[str, Any]) -> None:
    del guest.eth0.protocols[IPV6]
    assert "IPv6 is switched off" in failing(guest, "bad_network_data", data(members))
    guest.apply(data({"addresses": ["192.0.2.9/24"]}))


def test_adapters_that_are_not_there(guest: Guest) -> None:
    before = guest.picture()
    guest.eth1.mac = "00:16:3e:00:00:09"
    assert failing(guest, "no_such_interface").endswith(ETH1)
    guest.eth1.mac = ETH1
    guest.eth1.hidden = True
    failing(guest, "no_such_interface")
    guest.eth1.hidden = False
    assert guest.picture() == before


def test_several_adapters_with_one_mac(guest: Guest) -> None:
    # A team has the MAC address of a member, which has no protocols then; a leftover is hidden.
    guest.windows.add(7, ETH1, name="member", versions=())
    guest.windows.add(8, ETH1, name="leftover").hidden = True
    guest.apply(NEW)
    assert guest.eth1.protocols[IPV4].stored
    # What is made of a device does not hide it.
    guest.windows.add(9, ETH1, name="VPN").hardware = False
    guest.apply(OLD)
    guest.windows.add(10, ETH1, name="twin")
    assert failing(guest, "ambiguous_interface").startswith("'Ethernet 2', 'twin' have")


def test_a_duplicate_address(guest: Guest) -> None:
    before, usable, started = guest.picture(), guest.usable(), guest.windows.now
    guest.windows.duplicates = {ip_address("198.51.100.6")}
    message = failing(guest, "network_failed")
    assert message == ("the settings are stored, but 198.51.100.6/24 does not come up; the old configuration is back")
    # It is known as soon as the network answered, and the old addresses are waited for.
    assert guest.windows.now - started < 10
    assert (guest.picture(), guest.usable(), guest.state.files) == (before, usable, {})


def test_a_route_that_does_not_come_into_force(guest: Guest) -> None:
    before = guest.picture()
    guest.windows.after_call = lambda name: guest.eth1.protocols[IPV4].active_routes.clear()
    message = failing(guest, "network_failed")
    assert message.startswith("the settings are stored, but the route to 0.0.0.0/0 does not come up")
    assert guest.picture() == before


def test_an_adapter_without_a_cable(guest: Guest) -> None:
    before, started = guest.picture(), guest.windows.now
    guest.eth1.connected = False
    assert "198.51.100.6/24" in failing(guest, "network_failed")
    assert guest.picture() == before
    assert guest.windows.now - started <= 25


def test_an_old_address_that_does_not_come_back(guest: Guest) -> None:
    before = guest.picture()
    guest.usable()
    guest.windows.duplicates = {ip_address("198.51.100.6"), ip_address("192.0.2.5")}
    guest.windows.now += 60
    guest.eth0.protocols[IPV4].active[ip_interface("192.0.2.5/24")] = 0
    guest.windows.duplicates = set()
    guest.windows.after_call = lambda name: guest.windows.duplicates.update(
        {ip_address("198.51.100.6"), ip_address("192.0.2.5")}
    )
    message = failing(guest, "network_lost")
    assert message.endswith("; and the old settings are back, but not 192.0.2.5/24")
    # The settings are the old ones, so there is nothing to undo.
    assert (guest.picture(), guest.state.files) == (before, {})


def test_an_mtu_that_the_link_does_not_have(guest: Guest) -> None:
    before = guest.picture()
    members = {"addresses": ["192.0.2.6/24"], "mtu": 60000}
    assert "The parameter is incorrect." in failing(guest, "network_failed", data(members))
    assert guest.picture() == before


def test_an_address_that_another_adapter_has(guest: Guest) -> None:
    before = guest.picture()
    wanted = data({"addresses": ["198.51.100.77/24"]})
    assert "The object already exists." in failing(guest, "network_failed", wanted)
    assert guest.picture() == before


def test_no_time_is_left(guest: Guest) -> None:
    before = guest.picture()

    def slow(name: str) -> None:
        guest.windows.now += 2 if name == "add_address" else 9 if name == "set_mtu" else 0

    guest.windows.after_call = slow
    assert failing(guest, "network_failed").startswith("no time was left")
    assert guest.picture() == before


def test_nothing_is_changed_without_a_record(guest: Guest) -> None:
    before = guest.picture()

    def full(name: str) -> None:
        if name == "write_state":
            raise Failed("enospc", "no room")

    guest.state.on_call = full
    failing(guest, "enospc")
    assert guest.picture() == before


def test_settings_that_cannot_be_put_back(guest: Guest) -> None:
    before = guest.picture()
    broken = [True]

    def refuse(name: str) -> None:
        if broken[0] and (name == "add_route" or (guest.windows.duplicates and name == "use_dhcp")):
            guest.windows.duplicates.add(ip_address("192.0.2.111"))
            raise Failed("network_failed", f"{name} does not work")

    guest.windows.on_call = refuse
    message = failing(guest, "network_lost")
    assert "add_route does not work; and the old settings, kept in network-undo.json, cannot be put back" in message
    # All but what does not work was put back.
    assert guest.eth0.protocols[IPV4].stored == [ip_interface("192.0.2.5/24")]
    kept = guest.state.files[RECORD]
    assert "IPv4 routes" in failing(guest, "network_undo_pending")
    guest.recover()
    assert guest.state.files[RECORD] == kept
    broken[0] = False
    guest.windows.duplicates.clear()
    guest.recover()
    assert (guest.picture(), guest.state.files) == (before, {})
    guest.apply(NEW)


def test_an_unusable_record(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    before = guest.picture()
    for content in (b"", b"{}", b'{"v":1,"adapters":{"x":{}}}', b"\xff", b'{"v":2,"adapters":{}}'):
        guest.state.files[RECORD] = content
        assert RECORD in failing(guest, "network_undo_pending")
        guest.recover()
        assert guest.state.files == {RECORD: content}
    assert guest.picture() == before
    assert all(record.levelname == "ERROR" for record in caplog.records) and caplog.records


def test_recover_without_a_record(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    guest.recover()
    assert (guest.windows.calls, caplog.records) == ([], [])
