"""The running system's network, in a network namespace of its own in which nothing of this machine's is seen."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_interface
from pathlib import Path

import pytest

from agent_protocol.outcomes import Failed, Refused
from guest_agent.network.apply import apply
from guest_agent.network.data import NetworkData
from guest_agent.network.live import RunningNetwork
from guest_agent.network.renderer import Change, Files, Renderer
from guest_agent.network.undo import UNDO_FILE, recover
from guest_agent.system.linux import LinuxSystem
from guest_agent.system.netlink import AddressEvents
from guest_agent.system.paths import GuestPath

from .standins import ETH0, ETH1, ONE, TWO, data, picture

pytestmark = pytest.mark.services

CLONE_NEWNET = 0x40000000
"""unshare(2)."""


def in_namespace(work: Callable[[], None]) -> None:
    """Run the work in a process with a network of its own; what it asserts counts."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            assert ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) == 0
            work()
            os._exit(0)
        except BaseException:
            os.write(write, traceback.format_exc().encode())
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as report:
        text = report.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, text


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)


def plug(name: str, mac: str) -> None:
    """An interface with a cable in it."""
    ip(f"link add {name} address {mac} type veth peer name far-{name}")
    ip(f"link set {name} up")
    ip(f"link set far-{name} up")


class IpRenderer(Renderer):
    """A stack that is the program ip: its file is a shell script."""

    name = "ip"
    needs_names = True

    def __init__(self, root: Path) -> None:
        self.root = root

    def render(self, data: NetworkData, names: Mapping[str, str], files: Files) -> Sequence[Change]:
        return [
            Change(
                GuestPath(f"/etc/net/{names[interface.mac]}"),
                "".join(
                    f"ip addr add {address} dev {names[interface.mac]} nodad\n"
                    if address.version == 6
                    else f"ip addr add {address} dev {names[interface.mac]}\n"
                    for address in interface.addresses
                ).encode(),
            )
            for interface in data.interfaces
        ]

    def activation(self, data: NetworkData, names: Mapping[str, str]) -> Sequence[Sequence[str]]:
        files = [(names[interface.mac], f"{self.root}/etc/net/{names[interface.mac]}") for interface in data.interfaces]
        return [
            program
            for name, file in files
            for program in (
                ["ip", "addr", "flush", "dev", name, "scope", "global"],
                ["sh", "-c", f"test ! -e {file} || sh -e {file}"],
            )
        ]


@pytest.fixture
def system(root: Path) -> LinuxSystem:
    """The running system, but for its files."""
    running = LinuxSystem()
    running.root = str(root)
    return running


def standing(system: LinuxSystem) -> set[str]:
    assert system.live is not None
    return {str(address) for _, address in system.live.permanent_addresses()}


def test_which_interfaces_have_addresses_of_their_own() -> None:
    def work() -> None:
        plug("one", ETH0)
        # A bridge has the MAC address of one of its parts, as bonds and VLANs have.
        ip(f"link add name bridge address {ETH0} type bridge")
        ip("link add link one name macvlan type macvlan")
        plug("part", ETH1)
        ip("link set part master bridge")
        ip("link add veth1 address 00:16:3e:00:00:08 type veth peer name veth2 address 00:16:3e:00:00:08")
        found = RunningNetwork().names()
        assert found[ETH0] == ["one"]
        assert ETH1 not in found
        assert sorted(found["00:16:3e:00:00:08"]) == ["veth1", "veth2"]
        assert {name for names in found.values() for name in names} == {"one", "far-one", "far-part", "veth1", "veth2"}

    in_namespace(work)


def test_waiting_for_an_address() -> None:
    def work() -> None:
        plug("one", ETH0)
        live = RunningNetwork()
        wanted = [(ETH0, ip_interface("192.0.2.5/24")), (ETH0, ip_interface("2001:db8::5/64"))]
        assert list(live.wait_for(wanted, time.monotonic())) == wanted
        # The right address with another prefix is another one.
        ip("addr add 192.0.2.5/25 dev one")
        waiting = threading.Event()

        class Told(AddressEvents):
            def wait(self, timeout: float) -> bool:
                waiting.set()
                return super().wait(timeout)

        def add() -> None:
            assert waiting.wait(20)
            ip("addr add 192.0.2.5/24 dev one")
            ip("addr add 2001:db8::5/64 dev one")

        other = threading.Thread(target=add)
        other.start()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("guest_agent.system.netlink.AddressEvents", Told)
            assert list(live.wait_for(wanted, time.monotonic() + 20)) == []
        other.join()

    in_namespace(work)


