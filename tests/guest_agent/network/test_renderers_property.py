"""What holds for each stack, whatever the network and whatever stood there before."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings

from agent_protocol.outcomes import Refused
from guest_agent.configuration import NETWORK_STACKS
from guest_agent.network.data import Interface, NetworkData
from guest_agent.network.facets import addresses_of, dns_of, is_default, routes_of
from guest_agent.network.renderers import RENDERERS

from .cases import GOLDEN, interface, network
from .memory import SAVED, MemoryFiles, rendered, tree
from .renderer_strategies import MACS, NAMES, networks

RUNS = settings(max_examples=25, deadline=None)

stacks = pytest.mark.parametrize("stack", NETWORK_STACKS)

KEEP_WITHOUT_DNS = ("/etc/resolv.conf", "/etc/sysconfig/network/config")


def before(stack: str) -> dict[str, bytes]:
    """A system on which others configured eth0 and eth9."""
    return tree(GOLDEN / stack / "takeover-before")


def is_expressible(stack: str, data: NetworkData) -> bool:
    """Whether the stack has words for the network."""
    for each in data.interfaces:
        ipv4 = addresses_of(each, 4)
        if stack == "alpine" and each.dhcp6:
            return False
        if stack == "netplan" and any((route.metric or 0) >= 2**31 for route in each.routes):
            return False
        if stack == "ifcfg" and each.dhcp4 and ipv4:
            return False
        if stack == "networkmanager":
            has4, has6 = bool(ipv4) or each.dhcp4, bool(addresses_of(each, 6)) or each.dhcp6
            hears6 = has4 and not any(is_default(route) for route in routes_of(each, 6))
            if (dns_of(each, 4) and not has4) or (dns_of(each, 6) and not (has6 or hears6)):
                return False
            if each.search and not (has4 or has6):
                return False
    return True


def after(stack: str, data: NetworkData, files: dict[str, bytes]) -> MemoryFiles | None:
    """The files afterwards; None for a network that the stack rightly refused."""
    if is_expressible(stack, data):
        return rendered(RENDERERS[stack], data, NAMES, files)
    with pytest.raises(Refused) as raised:
        RENDERERS[stack].render(data, NAMES, MemoryFiles(files))
    assert raised.value.code == "bad_network_data"
    return None


def active(files: MemoryFiles) -> dict[str, str]:
    """What the stack reads: all but the copies."""
    return {path: content.decode() for path, content in files.contents.items() if SAVED not in path}


def test_every_stack_has_its_renderer() -> None:
    assert set(RENDERERS) == set(NETWORK_STACKS)
    assert all(renderer.name == name for name, renderer in RENDERERS.items())


@stacks
@RUNS
@given(networks())
def test_all_of_the_data_is_said(stack: str, data: NetworkData) -> None:
    files = after(stack, data, {})
    if files is None:
        return
    text = "\n".join(f"{path}\n{content}" for path, content in active(files).items())

    def said(word: object) -> bool:
        return re.search(rf"(?<![\w:.]){re.escape(str(word))}(?![\w:.])", text) is not None

    for each in data.interfaces:
        assert said(each.mac) or said(each.mac.upper()) or said(NAMES[each.mac])
        assert each.mtu is None or said(each.mtu)
        assert all(said(word) for word in (*each.dns, *each.search))
        for address in each.addresses:
            netmask = said(address.netmask) or said(address.network.prefixlen)
            assert said(address) or (said(address.ip) and netmask)
        for route in each.routes:
            assert said(route.gateway)
            assert is_default(route) or said(route.destination)
            assert route.metric is None or said(route.metric)


@stacks
@RUNS
@given(networks())
def test_others_configuration_stays(stack: str, data: NetworkData) -> None:
    files = after(stack, data, before(stack))
    if files is None:
        return
    text = "\n".join(active(files).values())
    for path, content in before(stack).items():
        kept = [copy for place, copy in files.contents.items() if SAVED in place]
        assert files.contents.get(path) == content or content in kept or adds_only(content, files.contents[path])
        if "eth9" in path:
            assert files.contents[path] == content
    for line in (line for content in before(stack).values() for line in content.decode().split("\n")):
        if re.search(r"eth9|203\.0\.113|#", line) and "eth0" not in line and "the first" not in line:
            assert line in text, line


def adds_only(old: bytes, new: bytes) -> bool:
    """Whether the new file has all lines of the old one, but for assignments of nothing."""
    return all(line in new.split(b"\n") for line in old.split(b"\n") if not line.endswith(b'=""'))


@stacks
@RUNS
@given(networks(), networks())
def test_the_last_data_wins(stack: str, first: NetworkData, last: NetworkData) -> None:
    """Nothing that was said of an interface before is left over, and what was said of others is."""
    directly = after(stack, last, {})
    start = after(stack, first, {})
    if directly is None or start is None:
        return
    files = rendered(RENDERERS[stack], last, NAMES, start.contents)
    assert not any(SAVED in path for path in files.contents), "the agent keeps copies of its own files"
    ours = {each.mac for each in last.interfaces}
    others = tuple(each for each in first.interfaces if each.mac not in ours)
    assert normalised(files) == normalised(with_others(stack, others, directly))


def with_others(stack: str, others: tuple[Interface, ...], directly: MemoryFiles) -> MemoryFiles:
    """The same by another way: the last data first, then what was said of the others."""
    if not others:
        return directly
    return rendered(RENDERERS[stack], NetworkData(others), NAMES, directly.contents)


def normalised(files: MemoryFiles) -> dict[str, list[str]]:
    """The lines of each file, but of those that hold the whole system's DNS, in any order: stanzas may move."""
    return {path: sorted(text.split("\n")) for path, text in active(files).items() if path not in KEEP_WITHOUT_DNS}


