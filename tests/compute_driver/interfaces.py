"""Any interfaces that there can be, for tests of properties."""

from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import strategies as st

from agent_protocol.outcomes import Refused
from compute_driver.network import Interface, NetworkName, Route, check_together

_NETWORKS = st.sampled_from(
    [
        NetworkName("bridge", "xenbr0"),
        NetworkName("name_label", "blue"),
        NetworkName("uuid", "0" * 8 + "-0000" * 3 + "-" + "0" * 12),
    ]
)
_NAMES = st.sampled_from(["example.com", "a.test", "_x.test"])


@st.composite
def _interface(draw: Any, number: int | None = None, dhcp: bool = True) -> Interface:
    unit = draw(st.integers(0, 9)) if number is None else number
    prefix4, prefix6 = draw(st.integers(16, 30)), draw(st.integers(48, 127))
    hosts = draw(st.lists(st.integers(5, 250), max_size=3, unique=True))
    network4 = ipaddress.ip_network(f"10.{unit}.0.0/{prefix4}")
    network6 = ipaddress.ip_network(f"2001:db8:{unit + 1:x}::/{prefix6}")
    addresses = [
        ipaddress.ip_interface(f"{network[host % (network.num_addresses - 1) or 1]}/{network.prefixlen}")
        for host in hosts
        for network in draw(st.lists(st.sampled_from([network4, network6]), max_size=1))
    ]
    leased = {version: dhcp and draw(st.booleans()) for version in (4, 6)}
    gateways: dict[int, Any] = {}
    for network in (network4, network6):
        known = [address for address in addresses if address.version == network.version]
        if (known or leased[network.version]) and draw(st.booleans()):
            gateways[network.version] = network[1] if network.prefixlen < 127 else network[0]
    routes = [
        Route(ipaddress.ip_network(text), gateways[version])
        for version, text in ((4, "172.16.0.0/12"), (4, "198.51.100.0/24"), (6, "2001:db8:ffff::/48"))
        if version in gateways and draw(st.booleans())
    ]
    locked = draw(st.booleans())
    return Interface(
        id=f"port-{unit}",
        mac=f"00:16:3e:00:00:{unit:02x}",
        network=draw(_NETWORKS),
        vlan=draw(st.none() | st.integers(1, 4094)),
        mtu=draw(st.none() | st.integers(1280, 9000)),
        addresses=tuple({address.ip: address for address in addresses}.values()),
        gateway4=gateways.get(4),
        gateway6=gateways.get(6),
        routes=tuple(routes),
        dns=tuple(
            draw(
                st.lists(
                    st.ip_addresses(network="192.0.2.0/24") | st.ip_addresses(network="2001:db8::/64"),
                    max_size=3,
                    unique=True,
                )
            )
        ),
        search=tuple(draw(st.lists(_NAMES, max_size=2, unique=True))),
        dhcp4=leased[4],
        dhcp6=leased[6],
        locked=locked,
        allowed_addresses=(ipaddress.ip_address("198.51.100.7"),) if locked and draw(st.booleans()) else (),
    )


def _possible(make: Any) -> Any:
    """Without those that cannot be built, such as with a gateway that is an address of its own."""

    @st.composite
    def drawn(draw: Any) -> Any:
        try:
            return draw(make)
        except Refused:
            return None

    return drawn().filter(lambda it: it is not None)


def sets(*, dhcp: bool = True) -> Any:
    """The interfaces of one instance, at least one, in the order of their numbers."""

    @st.composite
    def drawn(draw: Any) -> tuple[Interface, ...]:
        count = draw(st.integers(1, 4))
        found = tuple(draw(_possible(_interface(number, dhcp))) for number in range(count))
        check_together(found)
        return found

    return drawn()


INTERFACES = _possible(_interface())
SETS = sets()
