"""A simulated pool of two hosts, with guests whose kernels can plug devices, and what there is in it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agent_protocol.xenstore import connect
from compute_driver.states import PowerState
from compute_driver.xenapi.connection.session import Connection, XenServer
from compute_driver.xenapi.guests.vms import VM
from tools.simulator.process import SimulatorProcess

MIB = 1024 * 1024
CLASSES = ("VM", "VIF", "VBD", "VDI", "SR", "PBD", "network", "PIF", "VLAN", "secret")


class Pool:
    """The pool of a simulator."""

    def __init__(self, simulator: SimulatorProcess, server: XenServer) -> None:
        self.simulator = simulator
        self.server = server

    def connected(self) -> XenServer:
        """Another process's way to the same pool."""
        return XenServer(Connection(self.simulator.url, self.simulator.username, self.simulator.password))

    def inventory(self) -> dict[str, set[str]]:
        """All objects that there are, by class."""
        return {cls: set(self.server.call(f"{cls}.get_all")) for cls in CLASSES}

    @contextmanager
    def nothing_left(self) -> Iterator[None]:
        """That the block makes nothing that is still there at its end, and removes nothing."""
        before = self.inventory()
        yield
        after = self.inventory()
        made = {cls: len(after[cls] - before[cls]) for cls in CLASSES if after[cls] - before[cls]}
        removed = {cls: len(before[cls] - after[cls]) for cls in CLASSES if before[cls] - after[cls]}
        assert not made, f"left: {made}"
        assert not removed, f"gone: {removed}"

    def vm(self, *, running: bool = False, drivers: bool = True) -> VM:
        """A VM without devices. drivers: whether its guest shows some."""
        instance = str(uuid.uuid4())
        memory = str(64 * MIB)
        record: dict[str, Any] = {
            "name_label": f"instance-{instance}",
            "name_description": "",
            "user_version": "1",
            "is_a_template": False,
            "affinity": "OpaqueRef:NULL",
            **dict.fromkeys(("memory_static_max", "memory_dynamic_max", "memory_dynamic_min"), memory),
            "memory_static_min": str(16 * MIB),
            "VCPUs_max": "1",
            "VCPUs_at_startup": "1",
            "VCPUs_params": {},
            "actions_after_shutdown": "destroy",
            "actions_after_reboot": "restart",
            "actions_after_crash": "restart",
            **dict.fromkeys(("PV_bootloader", "PV_kernel", "PV_ramdisk", "PV_args", "PV_bootloader_args"), ""),
            "PV_legacy_args": "",
            "HVM_boot_policy": "BIOS order",
            "HVM_boot_params": {"order": "cd"},
            "platform": {},
            "PCI_bus": "",
            "recommendations": "",
            "other_config": {},
        }
        ref = self.server.call("VM.create", record)
        if running:
            self.start(ref, drivers=drivers)
        return self.described(ref, instance)

    def described(self, ref: str, instance: str = "") -> VM:
        record = self.server.call("VM.get_record", ref)
        state = PowerState.RUNNING if record["power_state"] == "Running" else PowerState.SHUTDOWN
        return VM(ref, record["uuid"], instance, state, record["resident_on"], tuple(record["VBDs"]))

    def start(self, ref: str, *, drivers: bool = True) -> None:
        self.server.call("VM.start", ref, False, False)
        self.say(ref, {"feature/hotplug/vif": "1" if drivers else "0", "feature/hotplug/vbd": "1" if drivers else "0"})

    def say(self, ref: str, nodes: dict[str, str]) -> None:
        """Let the guest tell what its drivers can do, until XenServer knows it."""
        domid = self.server.call("VM.get_domid", ref)
        host = self.server.call("host.get_uuid", self.server.call("VM.get_resident_on", ref))
        (socket,) = [it.xenstore_socket for it in self.simulator.hosts if it.uuid == host]
        with connect(str(socket)) as store:
            for node, value in nodes.items():
                store.write(f"/local/domain/{domid}/{node}", value.encode())
            store.write(f"/local/domain/{domid}/data/updated", b"1")
        wanted = {"1": "yes", "0": "no"}[nodes["feature/hotplug/vbd"]]
        deadline = time.monotonic() + 20.0
        while self._can_plug(ref) != wanted:
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def _can_plug(self, ref: str) -> str:
        metrics = self.server.call("VM.get_guest_metrics", ref)
        if metrics == "OpaqueRef:NULL":
            return "unspecified"
        return str(self.server.call("VM_guest_metrics.get_can_use_hotplug_vbd", metrics))

    def destroy(self, vm: VM) -> None:
        if self.server.call("VM.get_power_state", vm.ref) != "Halted":
            self.server.call("VM.hard_shutdown", vm.ref)
        self.server.call("VM.destroy", vm.ref)
