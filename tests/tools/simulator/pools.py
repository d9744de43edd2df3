"""What the tests of pools of several hosts share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import XenAPI

from tools.simulator.process import SimulatedHost, SimulatorProcess
from tools.simulator.server import Simulator
from tools.simulator.settings import Settings

from .support import Vm, make_vm

__all__ = ["Pool", "Vm", "in_this_process", "logged_in"]


@contextlib.contextmanager
def logged_in(simulator: SimulatorProcess, url: str = "") -> Iterator[Any]:
    """A session of its own, with the coordinator unless another URL is given."""
    session = XenAPI.Session(url or simulator.url, ignore_ssl=True)
    session.login_with_password(simulator.username, simulator.password, "1.0", "tests")
    yield session
    session("close")()


@contextlib.contextmanager
def in_this_process(directory: Path, plugins: Path) -> Iterator[Simulator]:
    """A pool of three hosts in this process, so that its parts can be reached."""
    state = directory / "s"
    state.mkdir()
    sleep = ("/bin/sleep", "600")
    simulator = Simulator(Settings(state, hosts=3, plugins=plugins, agent_command=sleep, login_failure_delay=0))
    simulator.start()
    try:
        yield simulator
    finally:
        simulator.stop()


class Pool:
    """A pool of a test: its API, and its hosts by number, from 0."""

    def __init__(self, simulator: SimulatorProcess, session: XenAPI.Session) -> None:
        self.simulator = simulator
        self.session = session
        self.api = session.xenapi
        self.hosts: list[SimulatedHost] = simulator.hosts
        self.refs: list[str] = [self.api.host.get_by_uuid(host.uuid) for host in self.hosts]
        (self.pool,) = self.api.pool.get_all()
        self.shared: str = self.api.pool.get_default_SR(self.pool)

    def local(self, number: int) -> str:
        """The local repository of a host."""
        for pbd in self.api.host.get_PBDs(self.refs[number]):
            sr: str = self.api.PBD.get_SR(pbd)
            if not self.api.SR.get_shared(sr):
                return sr
        raise AssertionError("a host has no local repository")

    def disk(self, vm: Vm, sr: str, content: bytes = b"") -> str:
        """A new disk of a VM, with that content at its beginning."""
        size = 8 * 1024 * 1024
        record = {
            "name_label": "disk",
            "SR": sr,
            "virtual_size": str(size),
            "type": "user",
            "sharable": False,
            "read_only": False,
            "other_config": {},
        }
        vdi: str = self.api.VDI.create(record)
        device = {"VM": vm.ref, "VDI": vdi, "userdevice": "0", "bootable": True, "mode": "RW", "type": "Disk"}
        rest = {"unpluggable": True, "empty": False, "other_config": {}, "qos_algorithm_type": ""}
        self.api.VBD.create({**device, **rest, "qos_algorithm_params": {}})
        return vdi

    def interface(self, vm: Vm) -> str:
        """A new interface of a VM, on the pool's network."""
        record = {"VM": vm.ref, "network": self.api.network.get_all()[0], "device": "0", "MAC": "", "MTU": "1500"}
        rest = {"other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}
        vif: str = self.api.VIF.create({**record, **rest})
        return vif

    def make(self, **changes: Any) -> Vm:
        """A new VM, halted."""
        return make_vm(self.session, **changes)

    def receive(self, number: int) -> dict[str, str]:
        """Where VM.migrate_send shall send to."""
        network = self.api.network.get_all()[0]
        destination: dict[str, str] = self.api.host.migrate_receive(self.refs[number], network, {})
        return destination
