"""The XenServer driver as an environment of the contract: over a simulated pool, and over real Xen."""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import XenAPI

from compute_driver.agents import AgentsInMemory
from compute_driver.driver import ComputeDriver, Instance
from compute_driver.fencing import Fence
from compute_driver.images import Image
from compute_driver.states import PowerState
from compute_driver.volumes import VdiConnection, Volume
from compute_driver.xenapi.connection.session import ORIGINATOR, Connection
from compute_driver.xenapi.driver import XenServerDriver
from tests.contract.inside import Inside, SimulatedInside, password_opens
from tests.contract.real_xen import RealHouse
from tools.simulator.faults.leftovers import Leftover
from tools.simulator.process import SimulatorProcess

from .wanted import AGENTLESS, WITH_AGENT, Steps, Wanted

MIB, GIB = 1024**2, 1024**3
DEADLINE = 20.0
"""Seconds for whatever has to happen by itself."""

_STATES = {
    "Running": PowerState.RUNNING,
    "Halted": PowerState.SHUTDOWN,
    "Paused": PowerState.PAUSED,
    "Suspended": PowerState.SUSPENDED,
}


class XenServerEnvironment:
    """The XenServer driver over a simulated XenAPI. inside: looks into a guest, by the record of its VM."""

    can_freeze = False
    image: Image | None = WITH_AGENT

    def __init__(
        self, simulator: SimulatorProcess, inside: Callable[[dict[str, Any]], Inside], *, patience: float = 30.0
    ) -> None:
        self.simulator = simulator
        self.memory = AgentsInMemory()
        self._connection = Connection(simulator.url, simulator.username, simulator.password)
        self.driver = XenServerDriver(self._connection, self.memory, agent_timeout=patience, boot_timeout=patience)
        self._session = XenAPI.Session(simulator.url)
        self._session.login_with_password(simulator.username, simulator.password)
        self._inside = inside
        hosts = self.xenapi.host.get_all_records()
        master = self.xenapi.pool.get_master(self.xenapi.pool.get_all()[0])
        self.hosts = {record["hostname"]: ref for ref, record in hosts.items()}
        names = sorted(self.hosts, key=lambda name: self.hosts[name] != master)
        self.nodes = (names[0], names[-1])

    @property
    def xenapi(self) -> Any:
        return self._session.xenapi

    def close(self) -> None:
        self.driver.close()
        self.xenapi.session.logout()

    def record(self, instance: Instance) -> dict[str, Any]:
        (ref,) = self.xenapi.VM.get_by_name_label(f"instance-{instance.uuid}")
        return {**self.xenapi.VM.get_record(ref), "ref": ref}

    def state(self, instance: Instance) -> PowerState | None:
        if not self.xenapi.VM.get_by_name_label(f"instance-{instance.uuid}"):
            return None
        return _STATES[self.record(instance)["power_state"]]

    def life(self, instance: Instance) -> object:
        return self.record(instance)["domid"]

    def inside(self, instance: Instance) -> Inside:
        return self._inside(self.record(instance))

    def opens(self, instance: Instance, password: str) -> bool:
        return password_opens(self.inside(instance), "root", password)

    def file(self, instance: Instance, path: str) -> tuple[bytes, int] | None:
        inside = self.inside(instance)
        try:
            return inside.read(path), inside.status(path).mode
        except FileNotFoundError:
            return None

    def ssh_keys(self, instance: Instance) -> list[str]:
        return self.inside(instance).read("/root/.ssh/authorized_keys").decode().splitlines()

    def left(self) -> list[str]:
        deadline = time.monotonic() + DEADLINE
        while True:
            found = [it for it in self.simulator.control.leftovers() if _counts(it)]
            # What a task did may be seen a moment before the task's end.
            if {it.cls for it in found} != {"task"} or time.monotonic() >= deadline:
                return sorted(f"{it.cls} {it.name}" for it in found)

    def beside(self, fence: Fence | None = None) -> ComputeDriver:
        return XenServerDriver(self._connection, AgentsInMemory(), fence=fence)

    def shut_down_inside(self, instance: Instance) -> None:
        self.simulator.control.end_guest(self.record(instance)["ref"], "shutdown")

    @contextmanager
    def slow_shutdown(self, instance: Instance) -> Iterator[None]:
        record = self.record(instance)
        ref, agent = record["ref"], self.simulator.agent_pid(record["uuid"])
        # A guest whose processes stand still does not end by itself for five seconds.
        self.simulator.control.freeze_agent(ref)
        task = self.xenapi.Async.VM.clean_shutdown(ref)
        deadline = time.monotonic() + DEADLINE
        while not self.xenapi.VM.get_current_operations(ref):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        try:
            yield
        finally:
            # By hand: to the simulator, the agent of a guest that goes down is none any more.
            os.killpg(agent, signal.SIGCONT)
            while self.xenapi.task.get_status(task) == "pending":
                assert time.monotonic() < deadline
                time.sleep(0.005)
            self.xenapi.task.destroy(task)

    @contextmanager
    def silence(self) -> Iterator[None]:
        control = self.simulator.control
        rule = control.add_rule("event.from", "fail", error=["INTERNAL_ERROR", "no events"], originator=ORIGINATOR)
        control.expire_sessions(ORIGINATOR)
        deadline = time.monotonic() + DEADLINE
        while self.driver._server.events.is_live:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        try:
            yield
        finally:
            control.remove_rule(rule)

    def restart(self) -> None:
        self.simulator.control.restart_toolstack(0.1)

    def node(self, instance: Instance) -> str | None:
        host = self.record(instance)["resident_on"]
        return None if host == "OpaqueRef:NULL" else str(self.xenapi.host.get_hostname(host))

    def _vbds(self, instance: Instance) -> list[dict[str, Any]]:
        return [self.xenapi.VBD.get_record(ref) for ref in self.record(instance)["VBDs"]]

    def _root(self, instance: Instance) -> str:
        (vbd,) = [it for it in self._vbds(instance) if it["userdevice"] == "0"]
        return str(vbd["VDI"])

    def sizes(self, instance: Instance) -> tuple[int, int, int]:
        record = self.record(instance)
        size = int(self.xenapi.VDI.get_virtual_size(self._root(instance))) // GIB
        return int(record["memory_static_max"]) // MIB, int(record["VCPUs_max"]), size

    def volumes(self, instance: Instance) -> set[str]:
        return {it["other_config"]["xenward:volume"] for it in self._vbds(instance) if it["other_config"]}

    def new_volume(self) -> Volume:
        pool = self.xenapi.pool.get_all()[0]
        vdi = self.xenapi.VDI.create(
            {
                "SR": self.xenapi.pool.get_default_SR(pool),
                "virtual_size": str(GIB),
                "type": "user",
                "sharable": False,
                "read_only": False,
                "other_config": {},
                "name_label": "a volume",
            }
        )
        return Volume(f"volume-{uuid.uuid4()}", VdiConnection(self.xenapi.VDI.get_uuid(vdi)))

    def _vdi(self, volume: Volume) -> str:
        assert isinstance(volume.connection, VdiConnection)
        return str(self.xenapi.VDI.get_by_uuid(volume.connection.uuid))

    def has_volume(self, volume: Volume) -> bool:
        try:
            return bool(self._vdi(volume))
        except XenAPI.Failure:
            return False

    def remove_volume(self, volume: Volume) -> None:
        self.xenapi.VDI.destroy(self._vdi(volume))

    def macs(self, instance: Instance) -> set[str]:
        return {self.xenapi.VIF.get_MAC(ref).lower() for ref in self.record(instance)["VIFs"]}

    def metadata(self, instance: Instance) -> dict[str, str]:
        prefix = "vm-data/user-metadata/"
        data = self.record(instance)["xenstore_data"]
        return {key.removeprefix(prefix): json.loads(it) for key, it in data.items() if key.startswith(prefix)}

    def has_config_drive(self, instance: Instance) -> bool:
        return any(it["type"] == "CD" and not it["empty"] for it in self._vbds(instance))

    def let_configure(self, instance: Instance) -> None:
        record = self.record(instance)
        root = self.simulator.guest_root(record["uuid"])
        (root / "etc/os-release").write_text("ID=ubuntu\n")
        for directory in ("etc/netplan", "usr/sbin"):
            (root / directory).mkdir(parents=True, exist_ok=True)
        (root / "etc/netplan/50-installer.yaml").write_text("network: {version: 2}\n")
        (root / "usr/sbin/netplan").touch(mode=0o755)
        self.xenapi.VM.hard_reboot(record["ref"])

    def configures(self, instance: Instance, address: str) -> bool:
        root = self.simulator.guest_root(self.record(instance)["uuid"])
        files = [path for path in (root / "etc").rglob("*") if path.is_file()]
        return any(address.encode() in path.read_bytes() for path in files)

    def replace_agent(self, instance: Instance) -> None:
        record = self.record(instance)
        for path in self.simulator.guest_root(record["uuid"]).rglob("*identity*"):
            path.unlink()
        self.xenapi.VM.hard_reboot(record["ref"])

    def write_disk(self, instance: Instance, content: bytes) -> None:
        self._transfer("PUT", "import_raw_vdi", instance, content)

    def read_disk(self, instance: Instance, size: int) -> bytes:
        return self._transfer("GET", "export_raw_vdi", instance, b"", size)

    def _transfer(self, method: str, path: str, instance: Instance, content: bytes, size: int = 0) -> bytes:
        vdi, task = self._root(instance), self.xenapi.task.create(path, "")
        connection = http.client.HTTPConnection(urlsplit(self.simulator.plain_url).netloc, timeout=DEADLINE)
        query = f"session_id={self._session.handle}&task_id={task}&vdi={vdi}&format=raw"
        try:
            connection.request(method, f"/{path}?{query}", body=content)
            with connection.getresponse() as response:
                assert response.status == 200, response.status
                found = response.read(size) if size else b""
        finally:
            connection.close()
        # The answer comes before the end; until then the disk is dom0's.
        deadline = time.monotonic() + DEADLINE
        while self.xenapi.task.get_status(task) == "pending" or self._is_plugged(vdi):
            assert time.monotonic() < deadline, path
            time.sleep(0.01)
        self.xenapi.task.destroy(task)
        return found

    def _is_plugged(self, vdi: str) -> bool:
        dom0s = set(self.xenapi.VM.get_all_records_where('field "is_control_domain" = "true"'))
        return any(self.xenapi.VBD.get_VM(vbd) in dom0s for vbd in self.xenapi.VDI.get_VBDs(vdi))

    def is_enabled(self, node: str) -> bool:
        return bool(self.xenapi.host.get_enabled(self.hosts[node]))

    def is_live(self, node: str) -> bool:
        return bool(self.xenapi.host_metrics.get_live(self.xenapi.host.get_metrics(self.hosts[node])))

    def let_be_started(self, node: str, possible: bool) -> None:
        self.xenapi.host.set_power_on_mode(self.hosts[node], "wake-on-lan" if possible else "", {})


