"""What can be an interface, and that nothing else can."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_protocol.outcomes import Refused
from compute_driver.network import Interface, NetworkName, Route, check_together, interfaces_from_list, network_name

from .interfaces import INTERFACES, SETS

UUID = "00000000-0000-4000-8000-00000000beef"
PLAIN: dict[str, Any] = {"id": "port-1", "mac": "00:16:3e:00:00:01", "network": {"bridge": "xenbr0"}}
FULL: dict[str, Any] = {
    **PLAIN,
    "vlan": 42,
    "mtu": 1400,
    "addresses": ["192.0.2.5/24", "2001:db8::5/64"],
    "gateway4": "192.0.2.1",
    "gateway6": "fe80::1",
    "routes": [{"to": "10.0.0.0/8", "via": "192.0.2.2"}],
    "dns": ["192.0.2.53"],
    "search": ["example.com"],
    "dhcp4": False,
    "dhcp6": False,
    "locked": True,
    "allowed_addresses": ["192.0.2.9"],
}


def test_all_members_are_read() -> None:
    it = Interface.from_dict(FULL)
    assert it == Interface(
        id="port-1",
        mac="00:16:3e:00:00:01",
        network=NetworkName("bridge", "xenbr0"),
        vlan=42,
        mtu=1400,
        addresses=(ip_interface("192.0.2.5/24"), ip_interface("2001:db8::5/64")),
        gateway4=ip_address("192.0.2.1"),  # type: ignore[arg-type]
        gateway6=ip_address("fe80::1"),  # type: ignore[arg-type]
        routes=(Route(ip_network("10.0.0.0/8"), ip_address("192.0.2.2")),),
        dns=(ip_address("192.0.2.53"),),
        search=("example.com",),
        locked=True,
        allowed_addresses=(ip_address("192.0.2.9"),),
    )
    assert it.to_dict() == FULL
    assert [str(address) for address in it.usable_addresses(4)] == ["192.0.2.5", "192.0.2.9"]
    assert [str(address) for address in it.usable_addresses(6)] == ["2001:db8::5"]


def test_what_is_missing_is_not_wanted() -> None:
    it = Interface.from_dict({**PLAIN, "mac": "00:16:3E:00:00:01"})
    assert it == Interface("port-1", "00:16:3e:00:00:01", NetworkName("bridge", "xenbr0"))


@given(INTERFACES)
def test_plain_data_and_back(interface: Interface) -> None:
    assert Interface.from_dict(interface.to_dict()) == interface


@pytest.mark.parametrize(
    "changes",
    [
        {"id": None},
        {"id": ""},
        {"id": "a b"},
        {"id": "p" * 65},
        {"mac": "00:16:3e:00:00"},
        {"mac": "01:16:3e:00:00:01"},
        {"mac": "00:00:00:00:00:00"},
        {"mac": 5},
        {"network": None},
        {"network": {}},
        {"network": "xenbr0"},
        {"network": {"bridge": "xenbr0", "uuid": UUID}},
        {"network": {"bridge": "a bridge"}},
        {"network": {"bridge": "sixteen-letters-"}},
        {"network": {"uuid": "beef"}},
        {"network": {"name_label": ""}},
        {"network": {"name_label": "a\nb"}},
        {"network": {"colour": "blue"}},
        {"vlan": 0},
        {"vlan": 4095},
        {"vlan": "42"},
        {"vlan": True},
        {"mtu": 575},
        {"mtu": 65536},
        {"mtu": 1279, "dhcp6": True},
        {"addresses": ["192.0.2.5"]},
        {"addresses": ["192.0.2.5/255.255.255.0"]},
        {"addresses": ["127.0.0.1/8"]},
        {"addresses": ["fe80::1/64"]},
        {"addresses": ["ff02::1/64"]},
        {"addresses": ["0.0.0.0/0"]},
        {"addresses": ["192.0.2.5/24", "192.0.2.5/25"]},
        {"addresses": ["2001:db8::5%eth0/64"]},
        {"addresses": "192.0.2.5/24"},
        {"addresses": [f"192.0.2.{n}/24" for n in range(1, 66)]},
        {"gateway4": "192.0.2.1"},
        {"gateway4": "2001:db8::1", "dhcp4": True},
        {"addresses": ["192.0.2.5/24"], "gateway4": "192.0.2.5"},
        {"addresses": ["192.0.2.5/24"], "gateway4": "192.0.2.255"},
        {"addresses": ["192.0.2.5/24"], "gateway4": "198.51.100.1"},
        {"addresses": ["192.0.2.5/24"], "gateway4": "192.0.2.1", "gateway": "192.0.2.1"},
        {"dhcp4": True, "routes": [{"to": "0.0.0.0/0", "via": "192.0.2.1"}]},
        {"dhcp4": True, "routes": [{"to": "10.0.0.0/8", "via": "2001:db8::1"}]},
        {"dhcp4": True, "routes": [{"to": "10.0.0.1/8", "via": "192.0.2.1"}]},
        {"dhcp4": True, "routes": [{"to": "10.0.0.0/8", "via": "192.0.2.1", "metric": 1}]},
        {"dhcp4": True, "routes": [{"to": "10.0.0.0/8", "via": "192.0.2.1"}] * 2},
        {"dns": ["224.0.0.1"]},
        {"dns": ["0.0.0.0"]},
        {"dns": ["one.example"]},
        {"search": ["bad domain"]},
        {"search": ["a\nb"]},
        {"dhcp4": "yes"},
        {"locked": 1},
        {"allowed_addresses": ["192.0.2.9"]},
        {"locked": True, "allowed_addresses": ["192.0.2.0/24"]},
        {"locked": True, "allowed_addresses": ["255.255.255.255"]},
    ],
)
def test_what_cannot_be_an_interface(changes: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        Interface.from_dict({**PLAIN, **changes})
    assert caught.value.code == "bad_interface"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(FULL)), inner, max_size=4),
    )
)
def test_anything_at_all_is_read_or_refused(untrusted: Any) -> None:
    for data in (untrusted, {**PLAIN, **untrusted} if isinstance(untrusted, dict) else [untrusted]):
        try:
            assert isinstance(Interface.from_dict(data), Interface)
        except Refused as error:
            assert error.code == "bad_interface"


@settings(max_examples=30, deadline=None)
@given(SETS)
def test_interfaces_of_one_instance(interfaces: tuple[Interface, ...]) -> None:
    assert interfaces_from_list([each.to_dict() for each in interfaces]) == interfaces


def test_what_cannot_be_of_one_instance() -> None:
    one = Interface.from_dict({**PLAIN, "addresses": ["192.0.2.5/24"]})
    for other in (
        replace(one, mac="00:16:3e:00:00:02", addresses=()),
        replace(one, id="port-2", addresses=()),
        replace(one, id="port-2", mac="00:16:3e:00:00:02"),
    ):
        with pytest.raises(Refused):
            check_together([one, other])
    many = [replace(one, id=f"p{n}", mac=f"00:16:3e:00:01:{n:02x}", addresses=()) for n in range(17)]
    check_together(many[:16])
    with pytest.raises(Refused):
        check_together(many)


def test_names_of_networks() -> None:
    assert network_name({"uuid": UUID}) == NetworkName("uuid", UUID)
    assert str(network_name({"name_label": "blue"})) == "name_label 'blue'"
