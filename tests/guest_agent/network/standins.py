"""A network stack that is one file for each interface, and a system that follows those files when it is told to."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from guest_agent.network.data import NetworkData
from guest_agent.network.live import LiveNetwork, Standing
from guest_agent.network.renderer import Change, Files, Renderer
from guest_agent.network.sealed import parse_network_data
from guest_agent.system.directory import DirectorySystem
from guest_agent.system.paths import GuestPath

ETH0, ETH1 = "00:16:3e:00:00:01", "00:16:3e:00:00:02"


def data(*interfaces: dict[str, Any]) -> NetworkData:
    """Network data of these interfaces, in the members of the command; the first is ETH0 unless it says so."""
    macs = [ETH0, ETH1]
    filled = [{"mac": mac, **members} for mac, members in zip(macs, interfaces)]
    return parse_network_data(json.dumps({"interfaces": filled}))


ONE = data({"addresses": ["192.0.2.5/24"], "gateway4": "192.0.2.1"})
TWO = data({"addresses": ["192.0.2.6/24", "2001:db8::6/64"]}, {"addresses": ["198.51.100.6/24"]})


class FileRenderer(Renderer):
    """etc/net/<name> holds an interface's addresses; etc/net/obsolete goes."""

    name = "standin"
    needs_names = True

    def render(self, data: NetworkData, names: Mapping[str, str], files: Files) -> Sequence[Change]:
        changes = []
        for interface in data.interfaces:
            text = "\n".join([interface.mac, *map(str, interface.addresses)])
            changes.append(Change(GuestPath(f"/etc/net/{names[interface.mac]}"), text.encode(), 0o640))
        return [*changes, Change(GuestPath("/etc/net/obsolete"), None)]

    def activation(self, data: NetworkData, names: Mapping[str, str]) -> Sequence[Sequence[str]]:
        return [["reload"], *(["up", names[interface.mac]] for interface in data.interfaces)]


class FollowingNetwork(LiveNetwork):
    """Each `up` makes the addresses stand that the interface's file has then.

    spoil: called with every program before it has its effect; may raise. lame: interfaces that take no address.
    """

    def __init__(self, root: Path, names: dict[str, list[str]]) -> None:
        self.root = root
        self.known = names
        self.ran: list[list[str]] = []
        self.standing: set[Standing] = set()
        self.spoil: Callable[[Sequence[str]], None] = lambda arguments: None
        self.lame: set[str] = set()

    def names(self) -> Mapping[str, Sequence[str]]:
        return self.known

    def run(self, arguments: Sequence[str], timeout: float) -> None:
        assert timeout > 0
        self.ran.append(list(arguments))
        self.spoil(arguments)
        if arguments[0] == "up":
            mac = next(mac for mac, names in self.known.items() if arguments[1] in names)
            path = self.root / "etc/net" / arguments[1]
            lines = path.read_text("latin-1").splitlines() if path.exists() else []
            self.standing = {one for one in self.standing if one[0] != mac}
            if arguments[1] not in self.lame:
                self.standing |= {(mac, ip_interface(line)) for line in lines[1:]}

    def permanent_addresses(self) -> Collection[Standing]:
        return set(self.standing)

    def wait_for(self, wanted: Collection[Standing], deadline: float) -> Collection[Standing]:
        return [one for one in wanted if one not in self.standing]


class RunningDirectory(DirectorySystem):
    """A root directory whose network follows its files."""

    live: FollowingNetwork

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.live = FollowingNetwork(root, {ETH0: ["eth0"], ETH1: ["eth1"]})

    def interface_names(self) -> Mapping[str, Sequence[str]]:
        return self.live.names()


def picture(root: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """All files below root, with mode and owner, but what an interrupted write left under its own kind of name."""
    found = {}
    for path in root.rglob("*"):
        if path.is_file() and not path.name.startswith(".xenward-"):
            status = os.lstat(path)
            content = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, path.read_bytes())
            found[str(path.relative_to(root))] = content
    return found