def _counts(it: Leftover) -> bool:
    """Cached images stay on purpose, and what copies have in common is the storage's own matter."""
    if it.cls == "VDI":
        return not it.name.startswith("image ") and it.name != "base copy"
    return it.cls not in ("session", "console")


def simulated_inside(simulator: SimulatorProcess) -> Callable[[dict[str, Any]], Inside]:
    """Looks into guests that are directories."""

    def inside(record: dict[str, Any]) -> Inside:
        return SimulatedInside(simulator, record["uuid"], lambda: int(record["domid"]))

    return inside


@contextmanager
def simulator(*arguments: str) -> Iterator[XenServerEnvironment]:
    """A pool of two hosts, in which the images are already."""
    with SimulatorProcess(["--login-failure-delay", "0", "--hosts", "2", *arguments]) as process:
        it = XenServerEnvironment(process, simulated_inside(process))
        try:
            for image in (AGENTLESS, WITH_AGENT):
                instance = Wanted()
                it.driver.spawn(instance, image=image, power_on=False, progress=Steps())
                it.driver.destroy(instance)
            process.control.mark()
            yield it
        finally:
            it.close()


class RealXenEnvironment(XenServerEnvironment):
    """The XenServer driver over real Xen. The guests' image is the one that the lab boots."""

    image = None

    def __init__(self, house: RealHouse) -> None:
        super().__init__(house.simulator, lambda record: self._real(house, record), patience=200.0)
        house.simulator.control.mark()

    @staticmethod
    def _real(house: RealHouse, record: dict[str, Any]) -> Inside:
        return house.inside(record["name_label"].removeprefix("instance-"))
