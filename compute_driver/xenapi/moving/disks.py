"""Moving a VM to another host with those of its disks that the host does not see. Volumes are never copied.

XenServer copies disks and gives the copies to the VM (VM.migrate_send). They have other uuids then, and need not bear
what the originals bore in other_config. Discs in drives it does not copy (vdi_filter in xapi_vm_migrate.ml), so that is
done here. What has to be put right afterwards is written into VM.other_config before the first change.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from agent_protocol.outcomes import Busy, Failed, Refused

from ...errors import ObjectGone, StorageFull, StorageNotFound
from ...states import PowerState
from ..connection.session import XenServer
from ..guests import vms
from ..guests.vms import NULL, VM
from ..network.networks import MADE_KEY
from ..parts import Parts
from ..storage import disks, marks, repositories
from ..storage.disks import NewDisk
from ..storage.marks import Purpose
from ..storage.repositories import Repository
from ..storage.volumes import VOLUME_KEY
from ..undo import Undo
from . import sending

MOVE_KEY = "xenward:move"
"""Key in VM.other_config while a VM is moved: what has to be put right afterwards, as JSON."""

_OURS = "xenward:"
"""What our marks begin with."""


class BadMoveNote(Failed):
    """Raise when what VM.other_config says of a move cannot be read."""

    def __init__(self) -> None:
        super().__init__("bad_move_note", f"what VM.other_config says as {MOVE_KEY} cannot be read")


@dataclass(frozen=True)
class Kept:
    """What a disk bears. repository: uuid of the one that it is moved to, empty in another pool."""

    repository: str
    name: str
    description: str
    marks: Mapping[str, str]


@dataclass(frozen=True)
class MoveNote:
    """host: uuid of the one that the VM goes to. disks: those that are copied, by device number.

    discs: by the number of their drive, the uuids of the disc that was in it, and of its copy (empty if none).
    """

    host: str
    disks: Mapping[str, Kept] = field(default_factory=dict)
    discs: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def to_text(self) -> str:
        """As it stands in VM.other_config."""
        told = {device: vars(kept) for device, kept in self.disks.items()}
        return json.dumps({"host": self.host, "disks": told, "discs": dict(self.discs)})

    @classmethod
    def from_text(cls, untrusted_text: str) -> MoveNote:
        """From that. BadMoveNote when somebody changed it."""
        try:
            it = json.loads(untrusted_text)
            kept = {
                str(device): Kept(
                    str(each["repository"]),
                    str(each["name"]),
                    str(each["description"]),
                    {str(key): str(value) for key, value in each["marks"].items() if key.startswith(_OURS)},
                )
                for device, each in it["disks"].items()
            }
            discs = {str(device): (str(before), str(after)) for device, (before, after) in it["discs"].items()}
            return cls(str(it["host"]), kept, discs)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise BadMoveNote from None


@dataclass(frozen=True)
class Plan:
    """What it takes to have a VM at a host. References all.

    disks: every disk of the VM, and the repository that it shall be in; moving: those that are elsewhere, by device
    number. discs: drives whose disc must be copied. volumes: repositories that the host has to be connected with.
    """

    host: str
    disks: Mapping[str, str]
    moving: Mapping[str, str]
    discs: Mapping[str, Repository]
    volumes: tuple[str, ...]

    @property
    def has_storage(self) -> bool:
        """Whether anything has to be copied."""
        return bool(self.moving or self.discs)


# Where things are


def seen_from(server: XenServer, host: str) -> frozenset[str]:
    """The repositories that a host is connected with."""
    pbds = server.call("PBD.get_all_records").values()
    return frozenset(str(pbd["SR"]) for pbd in pbds if pbd["host"] == host and pbd["currently_attached"])


def repositories_at(parts: Parts, host: str) -> list[Repository]:
    """Those at a host that disks can be made in: the one that they usually are made in first, then by free space."""
    server, found = parts.server, []
    for ref in seen_from(server, host):
        record = server.call("SR.get_record", ref)
        if record["content_type"] != "iso" and MADE_KEY not in record["sm_config"]:
            with suppress(StorageNotFound):
                found.append(repositories.choose(server, record["uuid"]))
    with suppress(StorageNotFound):
        usual = repositories.choose(server, parts.repository).ref
        return sorted(found, key=lambda it: (it.ref != usual, -it.free))
    return sorted(found, key=lambda it: -it.free)


def plan(parts: Parts, vm: VM, host: str, home: Mapping[str, str] | None = None) -> Plan:
    """What it takes to have the VM at a host (a ref).

    home: by device number the repository (a ref) where a disk of its own shall be, whatever the host sees. Refused
    (`disk_not_at_node`) when something is not seen there that is no disk of its own; StorageNotFound and StorageFull
    when there is no room for what is.
    """
    server, seen = parts.server, seen_from(parts.server, host)
    stay: dict[str, str] = {}
    moving: dict[str, str] = {}
    volumes: list[str] = []
    drives: dict[str, str | None] = {}
    homeless: list[tuple[str, str, int]] = []
    for ref in vm.vbds:
        vbd = server.call("VBD.get_record", ref)
        if vbd["empty"] or vbd["VDI"] == NULL:
            continue
        vdi = server.call("VDI.get_record", vbd["VDI"])
        device, repository, is_disc = str(vbd["userdevice"]), str(vdi["SR"]), vbd["type"] == "CD"
        is_own = marks.instance_of(vdi) == vm.instance
        wanted = (home or {}).get(device) if is_own else None
        if wanted is None and (repository in seen or not is_own):
            if repository not in seen:
                _assert_connectable(server, vbd, repository)
                volumes.append(repository)
            wanted = repository
        if wanted is None:
            homeless.append((ref, device, int(vdi["virtual_size"])))
        if is_disc:
            if wanted != repository:
                drives[ref] = wanted
            continue
        stay[vbd["VDI"]] = wanted or repository
        if wanted != repository:
            moving[device] = vbd["VDI"]
    room = _room(parts, host, sum(size for _, _, size in homeless)) if homeless else None
    for _, device, _ in homeless:
        if device in moving and room is not None:
            stay[moving[device]] = room.ref
    discs = {ref: _of(server, wanted) if wanted else room for ref, wanted in drives.items()}
    return Plan(host, stay, moving, {ref: it for ref, it in discs.items() if it is not None}, tuple(set(volumes)))


def _of(server: XenServer, ref: str) -> Repository:
    return repositories.choose(server, str(server.call("SR.get_uuid", ref)))


def _assert_connectable(server: XenServer, untrusted_vbd: Mapping[str, Any], repository: str) -> None:
    is_ours = MADE_KEY in server.call("SR.get_sm_config", repository)
    if VOLUME_KEY not in untrusted_vbd["other_config"] or not is_ours:
        what = "volume" if VOLUME_KEY in untrusted_vbd["other_config"] else "disk of others"
        raise Refused("disk_not_at_node", f"the guest has a {what} in storage that the node is not connected with")


def _room(parts: Parts, host: str, size: int) -> Repository:
    found = repositories_at(parts, host)
    if not found:
        raise StorageNotFound("the node has none that disks can be made in")
    for repository in found:
        if repository.free >= size:
            return repository
    raise StorageFull(found[0].name)


# Moving


def move(parts: Parts, vm: VM, it: Plan, *, live: bool) -> VM:
    """Have a running VM at the host, or a halted one where the host can start it; gives the VM as it is then.

    After an error it is where it was; after an Unknown nobody knows, and settle() finds out. Failed with
    `migration_stalled` when XenServer made no progress any more.
    """
    server = parts.server

    def is_there(now: VM) -> bool:
        return now.host == it.host if live else _is_stored(server, now, it)

    with Undo() as undo:
        for repository in it.volumes:
            _connect(parts, repository, it.host, undo)
        if not it.has_storage:
            if live:
                sending.carry_out(server, vm, "VM.pool_migrate", it.host, {}, reached=is_there)
            return vms.again(server, vm)
        note = _note(server, it, _copied_discs(server, vm, it, undo))
        undo.add("what was prepared for a move", lambda: settle(parts, vms.again(server, vm)))
        write(server, vm, MOVE_KEY, note.to_text())
        eject(server, it.discs)
        if it.moving:
            with sending.received(server, it.host) as destination:
                # Networks cannot be mapped within a pool: they are the same at all hosts.
                sending.send(server, vm, destination, live=live, disks=it.disks, networks={}, reached=is_there)
        elif live:
            sending.carry_out(server, vm, "VM.pool_migrate", it.host, {}, reached=is_there)
        return settle(parts, vms.again(server, vm), has_arrived=True)


def _is_stored(server: XenServer, vm: VM, it: Plan) -> bool:
    devices = {vbd["userdevice"]: vbd["VDI"] for vbd in (server.call("VBD.get_record", ref) for ref in vm.vbds)}
    return all(server.call("VDI.get_SR", devices[device]) == it.disks[vdi] for device, vdi in it.moving.items())


def _connect(parts: Parts, repository: str, host: str, undo: Undo) -> None:
    """Connect the repository of a volume with a host as it is connected with another one."""
    volumes = parts.volumes.repositories
    with volumes.turns.of(str(parts.server.call("SR.get_uuid", repository))):
        volumes.extend(repository, host, undo)


def _note(server: XenServer, it: Plan, copies: Mapping[str, tuple[str, str]]) -> MoveNote:
    kept = {}
    for device, vdi in it.moving.items():
        repository = str(server.call("SR.get_uuid", it.disks[vdi]))
        kept[device] = what_it_bears(server, vdi, repository)
    return MoveNote(str(server.call("host.get_uuid", it.host)), kept, copies)


def what_it_bears(server: XenServer, vdi: str, repository: str = "") -> Kept:
    """What its copy has to be given."""
    record = server.call("VDI.get_record", vdi)
    own = {
        key: value
        for key, value in record["other_config"].items()
        if key.startswith(_OURS) and key != marks.OWN_KEY and key not in marks.branches(record["other_config"])
    }
    return Kept(repository, str(record["name_label"]), str(record["name_description"]), own)


def _copied_discs(server: XenServer, vm: VM, it: Plan, undo: Undo) -> dict[str, tuple[str, str]]:
    copies = {}
    for drive, repository in it.discs.items():
        original = str(server.call("VBD.get_VDI", drive))
        record = server.call("VDI.get_record", original)
        new = NewDisk(
            record["name_label"],
            record["name_description"],
            int(record["virtual_size"]),
            Purpose.CONFIG_DRIVE,
            vm.instance,
        )
        copy = disks.create(server, repository, new)
        undo.add(f"disc {copy.uuid}", lambda ref=copy.ref: _drop(server, ref))  # type: ignore[misc]
        repositories.perform(server, repository.name, "VDI.copy", original, NULL, NULL, copy.ref)
        copies[str(server.call("VBD.get_userdevice", drive))] = (str(record["uuid"]), copy.uuid)
    return copies


def _drop(server: XenServer, disc: str) -> None:
    """Remove a copy of a disc, unless it lies in the drive by now."""
    with suppress(ObjectGone):
        if not server.call("VDI.get_VBDs", disc):
            disks.destroy(server, disc)


def eject(server: XenServer, drives: Iterable[str]) -> None:
    """Take the discs out of drives (VBDs)."""
    for drive in drives:
        if not server.call("VBD.get_empty", drive):
            server.call("VBD.eject", drive)


def write(server: XenServer, vm: VM, key: str, text: str) -> None:
    """Have VM.other_config say this, in one step, whatever it said before."""
    now = server.call("VM.get_other_config", vm.ref)
    server.call("VM.set_other_config", vm.ref, {**now, key: text})


# Afterwards


def settle(parts: Parts, vm: VM, *, has_arrived: bool | None = None) -> VM:
    """Put right what a move left, wherever it was interrupted; nothing happens when there was none. Gives the VM then.

    The disks that the VM has bear its marks afterwards, and its drives have the discs that can be seen there.
    has_arrived: None to find out. Busy (`instance_moving`) while XenServer is still at it; BadMoveNote.
    """
    if MOVE_KEY not in vm.other_config:
        return vm
    if sending.is_under_way(vm):
        raise Busy("instance_moving", "XenServer is still moving the guest")
    server, note = parts.server, MoveNote.from_text(vm.other_config[MOVE_KEY])
    drives = {}
    is_stored = True
    for ref in vm.vbds:
        vbd = server.call("VBD.get_record", ref)
        drives[vbd["userdevice"]] = ref
        if vbd["userdevice"] in note.disks:
            is_stored &= _claim(server, vm, str(vbd["VDI"]), note.disks[vbd["userdevice"]])
    if has_arrived is None:
        has_arrived = is_stored and bool(note.disks)
        if vm.power_state is not PowerState.SHUTDOWN and vm.host != NULL:
            has_arrived = is_stored and server.call("host.get_uuid", vm.host) == note.host
    for device, (before, after) in note.discs.items():
        if device in drives:
            _insert(server, drives[device], *((after, before) if has_arrived else (before, after)))
    server.call("VM.remove_from_other_config", vm.ref, MOVE_KEY)
    return vms.again(server, vm)


def _claim(server: XenServer, vm: VM, vdi: str, kept: Kept) -> bool:
    """Give a disk the marks that it should have; whether it is where it was to go."""
    record = server.call("VDI.get_record", vdi)
    if not marks.is_own(record) or marks.instance_of(record) != vm.instance:
        server.call("VDI.set_name_label", vdi, kept.name)
        server.call("VDI.set_name_description", vdi, kept.description)
        owned = {**record["other_config"], **kept.marks, marks.OWN_KEY: record["uuid"]}
        server.call("VDI.set_other_config", vdi, owned)
    return not kept.repository or server.call("SR.get_uuid", record["SR"]) == kept.repository


def _insert(server: XenServer, drive: str, wanted: str, other: str) -> None:
    """Have one disc (a uuid) in a drive, and the other one nowhere."""
    disc, unused = _by_uuid(server, wanted), _by_uuid(server, other)
    if disc is None:
        return
    if server.call("VBD.get_VDI", drive) == unused:
        eject(server, [drive])
    if server.call("VBD.get_empty", drive):
        server.call("VBD.insert", drive, disc)
    if unused is not None:
        disks.destroy(server, unused)


def _by_uuid(server: XenServer, uuid: str) -> str | None:
    try:
        return str(server.call("VDI.get_by_uuid", uuid)) if uuid else None
    except ObjectGone:
        return None