def test_an_address_that_is_not_unique() -> None:
    def work() -> None:
        # Two ends of one cable that are given the same address.
        ip(f"link add one address {ETH0} type veth peer name two address {ETH1}")
        Path("/proc/sys/net/ipv6/conf/one/accept_dad").write_text("1")
        ip("link set two up")
        ip("addr add 2001:db8::5/64 dev two nodad")
        ip("link set one up")
        ip("addr add 2001:db8::5/64 dev one")
        wanted = [(ETH0, ip_interface("2001:db8::5/64"))]
        live = RunningNetwork()
        with AddressEvents() as events:
            deadline = time.monotonic() + 20
            while not live.wait_for(wanted, time.monotonic()):
                assert time.monotonic() < deadline, "the address was never found not to be unique"
                events.wait(1)
        # It does not get better by waiting.
        started = time.monotonic()
        assert list(live.wait_for(wanted, started + 1000)) == wanted

    in_namespace(work)


def test_apply(system: LinuxSystem, root: Path) -> None:
    def work() -> None:
        plug("one", ETH0)
        plug("two", ETH1)
        renderer = IpRenderer(root)
        assert apply(system, renderer, ONE).seen == 1
        assert standing(system) == {"192.0.2.5/24"}
        assert apply(system, renderer, TWO).seen == 3
        assert standing(system) == {"192.0.2.6/24", "2001:db8::6/64", "198.51.100.6/24"}
        with pytest.raises(Refused) as caught:
            apply(system, renderer, data({"mac": "00:16:3e:00:00:09", "dhcp4": True}))
        assert caught.value.code == "no_such_interface"

    in_namespace(work)


def test_a_program_that_fails_and_the_way_back(system: LinuxSystem, root: Path) -> None:
    def work() -> None:
        plug("one", ETH0)
        plug("two", ETH1)
        renderer = IpRenderer(root)
        apply(system, renderer, ONE)
        before = picture(root)
        # Too small for IPv6, so the kernel refuses its addresses.
        ip("link set two mtu 1000")
        with pytest.raises(Failed) as caught:
            apply(system, renderer, data({"addresses": ["192.0.2.6/24"]}, {"addresses": ["2001:db8::6/64"]}))
        assert caught.value.code == "network_failed", caught.value.message
        assert "sh ended with" in caught.value.message
        assert caught.value.message.endswith("the old configuration is back")
        assert (picture(root), standing(system)) == (before, {"192.0.2.5/24"})

    in_namespace(work)


def test_an_address_that_does_not_come_up(system: LinuxSystem, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lazy(IpRenderer):
        """Succeeds, and does nothing for the new address."""

        def activation(self, data: NetworkData, names: Mapping[str, str]) -> Sequence[Sequence[str]]:
            grep = f"grep -v 192.0.2.6 {self.root}/etc/net/one | sh -e"
            return [["ip", "addr", "flush", "dev", "one", "scope", "global"], ["sh", "-c", grep]]

    monkeypatch.setattr("guest_agent.network.apply._FORWARD_SECONDS", 0.5)

    def work() -> None:
        plug("one", ETH0)
        apply(system, IpRenderer(root), ONE)
        with pytest.raises(Failed, match=r"192\.0\.2\.6/24 does not come up; the old configuration is back"):
            apply(system, Lazy(root), data({"addresses": ["192.0.2.6/24"]}))
        assert standing(system) == {"192.0.2.5/24"}

    in_namespace(work)


def test_a_killed_agent(system: LinuxSystem, root: Path) -> None:
    def work() -> None:
        plug("one", ETH0)
        plug("two", ETH1)
        renderer = IpRenderer(root)
        apply(system, renderer, ONE)
        before = picture(root)

        class Killed(IpRenderer):
            def activation(self, data: NetworkData, names: Mapping[str, str]) -> Sequence[Sequence[str]]:
                return [*super().activation(data, names), ["sh", "-c", "kill -9 $PPID; sleep 10"]]

        agent = os.fork()
        if agent == 0:
            apply(system, Killed(root), TWO)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(agent, 0)[1]) == -9
        assert "198.51.100.6/24" in standing(system)
        assert (root / UNDO_FILE.text[1:]).exists()
        recover(system, {"ip": renderer})
        assert (picture(root), standing(system)) == (before, {"192.0.2.5/24"})

    in_namespace(work)
