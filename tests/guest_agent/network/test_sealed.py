from __future__ import annotations

import contextlib
import json
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.outcomes import Refused
from guest_agent.commands.network import MAX_NETWORK_VALUE
from guest_agent.network.data import MAX_ADDRESSES, MAX_INTERFACES, MAX_ROUTES, Interface, NetworkData, Route
from guest_agent.network.sealed import encode_network_data, parse_network_data

from .strategies import networks

MAC = "00:16:3e:00:00:01"
FULL = {
    "mac": "00:16:3E:00:00:01",
    "addresses": ["192.0.2.5/24", "2001:db8::5/64"],
    "gateway4": "192.0.2.1",
    "gateway6": "2001:db8::1",
    "routes": [{"to": "10.0.0.0/8", "via": "192.0.2.2", "metric": 50}, {"to": "172.16.0.0/12", "via": "192.0.2.2"}],
    "dns": ["192.0.2.53"],
    "search": ["example.com"],
    "dhcp4": False,
    "dhcp6": True,
    "mtu": 1500,
}


def parse(*interfaces: Any) -> NetworkData:
    return parse_network_data(json.dumps({"interfaces": interfaces}))


def test_every_member() -> None:
    assert parse(FULL).interfaces == (
        Interface(
            MAC,
            (ip_interface("192.0.2.5/24"), ip_interface("2001:db8::5/64")),
            (
                Route(ip_network("0.0.0.0/0"), ip_address("192.0.2.1")),
                Route(ip_network("::/0"), ip_address("2001:db8::1")),
                Route(ip_network("10.0.0.0/8"), ip_address("192.0.2.2"), 50),
                Route(ip_network("172.16.0.0/12"), ip_address("192.0.2.2")),
            ),
            (ip_address("192.0.2.53"),),
            ("example.com",),
            False,
            True,
            1500,
        ),
    )


def test_only_the_mac_must_be_there() -> None:
    assert parse({"mac": MAC}).interfaces == (Interface(MAC),)
    assert parse({name: MAC if name == "mac" else None for name in FULL}).interfaces == (Interface(MAC),)


def test_the_first_gateway_is_used_first() -> None:
    data = parse(
        {"mac": MAC},
        {"mac": "00:16:3e:00:00:03", "addresses": ["192.0.2.5/24"], "gateway4": "192.0.2.1"},
        {"mac": "00:16:3e:00:00:02", "addresses": ["198.51.100.5/24"], "gateway4": "198.51.100.1"},
    )
    assert [[route.metric for route in interface.routes] for interface in data.interfaces] == [[], [100], [200]]


@pytest.mark.parametrize(
    "members",
    [
        {"mac": None},
        {"mac": 5},
        {"mac": "eth0"},
        {"unknown": 1},
        {"addresses": "192.0.2.5/24"},
        {"addresses": [5]},
        {"addresses": ["192.0.2.5"]},
        {"addresses": ["192.0.2.5/255.255.255.0"]},
        {"addresses": ["192.0.2.5/33"]},
        {"addresses": ["192.0.2.5/ 24"]},
        {"addresses": ["192.0.2.5/٢٤"]},
        {"addresses": ["2001:db8::1%eth0/64"]},
        {"addresses": ["192.0.2.5/24"] * (MAX_ADDRESSES + 1)},
        {"addresses": [" " * 100 + "/24"]},
        {"gateway4": "2001:db8::1"},
        {"gateway4": "203.0.113.1"},
        {"gateway4": True},
        {"gateway6": "fe80::1%eth0"},
        {"gateway6": "192.0.2.1"},
        {"routes": [{"to": "10.0.0.5/8", "via": "192.0.2.1"}]},
        {"routes": [{"to": "default", "via": "192.0.2.1"}]},
        {"routes": [{"to": "10.0.0.0/8"}]},
        {"routes": [{"to": "10.0.0.0/8", "via": "192.0.2.1", "metric": "5"}]},
        {"routes": [{"to": "10.0.0.0/8", "via": "192.0.2.1", "metric": True}]},
        {"routes": [{"to": "10.0.0.0/8", "via": "192.0.2.1", "dev": "eth0"}]},
        {"routes": [["10.0.0.0/8", "192.0.2.1"]]},
        {"dns": ["localhost"]},
        {"dns": {}},
        {"search": [None]},
        {"search": ["a\nb"]},
        {"dhcp4": 1},
        {"dhcp6": "true"},
        {"mtu": 1500.0},
        {"mtu": 10**40},
    ],
)
def test_bad_interfaces(members: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        parse({"mac": MAC, "addresses": ["192.0.2.5/24", "2001:db8::5/64"], **members})
    assert caught.value.code == "bad_network_data"
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    "value",
    [
        "",
        "[]",
        "{}",
        '{"interfaces":[]}',
        '{"interfaces":[5]}',
        '{"interfaces":{}}',
        "[" * 5000,
        '{"interfaces":[],"a":1}',
        '{"interfaces":NaN}',
        "\ud800",
    ],
)
def test_bad_values(value: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_network_data(value)
    assert caught.value.code == "bad_network_data"


@given(networks())
def test_what_is_encoded_is_parsed_again(data: NetworkData) -> None:
    assert parse_network_data(json.dumps(encode_network_data(data))) == data


def test_the_largest_data_fits() -> None:
    search = [".".join(["a" * 60] * 4)] * 16
    interfaces = []
    for number in range(MAX_INTERFACES):
        start = f"2001:db8:aaaa:{number:x}000:aaaa:aaaa:aaaa"
        routes = [{"to": f"2001:db8:bbbb:{n:x}000::/64", "via": f"{start}:ffff", "metric": 10**9} for n in range(16)]
        interfaces.append(
            {
                "mac": f"02:00:00:00:00:{number:02x}",
                "addresses": [f"{start}:{n + 1:04x}/64" for n in range(MAX_ADDRESSES)],
                "routes": [{**route, "metric": 10**9 + n} for n in range(MAX_ROUTES // 16) for route in routes],
                "dns": [f"{start}:ffff"] * 8,
                "search": search,
            }
        )
    value = json.dumps({"interfaces": interfaces})
    assert len(parse_network_data(value).interfaces) == MAX_INTERFACES
    assert 200_000 < len(value) < MAX_NETWORK_VALUE


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from(["192.0.2.5/24", "2001:db8::1/64", MAC, "192.0.2.1", "0.0.0.0/0"]),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.sampled_from([*FULL, "interfaces", "to", "via", "metric"]), children, max_size=5)
    ),
    max_leaves=20,
)


@given(
    JSON
    | st.fixed_dictionaries(
        {
            "interfaces": st.lists(
                st.fixed_dictionaries({"mac": st.just(MAC)}, optional={name: JSON for name in FULL if name != "mac"}),
                max_size=2,
            )
        }
    )
)
def test_nothing_but_refusals(value: object) -> None:
    with contextlib.suppress(Refused):
        parse_network_data(json.dumps(value))
