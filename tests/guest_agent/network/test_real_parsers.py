"""The renderers' files, read by the programs that they are for, in throw-away systems.

netplan, systemd-networkd, ifupdown and NetworkManager are those of Debian. Alpine's files are read by the two programs
that Alpine has for them, BusyBox and ifupdown-ng, as Debian builds them. SUSE's wicked and the network scripts of RHEL
are in no Debian, nor is NetworkManager's plugin for ifcfg files: for these two stacks there are the golden files only.
"""

from __future__ import annotations

import configparser
import contextlib
import dataclasses
import json
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from guest_agent.network.data import NetworkData
from guest_agent.network.facets import addresses_of, dns_of, routes_of
from guest_agent.network.networkmanager import profile_uuid
from guest_agent.network.renderers import RENDERERS
from tools.labs.roots import Root, debian_root

from .cases import CASES, DUAL_STACK, ETH0, ETH1, STATIC, TWO_INTERFACES, case_files, interface, network
from .memory import MemoryFiles, rendered
from .renderer_strategies import MACS, NAMES, interfaces, networks
from .test_renderers_property import is_expressible

pytestmark = pytest.mark.services

ALPINE_PROGRAMS = ("busybox-static", "ifupdown-ng", "iproute2")
DEADLINE = 30.0
"""Seconds that a daemon has for what it has to do."""


@pytest.fixture(scope="module")
def debian() -> Path:
    return debian_root()


@contextlib.contextmanager
def system(base: Path) -> Iterator[Root]:
    """An instance whose first process is in its own root: before that, a path in it would be one of this machine."""
    with Root(base) as instance:
        deadline = time.monotonic() + DEADLINE
        while instance.path("/").samefile("/"):
            assert time.monotonic() < deadline, "the instance does not get a root of its own"
            time.sleep(0.01)
        yield instance


@pytest.fixture
def root(debian: Path) -> Iterator[Root]:
    with system(debian) as instance:
        yield instance


@pytest.fixture(scope="module")
def alpine_base() -> Path:
    return debian_root(ALPINE_PROGRAMS)


@pytest.fixture(params=["busybox", "ifupdown-ng"])
def alpine(alpine_base: Path, request: pytest.FixtureRequest) -> Iterator[Root]:
    """A system whose ifup, ifdown and ip are those that Alpine may have."""
    with system(alpine_base) as instance:
        if request.param == "busybox":
            for program in ("ifup", "ifdown", "ip"):
                instance.run(["ln", "-s", "/bin/busybox", f"/usr/local/sbin/{program}"])
            for phase in ("pre-up", "up", "down", "post-down"):
                instance.path(f"/etc/network/if-{phase}.d").mkdir(parents=True, exist_ok=True)
        yield instance


def some(strategy: st.SearchStrategy[NetworkData], count: int) -> list[NetworkData]:
    """The same random networks each time."""
    collected: list[NetworkData] = []

    @settings(max_examples=count, derandomize=True, database=None, phases=[Phase.generate], deadline=None)
    @given(strategy)
    def collect(data: NetworkData) -> None:
        collected.append(unambiguous(data))

    collect()
    return collected


@st.composite
def full_networks(draw: st.DrawFn) -> NetworkData:
    """As many interfaces as there may be, none of which waits for a lease."""
    return NetworkData(tuple(draw(interfaces(index, dhcp=False)) for index in range(len(MACS))))


def unambiguous(data: NetworkData) -> NetworkData:
    """The network with one route to each destination: the kernel keeps no second one of the same metric."""
    seen: set[str] = set()
    found = []
    for each in data.interfaces:
        routes = [route for route in each.routes if str(route.destination) not in seen]
        routes = list({route.destination: route for route in routes}.values())
        seen |= {str(route.destination) for route in routes}
        found.append(dataclasses.replace(each, routes=tuple(routes)))
    return NetworkData(tuple(found))


def put(root: Root, files: MemoryFiles | Mapping[str, bytes], below: str = "") -> None:
    contents = files.contents if isinstance(files, MemoryFiles) else files
    modes = files.modes if isinstance(files, MemoryFiles) else {}
    for path, content in contents.items():
        there = root.path(below + path)
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(content)
        there.chmod(modes.get(path, 0o644))


