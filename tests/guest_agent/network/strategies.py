"""Network data of every shape that is allowed, for hypothesis."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_network

from hypothesis import strategies as st

from guest_agent.network.data import Address, Interface, InterfaceAddress, NetworkData, Route

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
servers: st.SearchStrategy[Address] = st.one_of(
    st.integers(0x0B000000, 0x7E000000).map(IPv4Address), st.integers(1, 2**64).map(lambda n: IPv6Address(2**125 + n))
)


@st.composite
def interfaces(draw: st.DrawFn, number: int) -> Interface:
    """An interface whose networks belong to no other number's."""
    addresses: list[InterfaceAddress] = []
    routes: list[Route] = []
    if draw(st.booleans()):
        base = int(IPv4Address("10.0.0.0")) + (number << 16)
        hosts = draw(st.lists(st.integers(2, 65000), unique=True, max_size=4))
        addresses += [IPv4Interface((base + host, 16)) for host in hosts]
        if hosts:
            gateway4 = IPv4Address(base + 1)
            for prefix in draw(st.lists(st.integers(0, 32), unique=True, max_size=4)):
                destination = ip_network((int(IPv4Address("172.16.0.0")) >> (32 - prefix) << (32 - prefix), prefix))
                routes.append(Route(destination, gateway4, draw(st.none() | st.integers(1, 2**32 - 2))))
    if draw(st.booleans()):
        base = int(IPv6Address("2001:db8::")) + (number << 64)
        hosts = draw(st.lists(st.integers(2, 2**64 - 1), unique=True, max_size=4))
        addresses += [IPv6Interface((base + host, 64)) for host in hosts]
        gateway6 = draw(st.sampled_from([IPv6Address(base + 1), IPv6Address("fe80::1")]))
        if hosts:
            routes.append(Route(ip_network("::/0"), gateway6, draw(st.none() | st.integers(1, 1000))))
    return Interface(
        f"02:00:00:00:00:{number:02x}",
        tuple(addresses),
        tuple(routes),
        tuple(draw(st.lists(servers, max_size=8))),
        tuple(draw(st.lists(st.lists(labels, min_size=1, max_size=3).map(".".join), max_size=4))),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.none() | st.integers(1280, 65535)),
    )


@st.composite
def networks(draw: st.DrawFn) -> NetworkData:
    """A guest's network with one to four interfaces."""
    return NetworkData(tuple(draw(interfaces(number)) for number in range(draw(st.integers(1, 4)))))
