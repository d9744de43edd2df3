"""What a simulated pool has at a moment, read from XenServer itself and from the guests' own disks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from passlib.hash import sha512_crypt

from compute_driver.states import PowerState
from tools.simulator.process import SimulatorProcess

MIB, GIB = 1024**2, 1024**3

INSTANCE_KEY = "xenward:instance"
VOLUME_KEY = "xenward:volume"
METADATA = "vm-data/user-metadata/"

ROOT_DEVICE = "0"

_POWER = {
    "Running": PowerState.RUNNING,
    "Halted": PowerState.SHUTDOWN,
    "Paused": PowerState.PAUSED,
    "Suspended": PowerState.SUSPENDED,
}


@dataclass(frozen=True)
class Guest:
    """A VM of ours, with what hangs on it. disks: VDI records by device number. root: its guest's directory."""

    ref: str
    record: Mapping[str, Any]
    node: str
    disks: Mapping[str, Mapping[str, Any]]
    macs: frozenset[str]
    root: Path
    shadow: str = field(repr=False)
    commands: tuple[str, ...] = ()
    """What its agents said that they had carried out, each as `NAME OUTCOME`."""

    @property
    def power(self) -> PowerState:
        return _POWER[self.record["power_state"]]

    @property
    def domid(self) -> int:
        return int(self.record["domid"])

    @property
    def sizes(self) -> tuple[int, int, int]:
        """MiB of memory, processors, GiB of root disk."""
        root = self.disks.get(self.root_device)
        size = int(root["virtual_size"]) // GIB if root else 0
        return int(self.record["memory_static_max"]) // MIB, int(self.record["VCPUs_max"]), size

    @property
    def root_device(self) -> str:
        """Where its own root disk is: a rescued guest has another one in the first place."""
        own = f"{self.record['name_label']} root"
        return min((device for device, disk in self.disks.items() if disk["name_label"] == own), default=ROOT_DEVICE)

    @property
    def root_disk(self) -> str:
        """Its uuid, empty when there is none."""
        return str(self.disks[self.root_device]["uuid"]) if self.root_device in self.disks else ""

    @property
    def volumes(self) -> frozenset[str]:
        """The uuids of its disks that are not its own."""
        return frozenset(it["uuid"] for it in self.disks.values() if INSTANCE_KEY not in it["other_config"])

    @property
    def is_rescued(self) -> bool:
        return "xenward:rescue" in self.record["other_config"]

    @property
    def is_resized(self) -> bool:
        return "xenward:resize" in self.record["other_config"]

    @property
    def metadata(self) -> dict[str, str]:
        data = self.record["xenstore_data"].items()
        return {key.removeprefix(METADATA): json.loads(value) for key, value in data if key.startswith(METADATA)}

    def opens(self, password: str) -> bool:
        """Whether the administrator's password is this one."""
        stored = self.shadow.split(":")[1] if self.shadow else ""
        return bool(sha512_crypt.identify(stored) and sha512_crypt.verify(password, stored))

    def file(self, path: str) -> bytes | None:
        try:
            return (self.root / path.lstrip("/")).read_bytes()
        except FileNotFoundError:
            return None


@dataclass(frozen=True)
class Seen:
    """The pool. guests: by the instance's uuid; more than one is wrong. The rest is by reference."""

    guests: Mapping[str, list[Guest]]
    vms: Mapping[str, Mapping[str, Any]]
    vdis: Mapping[str, Mapping[str, Any]]
    vbds: Mapping[str, Mapping[str, Any]]
    vifs: Mapping[str, Mapping[str, Any]]
    tasks: Mapping[str, Mapping[str, Any]]

    def guest(self, instance: str) -> Guest | None:
        """The guest of an instance."""
        found = self.guests.get(instance, [])
        return found[0] if found else None


def look(xenapi: Any, simulator: SimulatorProcess) -> Seen:
    """What there is now. Only what nobody changes meanwhile fits together."""
    vms = {ref: it for ref, it in xenapi.VM.get_all_records().items() if not it["is_control_domain"]}
    vbds, vdis = xenapi.VBD.get_all_records(), xenapi.VDI.get_all_records()
    vifs, hosts = xenapi.VIF.get_all_records(), xenapi.host.get_all_records()
    guests: dict[str, list[Guest]] = {}
    for ref, record in vms.items():
        instance = record["other_config"].get(INSTANCE_KEY)
        if not instance or record["is_a_template"] or record["is_a_snapshot"]:
            continue
        mine = [it for it in vbds.values() if it["VM"] == ref and not it["empty"] and it["VDI"] in vdis]
        root = simulator.guest_root(record["uuid"])
        guests.setdefault(instance, []).append(
            Guest(
                ref,
                record,
                hosts[record["resident_on"]]["hostname"] if record["resident_on"] in hosts else "",
                {it["userdevice"]: vdis[it["VDI"]] for it in mine},
                frozenset(it["MAC"].lower() for it in vifs.values() if it["VM"] == ref),
                root,
                _shadow(root),
                tuple(_commands(root.parent / "agent.log")),
            )
        )
    return Seen(guests, vms, vdis, vbds, vifs, xenapi.task.get_all_records())


def _shadow(root: Path) -> str:
    try:
        lines = (root / "etc/shadow").read_text().splitlines()
    except FileNotFoundError:
        return ""
    return next((line for line in lines if line.startswith("root:")), "")


def _commands(log: Path) -> list[str]:
    """From lines such as `… INFO request ID NAME 0.039 s OUTCOME`."""
    try:
        lines = log.read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []
    words = [line.split() for line in lines if " INFO request " in line]
    return [f"{it[5]} {it[8].rstrip(':;,')}" for it in words if len(it) > 8]