def make_links(root: Root, names: Mapping[str, str]) -> None:
    """Ethernet interfaces with these MAC addresses and names, each with a carrier."""
    # Without waiting for another host to claim an address, which takes a second or two for each.
    root.run(["sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad"])
    for mac, name in names.items():
        peer = f"p{name}"
        root.run(["/sbin/ip", "link", "add", name, "address", mac, "type", "veth", "peer", "name", peer])
        root.run(["/sbin/ip", "link", "set", peer, "up"])


def shown(root: Root, *arguments: str) -> list[dict[str, Any]]:
    # By its own path: BusyBox has another one that speaks no JSON.
    found: list[dict[str, Any]] = json.loads(root.run(["/sbin/ip", "-j", *arguments]).stdout or "[]")
    return found


def missing(root: Root, data: NetworkData, names: Mapping[str, str]) -> list[str]:
    """What of the data the kernel does not have."""
    links = {link["ifname"]: link for link in shown(root, "address")}
    routes = {
        (version, route["dst"], route.get("gateway"), route["dev"], route.get("metric"))
        for version in (4, 6)
        for route in shown(root, f"-{version}", "route")
    }
    lacking = []
    for each in data.interfaces:
        name = names[each.mac]
        has = {f"{found['local']}/{found['prefixlen']}" for found in links[name]["addr_info"]}
        lacking += [f"{name} {address}" for address in each.addresses if str(address) not in has]
        if each.mtu not in (None, links[name]["mtu"]):
            lacking.append(f"{name} MTU {each.mtu}")
        for route in each.routes:
            version = route.destination.version
            plain = str(route.destination.network_address)
            single = route.destination.prefixlen == route.destination.max_prefixlen
            dst = "default" if route.destination.prefixlen == 0 else plain if single else str(route.destination)
            metric = route.metric or (1024 if version == 6 else None)
            if (version, dst, str(route.gateway), name, metric) not in routes:
                lacking.append(f"{name} {route}")
    return lacking


def foreign(root: Root, data: NetworkData, names: Mapping[str, str]) -> list[str]:
    """Addresses of the data's interfaces that are not in it, but for link-local ones."""
    links = {link["ifname"]: link for link in shown(root, "address")}
    wanted = {str(address.ip) for each in data.interfaces for address in each.addresses}
    return [
        found["local"]
        for each in data.interfaces
        for found in links[names[each.mac]]["addr_info"]
        if found["scope"] == "global" and found["local"] not in wanted
    ]