@stacks
@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "eth0\nup reboot", "eth 0", "$(reboot)", "-a", "e" * 16, "eth0'", "é"]
)
def test_names_that_files_cannot_hold(stack: str, name: str) -> None:
    """Refused, or written nowhere, by files as by programs' arguments."""
    data = network(interface(MACS[0], addresses="192.0.2.10/24"))
    renderer = RENDERERS[stack]
    if renderer.needs_names:
        with pytest.raises(Refused, match="configuration file"):
            renderer.render(data, {MACS[0]: name}, MemoryFiles())
        with pytest.raises(Refused, match="configuration file"):
            renderer.activation(data, {MACS[0]: name})
        with pytest.raises(Refused, match="no interface"):
            renderer.render(data, {}, MemoryFiles())
    else:
        odd = rendered(renderer, data, {MACS[0]: name}, {})
        assert odd.contents == rendered(renderer, data, {}, {}).contents


@stacks
@RUNS
@given(networks())
def test_no_line_is_of_another_kind(stack: str, data: NetworkData) -> None:
    """Each line of the agent's own files is one that this stack has, so no value can have ended its own."""
    files = after(stack, data, {})
    if files is None:
        return
    for text in active(files).values():
        assert text.endswith("\n")
        for line in text[:-1].split("\n"):
            assert re.fullmatch(LINES[stack], line, re.ASCII), line


_WORD = r"[\w.:/%-]+"
_STANZA = (
    rf"|auto {_WORD}|iface {_WORD} inet6? \w+|source {_WORD}\*|    (address|netmask) {_WORD}"
    rf"|    up ip -[46] (address|route) replace [\w.:/ -]+|    up ip link set dev {_WORD} up"
    rf"|    pre-up ip link set dev {_WORD} mtu \d+|    pre-up echo 0 > {_WORD}|(search|nameserver) [\w.: -]+"
)
_ASSIGNMENT = r"|\w+='[\w.:/% -]*'"
LINES = {
    stack: r"|# Written by [\w .]+" + lines
    for stack, lines in {
        "netplan": rf'| *(- )?\w[\w-]*: ?("{_WORD}"|\w+|\["[\w.:", -]+\])?| +"{_WORD}":| +- "{_WORD}"',
        "networkd": rf"|\[\w+\]|\w+={_WORD}",
        "networkmanager": r"|\[\w+\]|[\w-]+=[\w.:/,;-]+",
        "ifupdown": _STANZA,
        "alpine": _STANZA + r"|    pre-up kill \$\(cat [\w./]+ 2>/dev/null\) 2>/dev/null \|\| true",
        "ifcfg": _ASSIGNMENT + rf"|{_WORD} via {_WORD} dev \w+( metric \d+)?",
        "wicked": _ASSIGNMENT + rf"(  # by [\w ]+)?|{_WORD} {_WORD} - \w+( - metric \d+)?|{_WORD}accept_ra = 0",
    }.items()
}
