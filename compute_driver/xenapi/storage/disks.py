"""Disks of guests: VDIs, made with marks of whose they are, and the VBDs that attach them.

Every function here leaves nothing of what it began when it fails, also when it was the answer that got lost: then the
VDI is looked for by its marks. What even that does not find, since XenServer was gone, orphans.py finds later.
"""

from __future__ import annotations

import logging
import uuid as uuids
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agent_protocol.outcomes import Refused, Unknown, Unsuccessful

from ...driver import Instance
from ...errors import ObjectGone
from ...fencing import LeaseLost
from .. import hotplug
from ..connection.cache import INSTANCE_KEY
from ..connection.session import XenServer
from ..guests.vms import NULL, part_name
from ..undo import Undo
from . import marks, repositories
from .marks import Purpose
from .repositories import Repository

LOG = logging.getLogger(__name__)

MIB = 1024**2
GIB = 1024**3

ROOT_DEVICE = "0"
CONFIG_DRIVE_DEVICE = "3"
"""The last of the four that a guest has before it loads Xen's drivers."""

AUTODETECT = "autodetect"
"""As a device: the lowest number that is free."""


@dataclass(frozen=True)
class NewDisk:
    """A VDI to be made. size: bytes, which the repository may round up. instance: uuid, if it belongs to one.

    marks: further members of other_config. Refused for a size that is none.
    """

    name: str
    description: str
    size: int
    purpose: Purpose
    instance: str | None = None
    marks: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.size <= 0:
            raise Refused("bad_disk_size", "a disk has at least one byte")

    def other_config(self) -> dict[str, str]:
        """All its marks but those that only it itself can give."""
        owner = {INSTANCE_KEY: self.instance} if self.instance else {}
        return {**self.marks, **owner, marks.PURPOSE_KEY: str(self.purpose), marks.MADE_KEY: marks.now()}

    @property
    def vdi_type(self) -> str:
        """As XenAPI sorts VDIs."""
        if self.purpose is Purpose.ROOT:
            return "system"
        return "ephemeral" if self.purpose in (Purpose.EPHEMERAL, Purpose.SWAP) else "user"


@dataclass(frozen=True)
class Disk:
    """A VDI that exists. size: bytes of its content; repository: reference of its SR."""

    ref: str
    uuid: str
    size: int
    repository: str


def of_instance(instance: Instance, purpose: Purpose, size: int) -> NewDisk:
    """A disk for an instance; size in bytes."""
    return NewDisk(part_name(instance.uuid, purpose), instance.display_name, size, purpose, instance.uuid)


def create(server: XenServer, repository: Repository, new: NewDisk) -> Disk:
    """An empty disk. StorageFull, XenServerFailure and others."""
    token = str(uuids.uuid4())
    record = {
        "name_label": new.name,
        "name_description": new.description,
        "SR": repository.ref,
        "virtual_size": str(new.size),
        "type": new.vdi_type,
        "sharable": False,
        "read_only": False,
        "other_config": {**new.other_config(), marks.TOKEN_KEY: token},
    }
    with Undo() as undo:
        undo.add(f"disk {new.name}", lambda: _remove_marked(server, new.name, token))
        ref = str(repositories.perform(server, repository.name, "VDI.create", record))
        undo.add(f"disk {new.name}", lambda: destroy(server, ref))
        return claim(server, ref)


def claim(server: XenServer, ref: str, new: NewDisk | None = None) -> Disk:
    """Give a VDI the mark that only it has; one that was branched off another also name and marks of its own."""
    record = server.call("VDI.get_record", ref)
    if new is None:
        server.call("VDI.add_to_other_config", ref, marks.OWN_KEY, record["uuid"])
    else:
        server.call("VDI.set_name_label", ref, new.name)
        server.call("VDI.set_name_description", ref, new.description)
        server.call("VDI.set_other_config", ref, {**new.other_config(), marks.OWN_KEY: record["uuid"]})
    return _disk(ref, record)


def find(server: XenServer, ref: str) -> Disk:
    """The disk of a reference. ObjectGone when there is none."""
    return _disk(ref, server.call("VDI.get_record", ref))