def sections(text: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """The sections of a systemd file, which may repeat sections and keys."""
    found: list[tuple[str, list[tuple[str, str]]]] = []
    for line in text.split("\n"):
        if line.startswith("["):
            found.append((line[1:-1], []))
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[-1][1].append((key, value))
    return found


def test_netplan(root: Root) -> None:
    """All is in the files that netplan makes for networkd, and it has nothing to complain of."""
    renderer = RENDERERS["netplan"]
    datas = [*CASES.values(), *(data for data in some(networks(), 50) if is_expressible("netplan", data))]
    script = ""
    for number, data in enumerate(datas):
        put(root, rendered(renderer, data, NAMES), f"/tmp/{number}")
        script += f"/lib/netplan/generate --root-dir /tmp/{number} || echo {number} failed\n"
    assert root.run(["sh"], stdin=script).stdout == ""
    for number, data in enumerate(datas):
        for each in data.interfaces:
            label = each.mac.replace(":", "")
            text = root.path(f"/tmp/{number}/run/systemd/network/10-netplan-00-xenward-{label}.network").read_text()
            found = sections(text)
            plain = [pair for name, pairs in found if name != "Route" for pair in pairs]
            assert [value for key, value in plain if key == "PermanentMACAddress"] == [each.mac]
            assert sorted(value for key, value in plain if key == "Address") == sorted(map(str, each.addresses))
            assert sorted(value for key, value in plain if key == "DNS") == sorted(map(str, each.dns))
            assert [value for key, value in plain if key == "Domains"] == [" ".join(each.search)] * bool(each.search)
            assert dict(plain).get("MTUBytes") == (str(each.mtu) if each.mtu else None)
            dhcp = {(True, True): "yes", (True, False): "ipv4", (False, True): "ipv6"}
            assert dict(plain).get("DHCP") == dhcp.get((each.dhcp4, each.dhcp6))
            routes = [dict(pairs) for name, pairs in found if name == "Route"]
            assert sorted((r["Destination"], r["Gateway"], r.get("Metric")) for r in routes) == sorted(
                (str(r.destination), str(r.gateway), str(r.metric) if r.metric else None) for r in each.routes
            )


def test_netplan_takes_over(root: Root) -> None:
    """The first file that matches the interface is ours; the definition of before, and its name for it, are there."""
    put(root, case_files("netplan", "takeover"), "/tmp/root")
    root.path("/tmp/root/etc/netplan/50-cloud-init.yaml").chmod(0o600)
    assert root.run(["netplan", "generate", "--root-dir", "/tmp/root"]).stdout == ""
    made = sorted(root.path("/tmp/root/run/systemd/network").glob("*.network"))
    assert [path.name for path in made if ETH0 in path.read_text()] == [
        "10-netplan-00-xenward-00163e000001.network",
        "10-netplan-eth0.network",
    ]


@contextlib.contextmanager
def networkd(root: Root) -> Iterator[Path]:
    """A running systemd-networkd; gives its log."""
    root.run(["install", "-d", "-o", "systemd-network", "-g", "systemd-network", "/run/systemd/netif"])
    for name in ("links", "leases", "lldp"):
        root.run(["install", "-d", "-o", "systemd-network", "-g", "systemd-network", f"/run/systemd/netif/{name}"])
    command = "SYSTEMD_LOG_TARGET=console exec /lib/systemd/systemd-networkd 2>/run/networkd.log"
    process = subprocess.Popen(root.inside(["sh", "-c", command]))
    try:
        yield root.path("/run/networkd.log")
    finally:
        root.run(["sh", "-c", "kill $(pidof systemd-networkd)"], check=False)
        process.wait(DEADLINE)


def wait_for(root: Root, data: NetworkData, names: Mapping[str, str], log: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while missing(root, data, names):
        assert time.monotonic() < deadline, (missing(root, data, names), log.read_text())
        time.sleep(0.1)


def wait_for_text(log: Path, text: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while text not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_networkd(root: Root, number: int) -> None:
    """The kernel gets what the data says, and networkd finds nothing wrong in the files."""
    data = full(number) if number else DUAL_STACK
    names = {each.mac: NAMES[each.mac] for each in data.interfaces} if number else {ETH0: "eth0"}
    make_links(root, names)
    put(root, rendered(RENDERERS["networkd"], data, names))
    with networkd(root) as log:
        wait_for(root, data, names, log)
        # Complaints name file and line.
        assert ".network:" not in log.read_text()
    assert foreign(root, data, names) == []


def test_networkd_takes_over(root: Root) -> None:
    names = {ETH0: "eth0"}
    make_links(root, {**names, "00:16:3e:00:00:09": "eth9"})
    put(root, case_files("networkd", "takeover"))
    with networkd(root) as log:
        wait_for(root, STATIC, names, log)
        wait_for_text(log, "eth0: Configuring with /etc/systemd/network/00-xenward-00163e000001.network.")
        wait_for_text(log, "eth9: Configuring with /etc/systemd/network/00-eth9.network.")


def run_in_turn(root: Root, stack: str, names: Mapping[str, str], *datas: NetworkData) -> None:
    """Bring the system from one network to the next; it must have each, and nothing of the one before."""
    files = MemoryFiles()
    for data in datas:
        files = rendered(RENDERERS[stack], data, names, files.contents)
        put(root, files)
        for command in RENDERERS[stack].activation(data, names):
            root.run(command)
        assert missing(root, data, names) == []
        assert foreign(root, data, names) == []


def full(number: int) -> NetworkData:
    return some(full_networks(), number + 1)[number]


def test_ifupdown(root: Root) -> None:
    make_links(root, NAMES)
    run_in_turn(root, "ifupdown", NAMES, full(1), full(2))
    for name in NAMES.values():
        assert root.run(["ifquery", name]).stdout != ""


def test_ifupdown_takes_over(root: Root) -> None:
    """No DHCP client is started, and other interfaces are as they were."""
    put(root, case_files("ifupdown", "takeover"))
    shown_by_ifup = root.run(["ifup", "--no-act", "--force", "eth0"]).stdout
    assert "192.0.2.10" in shown_by_ifup
    assert "DHCP" not in shown_by_ifup
    assert "address: 203.0.113.9\n" in root.run(["ifquery", "eth9"]).stdout
    assert "DHCP" in root.run(["ifup", "--no-act", "--force", "eth8"]).stdout
    assert root.run(["ifquery", "--list", "--allow=hotplug"]).stdout == "eth9\n"


def test_ifupdown_asks_for_leases(root: Root) -> None:
    put(root, rendered(RENDERERS["ifupdown"], network(interface(dhcp4=True, dhcp6=True)), {ETH0: "eth0"}))
    shown_by_ifup = root.run(["ifup", "--no-act", "--force", "eth0"]).stdout
    # This system has no client, which ifup would say for each of them.
    assert "No DHCP client" in shown_by_ifup
    assert "No DHCPv6 client" in shown_by_ifup


def test_alpine(alpine: Root) -> None:
    make_links(alpine, NAMES)
    run_in_turn(alpine, "alpine", NAMES, full(1), full(2))


def test_alpine_takes_over(alpine: Root) -> None:
    make_links(alpine, {ETH0: "eth0", ETH1: "eth1"})
    put(alpine, case_files("alpine", "takeover"))
    alpine.run(["ifup", "eth0"])
    assert missing(alpine, STATIC, {ETH0: "eth0"}) == []


def test_networkmanager(root: Root) -> None:
    """NetworkManager reads each profile, and writes all that was in it when it is asked for the profile again."""
    renderer = RENDERERS["networkmanager"]
    datas = [STATIC, DUAL_STACK, TWO_INTERFACES, *some(networks(), 30)]
    datas = [data for data in datas if is_expressible("networkmanager", data)]
    each_file = []
    script = ""
    for number, data in enumerate(datas):
        files = rendered(renderer, data, NAMES)
        put(root, files, f"/tmp/{number}")
        for each in data.interfaces:
            label = each.mac.replace(":", "")
            path = f"/tmp/{number}/etc/NetworkManager/system-connections/xenward-{label}.nmconnection"
            script += f"nmcli --offline connection modify connection.autoconnect yes <{shlex.quote(path)} >{path}.read"
            script += f" || echo {path} failed\n"
            each_file.append((path, each))
    assert root.run(["sh"], stdin=script, timeout=100).stdout == ""
    for path, each in each_file:
        read = configparser.ConfigParser(delimiters="=", comment_prefixes="#", interpolation=None)
        read.read_string(root.path(f"{path}.read").read_text())
        assert read["connection"]["uuid"] == profile_uuid(each.mac)
        assert read["ethernet"]["mac-address"].lower() == each.mac
        assert read["ethernet"].get("mtu") == (str(each.mtu) if each.mtu else None)
        searched = "".join(read[family].get("dns-search", "") for family in ("ipv4", "ipv6"))
        assert [word for word in searched.split(";") if word] == list(each.search)
        for version in (4, 6):
            family = read[f"ipv{version}"]
            addresses = [value.split(",") for key, value in family.items() if key.startswith("address")]
            assert [address for address, *_ in addresses] == [str(a) for a in addresses_of(each, version)]
            routes = [value.split(",") for key, value in family.items() if key.startswith("route")]
            everywhere = "0.0.0.0/0" if version == 4 else "::/0"
            gateways = [[everywhere, gateway] for _, *rest in addresses for gateway in rest]
            gateways += [[everywhere, family["gateway"]]] if "gateway" in family else []
            assert sorted(routes + gateways) == sorted(
                [str(r.destination), str(r.gateway), *([str(r.metric)] if r.metric else [])]
                for r in routes_of(each, version)
            )
            assert [word for word in family.get("dns", "").split(";") if word] == list(map(str, dns_of(each, version)))
