"""ifupdown's files."""

from __future__ import annotations

import pytest

from agent_protocol.outcomes import Refused
from guest_agent.network.renderers import RENDERERS
from guest_agent.system.paths import GuestPath

from .cases import CASES, DUAL_STACK, NAMES, STATIC, TWO_INTERFACES, assert_golden, interface, network, route
from .memory import MemoryFiles, rendered

RENDERER = RENDERERS["ifupdown"]


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    assert_golden("ifupdown", case)


MAIN = "/etc/network/interfaces"
FILE = "/etc/network/interfaces.d/xenward-00163e000001"
HOOK = {"/etc/network/if-up.d/000resolvconf": b""}


def test_resolvconf_gets_dns_by_the_stanza() -> None:
    files = rendered(RENDERER, DUAL_STACK, NAMES, HOOK)
    assert "/etc/resolv.conf" not in files.contents
    stanza = files.text(FILE).split("iface eth0 inet6")[0]
    assert "    dns-nameservers 192.0.2.53 2001:db8:1::53\n" in stanza
    assert "    dns-search example.org lab.example.org\n" in stanza


class LinkedResolver(MemoryFiles):
    """A guest whose /etc/resolv.conf is a symbolic link."""

    def read(self, path: GuestPath) -> bytes | None:
        if path.text == "/etc/resolv.conf":
            raise Refused("not_a_file", "'resolv.conf' is a symbolic link, not a regular file")
        return super().read(path)


def test_dns_that_nobody_would_hear_of() -> None:
    with pytest.raises(Refused, match="another program's") as raised:
        RENDERER.render(DUAL_STACK, NAMES, LinkedResolver())
    assert raised.value.code == "bad_network_data"
    assert RENDERER.render(DUAL_STACK, NAMES, LinkedResolver(HOOK))


@pytest.mark.parametrize(
    "line",
    ["source /etc/network/interfaces.d/*", "  source interfaces.d/*  ", "source-directory /etc/network/interfaces.d"],
)
def test_the_directory_is_read_once(line: str) -> None:
    files = rendered(RENDERER, STATIC, NAMES, {MAIN: f"{line}\n".encode()})
    assert files.text(MAIN) == f"{line}\n"


@pytest.mark.parametrize("line", ["#source /etc/network/interfaces.d/*", "source /etc/network/interfaces.d/*.cfg", ""])
def test_the_directory_is_made_to_be_read(line: str) -> None:
    files = rendered(RENDERER, STATIC, NAMES, {MAIN: line.encode()})
    assert files.text(MAIN) == (line and line + "\n") + "\nsource /etc/network/interfaces.d/*\n"


def test_bytes_that_are_no_text_stay() -> None:
    files = rendered(RENDERER, STATIC, NAMES, {MAIN: b"# \xff\xfe\r\nauto eth0\n\x0c\x1c# \xe2\x80\xa8"})
    assert files.contents[MAIN].startswith(b"# \xff\xfe\r\n\x0c\x1c# \xe2\x80\xa8\n")


def test_activation() -> None:
    commands = RENDERER.activation(TWO_INTERFACES, NAMES)
    assert commands[0] == ["ifdown", "--force", "eth0"]
    assert ["start-stop-daemon", "--stop", "--oknodo", "--quiet", "--pidfile", "/run/dhclient.eth0.pid"] in commands
    assert commands[-2:] == [["ip", "address", "flush", "dev", "eth1", "scope", "global"], ["ifup", "--force", "eth1"]]


def methods(**options: object) -> list[str]:
    text = rendered(RENDERER, network(interface(**options)), NAMES).text(FILE)  # type: ignore[arg-type]
    return [line.removeprefix("iface eth0 ") for line in text.split("\n") if line.startswith("iface")]


def test_methods() -> None:
    assert methods() == ["inet manual"]
    assert methods(dhcp4=True) == ["inet dhcp"]
    assert methods(dhcp6=True) == ["inet6 dhcp"]
    assert methods(addresses="2001:db8::2/64") == ["inet6 static"]
    assert methods(addresses="192.0.2.2/24", dhcp4=True, dhcp6=True) == ["inet dhcp", "inet6 dhcp"]
    assert methods(routes=(route("::/0", "fe80::1"),)) == ["inet6 manual"]
