"""Random networks for renderers: all that may meet on one interface, DHCP beside addresses and routes with metrics."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from hypothesis import strategies as st

from guest_agent.network.data import Address, Interface, InterfaceAddress, NetworkData, Route

MACS = tuple(f"00:16:3e:00:00:{number:02x}" for number in range(16))
NAMES = {mac: f"eth{number}" for number, mac in enumerate(MACS)}

_HOSTS4 = st.integers(1, 254)
_LABELS = st.from_regex(r"[a-z0-9_]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
_DOMAINS = st.lists(_LABELS, min_size=1, max_size=3).map(lambda labels: ".".join([*labels, "example"]))
_METRICS = st.none() | st.integers(1, 2**32 - 2) | st.integers(1, 1000)
_DNS: tuple[Address, ...] = (
    IPv4Address("192.0.2.53"),
    IPv4Address("198.51.100.53"),
    IPv6Address("2001:db8:53::1"),
    IPv6Address("2001:db8:53::2"),
)
_DESTINATIONS4 = st.just(IPv4Network("0.0.0.0/0")) | st.builds(
    lambda bits, prefix: IPv4Network((bits, prefix), strict=False),
    st.integers(11 << 24, (126 << 24) - 1),
    st.integers(8, 32),
)
_DESTINATIONS6 = st.just(IPv6Network("::/0")) | st.builds(
    lambda bits, prefix: IPv6Network(((0x2400 << 112) + bits, prefix), strict=False),
    st.integers(0, 2**112 - 1),
    st.integers(16, 128),
)


def _is_host(address: InterfaceAddress) -> bool:
    """Whether it is neither a network's own address nor its broadcast address: Linux takes no gateway that is."""
    network = address.network
    return network.num_addresses <= 2 or address.ip not in (network.network_address, network.broadcast_address)


@st.composite
def _static(draw: st.DrawFn, index: int, number: int) -> InterfaceAddress:
    """An address in a network that no other (interface, number) has, however long its prefix is."""
    if draw(st.booleans()):
        address = f"10.{16 * index + number}.{draw(_HOSTS4)}.{draw(_HOSTS4)}"
        prefixes = [prefix for prefix in range(16, 33) if _is_host(IPv4Interface(f"{address}/{prefix}"))]
        return IPv4Interface(f"{address}/{draw(st.sampled_from(prefixes))}")
    network = int(IPv6Address("2001:db8::")) + ((16 * index + number) << 80)
    return IPv6Interface((network + draw(st.integers(1, 2**64 - 1)), draw(st.integers(48, 128))))


@st.composite
def _route(draw: st.DrawFn, addresses: list[InterfaceAddress], dhcp4: bool, dhcp6: bool) -> Route:
    """By another host of one of the networks, by a link-local router, or by one that DHCP's network may hold."""
    near: list[Address] = [IPv6Address("fe80::1")]
    for address in addresses:
        neighbour = type(address.ip)(int(address.ip) ^ 1)
        if neighbour in address.network and _is_host(type(address)((neighbour, address.network.prefixlen))):
            near.append(neighbour)
    near += [IPv4Address("203.0.113.1")] * dhcp4 + [IPv6Address("2001:db8:ffff::1")] * dhcp6
    gateway = draw(st.sampled_from(near))
    destination = draw(_DESTINATIONS4) if gateway.version == 4 else draw(_DESTINATIONS6)
    return Route(destination, gateway, draw(_METRICS))


@st.composite
def interfaces(draw: st.DrawFn, index: int, dhcp: bool = True) -> Interface:
    """The interface MACS[index]. dhcp: whether some shall ask for leases."""
    addresses = [draw(_static(index, number)) for number in range(draw(st.integers(0, 4)))]
    dhcp4, dhcp6 = dhcp and draw(st.booleans()), dhcp and draw(st.booleans())
    routes = draw(
        st.lists(
            _route(addresses, dhcp4, dhcp6), max_size=4, unique_by=lambda route: (str(route.destination), route.metric)
        )
    )
    dns = draw(st.lists(st.sampled_from(_DNS), max_size=3, unique=True))
    search = draw(st.lists(_DOMAINS, max_size=3, unique=True))
    mtu = draw(st.none() | st.integers(1280, 9000))
    return Interface(MACS[index], tuple(addresses), tuple(routes), tuple(dns), tuple(search), dhcp4, dhcp6, mtu)


@st.composite
def networks(draw: st.DrawFn, dhcp: bool = True) -> NetworkData:
    """One to four interfaces, of the first four in NAMES."""
    indexes = draw(st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True))
    return NetworkData(tuple(draw(interfaces(index, dhcp)) for index in indexes))
