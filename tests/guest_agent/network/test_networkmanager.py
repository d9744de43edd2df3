"""NetworkManager's keyfiles."""

from __future__ import annotations

import pytest

from agent_protocol.outcomes import Refused
from guest_agent.network.data import Interface
from guest_agent.network.renderers import RENDERERS

from .cases import CASES, ETH0, NAMES, TWO_INTERFACES, assert_golden, interface, network, route
from .memory import SAVED, MemoryFiles, rendered

RENDERER = RENDERERS["networkmanager"]


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    assert_golden("networkmanager", case)


DIRECTORY = "/etc/NetworkManager/system-connections"
FILE = f"{DIRECTORY}/xenward-00163e000001.nmconnection"


def test_only_the_superuser_reads_them_and_their_copies() -> None:
    files = rendered(RENDERER, TWO_INTERFACES, NAMES, {FILE: b"[wifi-security]\npsk=secret\n"})
    assert len(files.modes) == 3
    assert set(files.modes.values()) == {0o600}


def test_activation() -> None:
    assert RENDERER.activation(TWO_INTERFACES, NAMES) == [
        ["nmcli", "connection", "reload"],
        ["nmcli", "connection", "up", "uuid", "6b446f8c-4ef8-5b17-9140-ea59c65f3a47"],
        ["nmcli", "connection", "up", "uuid", "1b876778-c84b-52e3-899b-3afb82845cd3"],
    ]


def methods(**options: object) -> list[str]:
    text = rendered(RENDERER, network(interface(**options)), NAMES).text(FILE)  # type: ignore[arg-type]
    return [line.removeprefix("method=") for line in text.split("\n") if line.startswith("method=")]


def test_methods() -> None:
    default6 = (route("::/0", "fe80::1"),)
    assert methods() == ["disabled", "link-local"]
    assert methods(dhcp4=True) == ["auto", "auto"]
    assert methods(dhcp4=True, routes=default6) == ["auto", "link-local"]
    assert methods(dhcp4=True, addresses="192.0.2.2/24") == ["auto", "auto"]
    assert methods(addresses="192.0.2.2/24") == ["manual", "auto"]
    assert methods(addresses="2001:db8::2/64") == ["disabled", "manual"]
    assert methods(addresses="2001:db8::2/64", dhcp6=True, routes=default6) == ["disabled", "auto"]


@pytest.mark.parametrize(
    "refused",
    [
        interface(addresses="2001:db8::2/64", dns="192.0.2.53"),
        interface(dhcp4=True, dns="2001:db8::53", routes=(route("::/0", "fe80::1"),)),
        interface(search="example.org"),
    ],
)
def test_dns_without_its_family(refused: Interface) -> None:
    with pytest.raises(Refused, match="DNS") as raised:
        RENDERER.render(network(refused), NAMES, MemoryFiles())
    assert raised.value.code == "bad_network_data"


def test_a_gateway_needs_an_address_beside_it() -> None:
    leased = network(interface(dhcp4=True, routes=(route("0.0.0.0/0", "192.0.2.1"),)))
    assert "route1=0.0.0.0/0,192.0.2.1\n" in rendered(RENDERER, leased, NAMES).text(FILE)


@pytest.mark.parametrize("name", [".hidden", "backup~"])
def test_files_that_it_does_not_read(name: str) -> None:
    other = b"[connection]\ntype=ethernet\ninterface-name=eth0\n"
    files = rendered(RENDERER, TWO_INTERFACES, NAMES, {f"{DIRECTORY}/{name}": other})
    assert files.contents[f"{DIRECTORY}/{name}"] == other


def test_a_name_that_the_guest_does_not_have_yet() -> None:
    other = b"[connection]\ntype=ethernet\ninterface-name=eth0\n"
    files = rendered(RENDERER, TWO_INTERFACES, {ETH0: "ens3"}, {f"{DIRECTORY}/mine": other})
    assert not any(SAVED in path for path in files.contents)
