"""Volumes at VMs: VBDs that lead to VDIs of the pool, of iSCSI targets and of NFS servers.

A VBD of ours names its volume in other_config. Attaching and detaching can be asked for again: what is done already
stays as it is. No volume is ever created or destroyed here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from agent_protocol.outcomes import Refused, Unsupported

from ...errors import ObjectGone, VolumeInUse, VolumeNotFound, XenServerFailure
from ...volumes import IscsiConnection, NfsConnection, VdiConnection, Volume
from .. import hotplug
from ..connection.session import XenServer
from ..guests.vms import VM
from ..network.networks import MADE_KEY
from ..undo import Undo
from .volume_repositories import VolumeRepositories, VolumeRepository, of_iscsi, of_nfs

VOLUME_KEY = "xenward:volume"
"""Key in VBD.other_config that holds the volume's id."""


@dataclass(frozen=True)
class AttachedVolume:
    """A volume at a VM. vm: its uuid. device: such as `xvdb`, or the number until a guest had it. plugged: has it."""

    volume: str
    vm: str
    device: str
    plugged: bool


class Volumes:
    """The volumes at all VMs of a pool."""

    def __init__(self, server: XenServer) -> None:
        self._server = server
        self._repositories = VolumeRepositories(server)

    @property
    def repositories(self) -> VolumeRepositories:
        """The storage that they lie in."""
        return self._repositories

    def attach(self, vm: VM, volume: Volume) -> str:
        """Give a VM that is halted or runs a volume; gives the device, such as `xvdb`, or its number before a boot.

        Nothing happens when it has it. Leaves it attached, or nothing and the error: VolumeNotFound; VolumeInUse when
        another VBD has it and both are not read-only; HotplugUnsupported; Refused with `device_in_use`,
        `bad_device`, `volume_read_only`, `sr_not_on_host`, or `instance_not_settled` in another power state;
        Unsupported with `read_only_unsupported`.
        """
        hotplug.assert_settled(self._server, vm.ref)
        with _explained(volume), Undo() as undo:
            with self._repositories.turns.of(_turn(volume)):
                vbd = self._find(vm, volume.id)
                if vbd is None:
                    vdi = self._locate(vm, volume, undo)
                    self._assert_free(vdi, volume)
                    undo.add(f"volume {volume.id} at the VM", lambda: self._remove(vm, volume.id))
                    vbd = self._create(vm, volume, vdi)
            # From here on the VBD keeps what it leads to.
            hotplug.plug(self._server, "VBD", vbd, vm.ref)
            record = self._server.call("VBD.get_record", vbd)
            return str(record["device"] or record["userdevice"])

    def detach(self, vm: VM, volume: Volume) -> None:
        """Take a volume from a VM; nothing happens when it does not have it.

        DetachRejected when the running guest does not let go of it: then it stays. HotplugUnsupported, Unknown with
        `detach_timeout` when the guest did not answer: it may still let go. Ask again after any error.
        """
        if self._find(vm, volume.id) is not None:
            hotplug.assert_settled(self._server, vm.ref)
            self._remove(vm, volume.id)
        repository = _repository(volume)
        if repository is not None:
            self._repositories.release(repository.uuid)

    def detach_all(self, vm: VM) -> None:
        """Take all volumes from a halted VM that is to be destroyed, so that none is taken for a disk of its own."""
        for vbd in self._server.call("VM.get_VBDs", vm.ref):
            record = self._server.call("VBD.get_record", vbd)
            if VOLUME_KEY in record["other_config"]:
                sr = self._server.call("VDI.get_SR", record["VDI"])
                sr_uuid = str(self._server.call("SR.get_uuid", sr))
                self._remove(vm, record["other_config"][VOLUME_KEY])
                self._repositories.release(sr_uuid)

    def in_use(self) -> list[AttachedVolume]:
        """All volumes that are attached to VMs, in the order of their ids."""
        found = []
        for record in self._server.call("VBD.get_all_records").values():
            volume = record["other_config"].get(VOLUME_KEY)
            if volume is not None:
                vm = str(self._server.call("VM.get_uuid", record["VM"]))
                device = record["device"] or record["userdevice"]
                found.append(AttachedVolume(volume, vm, device, record["currently_attached"]))
        return sorted(found, key=lambda it: (it.volume, it.vm))

    def _find(self, vm: VM, volume_id: str) -> str | None:
        for vbd in self._server.call("VM.get_VBDs", vm.ref):
            if self._server.call("VBD.get_other_config", vbd).get(VOLUME_KEY) == volume_id:
                return str(vbd)
        return None

    def _remove(self, vm: VM, volume_id: str) -> None:
        vbd = self._find(vm, volume_id)
        if vbd is None:
            return
        hotplug.unplug(self._server, "VBD", vbd)
        try:
            self._server.call("VBD.destroy", vbd)
        except ObjectGone:
            return

    def _locate(self, vm: VM, volume: Volume, undo: Undo) -> str:
        """The volume's VDI, in an SR that is connected where the VM needs it."""
        connection = volume.connection
        if isinstance(connection, VdiConnection):
            return self._by_uuid(connection.uuid, volume)
        repository = _repository(volume)
        assert repository is not None
        sr = self._repositories.connect(repository, self._hosts(vm), undo)
        if isinstance(connection, NfsConnection):
            return self._in_repository(sr, connection.vdi, volume)
        return self._of_unit(sr, connection, volume)

    def _hosts(self, vm: VM) -> list[str]:
        """Where the VM runs; all hosts that are up when it is halted, since it may start on any of them."""
        if self._server.call("VM.get_power_state", vm.ref) != "Halted":
            return [str(self._server.call("VM.get_resident_on", vm.ref))]
        records = self._server.call("host.get_all_records")
        return [
            host for host, record in records.items() if self._server.call("host_metrics.get_live", record["metrics"])
        ]

    def _by_uuid(self, uuid: str, volume: Volume) -> str:
        try:
            return str(self._server.call("VDI.get_by_uuid", uuid))
        except ObjectGone:
            raise VolumeNotFound(volume.id) from None

    def _in_repository(self, sr: str, uuid: str, volume: Volume) -> str:
        for scanned in (False, True):
            if scanned:
                self._server.call("SR.scan", sr)
            for vdi, record in self._repositories.disks(sr).items():
                if record["uuid"] == uuid:
                    return vdi
        raise VolumeNotFound(volume.id)

    def _of_unit(self, sr: str, connection: IscsiConnection, volume: Volume) -> str:
        """The VDI of a logical unit. The storage manager hides those that nobody has introduced (managed is false)."""
        for scanned in (False, True):
            if scanned:
                self._server.call("SR.scan", sr)
            for vdi, record in self._repositories.disks(sr).items():
                if record["sm_config"].get("LUNid") == str(connection.lun):
                    return vdi if record["managed"] else self._introduce(sr, record, volume)
        raise VolumeNotFound(volume.id)

    def _introduce(self, sr: str, record: dict[str, Any], volume: Volume) -> str:
        vdi = self._server.call(
            "VDI.introduce",
            record["uuid"],
            f"Volume {volume.id}",
            "",
            sr,
            "user",
            record["sharable"],
            record["read_only"],
            {MADE_KEY: volume.id},
            record["location"],
            {},
            record["sm_config"],
        )
        return str(vdi)

    def _assert_free(self, vdi: str, volume: Volume) -> None:
        record = self._server.call("VDI.get_record", vdi)
        if record["read_only"] and not volume.read_only:
            raise Refused("volume_read_only", f"volume {volume.id} is read-only")
        if record["sharable"]:
            return
        for vbd in record["VBDs"]:
            try:
                mode = self._server.call("VBD.get_mode", vbd)
            except ObjectGone:
                continue
            if mode == "RW" or not volume.read_only:
                raise VolumeInUse(volume.id)

    def _create(self, vm: VM, volume: Volume, vdi: str) -> str:
        record = {
            "VM": vm.ref,
            "VDI": vdi,
            "userdevice": "autodetect" if volume.device is None else volume.device.removeprefix("/dev/"),
            "bootable": volume.is_bootable,
            "mode": "RO" if volume.read_only else "RW",
            "type": "Disk",
            "unpluggable": True,
            "empty": False,
            "other_config": {VOLUME_KEY: volume.id},
            "qos_algorithm_type": "",
            "qos_algorithm_params": {},
        }
        return str(self._server.call("VBD.create", record))


def _repository(volume: Volume) -> VolumeRepository | None:
    if isinstance(volume.connection, IscsiConnection):
        return of_iscsi(volume.connection)
    if isinstance(volume.connection, NfsConnection):
        return of_nfs(volume.connection)
    return None


def _turn(volume: Volume) -> str:
    repository = _repository(volume)
    if repository is not None:
        return repository.uuid
    assert isinstance(volume.connection, VdiConnection)
    return volume.connection.uuid


@contextmanager
def _explained(volume: Volume) -> Iterator[None]:
    """XenServer's failures in the words of whoever attaches a volume."""
    try:
        yield
    except XenServerFailure as failure:
        code = failure.details[0]
        if code == "VDI_IN_USE":
            raise VolumeInUse(volume.id) from None
        if code == "DEVICE_ALREADY_EXISTS":
            raise Refused("device_in_use", f"the VM has another disk as {volume.device}") from None
        if code == "INVALID_DEVICE":
            raise Refused("bad_device", f"a VM cannot have a disk as {volume.device}") from None
        if code == "DISK_VBD_MUST_BE_READWRITE_FOR_HVM":
            raise Unsupported("read_only_unsupported", "this guest cannot have a read-only disk") from None
        raise