def _disk(ref: str, untrusted_record: Mapping[str, Any]) -> Disk:
    return Disk(
        ref=ref,
        uuid=str(untrusted_record["uuid"]),
        size=int(untrusted_record["virtual_size"]),
        repository=str(untrusted_record["SR"]),
    )


def _remove_marked(server: XenServer, name: str, token: str) -> None:
    for ref in server.call("VDI.get_by_name_label", name):
        if server.call("VDI.get_other_config", ref).get(marks.TOKEN_KEY) == token:
            destroy(server, ref)


def destroy(server: XenServer, ref: str) -> None:
    """Remove a VDI, and what VBDs it has; nothing happens when there is none."""
    try:
        try:
            repositories.perform(server, "", "VDI.destroy", ref)
        except LeaseLost:
            raise
        except Unknown:
            # It may be gone, and if it is not, then once more does no harm.
            repositories.perform(server, "", "VDI.destroy", ref)
    except ObjectGone:
        return


def resize(server: XenServer, disk: Disk, size: int) -> Disk:
    """Make a disk that nobody uses larger, to `size` bytes; gives it as it is then. Refused when it would shrink."""
    if size < disk.size:
        raise Refused("disk_shrink_refused", f"a disk of {disk.size} bytes cannot be made smaller")
    if size > disk.size:
        name = str(server.call("SR.get_name_label", disk.repository))
        repositories.perform(server, name, "VDI.resize", disk.ref, str(size))
    return find(server, disk.ref)


# Attaching


def attach(
    server: XenServer,
    vm: str,
    vdi: str,
    *,
    device: str = AUTODETECT,
    kind: Literal["Disk", "CD"] = "Disk",
    read_only: bool = False,
    bootable: bool = False,
    unpluggable: bool = True,
) -> str:
    """Give a VM (a ref) a VDI (a ref) as a disk, or a disc in a drive of its own; gives the VBD's reference.

    device: its number, as text. A running guest gets a disk at once; a drive it sees at its next boot. Errors of the
    calls, and those of hotplug.plug().
    """
    record = {
        "VM": vm,
        "VDI": vdi,
        "userdevice": device,
        "bootable": bootable,
        "mode": "RO" if read_only or kind == "CD" else "RW",
        "type": kind,
        "unpluggable": unpluggable,
        "empty": False,
        "other_config": {},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
    }
    with Undo() as undo:
        undo.add(f"VBD of {vdi}", lambda: detach(server, vm, vdi))
        vbd = str(server.call("VBD.create", record))
        if kind == "Disk":
            hotplug.plug(server, "VBD", vbd, vm)
    return vbd


def detach(server: XenServer, vm: str, vdi: str) -> None:
    """Take a VDI from a VM; nothing happens when the VM does not have it. Errors as of hotplug.unplug()."""
    try:
        vbds = server.call("VDI.get_VBDs", vdi)
    except ObjectGone:
        return
    for vbd in vbds:
        try:
            if server.call("VBD.get_VM", vbd) == vm:
                hotplug.unplug(server, "VBD", vbd)
                server.call("VBD.destroy", vbd)
        except ObjectGone:
            continue


def attach_root(server: XenServer, vm: str, disk: Disk) -> str:
    """Give a VM its root disk, which it boots from and cannot lose while it runs."""
    return attach(server, vm, disk.ref, device=ROOT_DEVICE, bootable=True, unpluggable=False)


def of_vm(server: XenServer, instance: str, vbds: Iterable[str]) -> list[str]:
    """The VDIs behind a VM's VBDs that belong to its instance (a uuid) and have to go with it.

    Neither volumes nor discs that others put in.
    """
    own = []
    for vbd in vbds:
        vdi = str(server.call("VBD.get_VDI", vbd))
        if vdi != NULL and server.call("VDI.get_other_config", vdi).get(INSTANCE_KEY) == instance:
            own.append(vdi)
    return own


def destroy_all(server: XenServer, refs: Iterable[str]) -> None:
    """Remove VDIs, every one that lets itself be removed. Raises the first error after having tried all."""
    first: Unsuccessful | None = None
    for ref in refs:
        try:
            destroy(server, ref)
        except Unsuccessful as error:
            LOG.error("VDI %s could not be removed: %s", ref, error.code)
            first = first or error
    if first is not None:
        raise first
