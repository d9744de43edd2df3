"""Disks are made, attached, grown and removed, and whatever goes wrong, nothing is left behind."""

from __future__ import annotations

from contextlib import closing

import pytest

from agent_protocol.outcomes import Outcome, Refused
from compute_driver.errors import ObjectGone, StorageFull, StorageNotFound, XenServerFailure
from compute_driver.xenapi.storage import disks, marks, repositories
from compute_driver.xenapi.storage.disks import NewDisk
from compute_driver.xenapi.storage.marks import Purpose

from ..conftest import Wanted
from .support import MIB, FaultyServer, Storage

WAYS = ("refused", "lost", "interrupted")


def new(instance: Wanted | None = None, size: int = 8 * MIB) -> NewDisk:
    return disks.of_instance(instance or Wanted(), Purpose.ROOT, size)


def test_a_disk_says_whose_it_is(storage: Storage) -> None:
    instance = Wanted()
    disk = disks.create(storage.server, storage.repository, new(instance, 8 * MIB - 5))
    record = storage.vdis()[disk.ref]
    assert (disk.uuid, disk.size, disk.repository) == (record["uuid"], 8 * MIB, storage.repository.ref)
    assert (record["name_label"], record["name_description"]) == (f"instance-{instance.uuid} root", "web")
    assert (record["type"], record["sharable"], record["read_only"]) == ("system", False, False)
    found = record["other_config"]
    assert found["xenward:instance"] == instance.uuid
    assert found["xenward:purpose"] == "root"
    assert found["xenward:vdi"] == disk.uuid
    assert marks.is_own(record)
    assert not marks.is_unfinished(record)
    assert disks.find(storage.server, disk.ref) == disk


def test_a_size_that_is_none_is_refused() -> None:
    with pytest.raises(Refused):
        new(size=0)


@pytest.mark.parametrize("way", WAYS)
def test_a_disk_that_is_not_made_to_its_end_is_not_there(storage: Storage, way: str) -> None:
    repository = storage.repository
    with storage.nothing_left():
        for _ in storage.each_call(way, lambda server: disks.create(server, repository, new()), storage.empty):
            assert storage.vdis() == {}


def test_only_what_was_made_is_removed_when_an_answer_is_lost(storage: Storage) -> None:
    instance = Wanted()
    other = storage.vdi(MIB, name_label=new(instance).name, other_config={marks.TOKEN_KEY: "another"})
    list(storage.each_call("lost", lambda server: disks.create(server, storage.repository, new(instance)), lambda: 0))
    assert other in storage.vdis()


def test_a_repository_that_is_full_says_so(storage: Storage) -> None:
    repository = storage.repository
    with pytest.raises(StorageFull) as caught:
        disks.create(storage.server, repository, new(size=repository.free + MIB))
    assert caught.value.code == "storage_full"
    assert repository.name in str(caught.value)
    assert storage.vdis() == {}


def test_what_is_gone_is_destroyed_with_success(storage: Storage) -> None:
    disk = disks.create(storage.server, storage.repository, new())
    disks.destroy(storage.server, disk.ref)
    assert storage.vdis() == {}
    disks.destroy(storage.server, disk.ref)
    with pytest.raises(ObjectGone):
        disks.find(storage.server, disk.ref)


def test_a_destruction_whose_answer_is_lost_is_asked_for_again(storage: Storage) -> None:
    disk = disks.create(storage.server, storage.repository, new())
    with closing(FaultyServer(storage.connection, 1, "lost")) as server:
        disks.destroy(server, disk.ref)
    assert server.methods.count("Async.VDI.destroy") == 2
    assert storage.vdis() == {}


def test_disks_grow_and_never_shrink(storage: Storage) -> None:
    disk = disks.create(storage.server, storage.repository, new())
    larger = disks.resize(storage.server, disk, 16 * MIB)
    assert (larger.ref, larger.size) == (disk.ref, 16 * MIB)
    assert disks.resize(storage.server, larger, 16 * MIB) == larger
    with pytest.raises(Refused) as caught:
        disks.resize(storage.server, larger, 16 * MIB - 1)
    assert caught.value.code == "disk_shrink_refused"
    assert storage.vdis()[disk.ref]["virtual_size"] == str(16 * MIB)


# Attaching


def test_a_root_disk_is_bootable_and_stays_plugged(storage: Storage) -> None:
    instance = Wanted()
    vm = storage.vm(instance.uuid)
    disk = disks.create(storage.server, storage.repository, new(instance))
    vbd = disks.attach_root(storage.server, vm, disk)
    record = storage.server.call("VBD.get_record", vbd)
    assert (record["VM"], record["VDI"], record["userdevice"]) == (vm, disk.ref, "0")
    assert (record["mode"], record["type"], record["bootable"]) == ("RW", "Disk", True)
    assert record["unpluggable"] is False


def test_devices_are_numbered_and_a_taken_one_is_an_error(storage: Storage) -> None:
    vm = storage.vm(Wanted().uuid)
    refs = [disks.create(storage.server, storage.repository, new()).ref for _ in range(3)]
    disks.attach(storage.server, vm, refs[0], device="1")
    second = disks.attach(storage.server, vm, refs[1])
    assert storage.server.call("VBD.get_userdevice", second) == "0"
    with pytest.raises(XenServerFailure) as caught:
        disks.attach(storage.server, vm, refs[2], device="1")
    assert caught.value.details[0] == "DEVICE_ALREADY_EXISTS"
    disks.detach(storage.server, vm, refs[0])
    disks.attach(storage.server, vm, refs[2], device="1")


@pytest.mark.parametrize("way", WAYS)
def test_a_disk_that_is_not_attached_to_its_end_is_not_attached(storage: Storage, way: str) -> None:
    vm = storage.vm(Wanted().uuid)
    disk = disks.create(storage.server, storage.repository, new())
    with storage.nothing_left():
        for _ in storage.each_call(
            way,
            lambda server: disks.attach(server, vm, disk.ref),
            lambda: disks.detach(storage.server, vm, disk.ref),
        ):
            assert storage.server.call("VM.get_VBDs", vm) == []


def test_detaching_leaves_the_disk_and_others_alone(storage: Storage) -> None:
    first, second = storage.vm(Wanted().uuid), storage.vm(Wanted().uuid)
    disk = disks.create(storage.server, storage.repository, new())
    for vm in (first, second):
        disks.attach(storage.server, vm, disk.ref, read_only=True)
    disks.detach(storage.server, first, disk.ref)
    disks.detach(storage.server, first, disk.ref)
    assert storage.server.call("VM.get_VBDs", first) == []
    assert len(storage.server.call("VM.get_VBDs", second)) == 1
    assert disk.ref in storage.vdis()
    disks.detach(storage.server, first, "OpaqueRef:none")


def test_only_an_instances_own_disks_go_with_it(storage: Storage) -> None:
    instance = Wanted()
    vm = storage.vm(instance.uuid)
    root = disks.create(storage.server, storage.repository, new(instance))
    volume = storage.vdi(MIB)
    drive = disks.create(storage.server, storage.repository, disks.of_instance(instance, Purpose.CONFIG_DRIVE, MIB))
    iso = storage.vdi(MIB)
    vbds = [
        disks.attach_root(storage.server, vm, root),
        disks.attach(storage.server, vm, volume),
        disks.attach(storage.server, vm, drive.ref, kind="CD"),
        disks.attach(storage.server, vm, iso, kind="CD"),
    ]
    own = disks.of_vm(storage.server, instance.uuid, vbds)
    assert set(own) == {root.ref, drive.ref}
    disks.destroy_all(storage.server, own)
    assert set(storage.vdis()) == {volume, iso}
    assert disks.of_vm(storage.server, instance.uuid, storage.server.call("VM.get_VBDs", vm)) == []


def test_all_disks_are_tried_before_an_error_is_told(storage: Storage) -> None:
    first = disks.create(storage.server, storage.repository, new())
    second = disks.create(storage.server, storage.repository, new())
    vm = storage.vm(Wanted().uuid)
    disks.attach_root(storage.server, vm, first)
    storage.server.call("VM.start", vm, False, False)
    with pytest.raises(XenServerFailure) as caught:
        disks.destroy_all(storage.server, [first.ref, second.ref])
    assert (caught.value.details[0], caught.value.outcome) == ("VDI_IN_USE", Outcome.BUSY)
    assert set(storage.vdis()) == {first.ref}


# Repositories


def test_the_default_repository_and_one_by_name_or_uuid(storage: Storage) -> None:
    default = storage.repository
    assert repositories.choose(storage.server, default.name) == default
    assert repositories.choose(storage.server, default.uuid) == default
    assert repositories.again(storage.server, default) == default
    with pytest.raises(StorageNotFound, match="none is called"):
        repositories.choose(storage.server, "no such")


def test_without_a_default_repository_there_is_none(storage: Storage) -> None:
    pool = storage.server.call("pool.get_all")[0]
    default = storage.repository
    storage.server.call("pool.set_default_SR", pool, "OpaqueRef:NULL")
    try:
        with pytest.raises(StorageNotFound, match="no default"):
            repositories.choose(storage.server)
    finally:
        storage.server.call("pool.set_default_SR", pool, default.ref)


def test_a_repository_that_is_ambiguous_or_connected_with_no_host_is_refused(storage: Storage) -> None:
    host = storage.server.call("host.get_all")[0]
    made = [
        storage.server.call("SR.create", host, {"location": "/x"}, "0", "twin", "", "file", "user", False, {})
        for _ in range(2)
    ]
    with pytest.raises(StorageNotFound, match="several"):
        repositories.choose(storage.server, "twin")
    uuid = storage.server.call("SR.get_uuid", made[0])
    assert repositories.choose(storage.server, uuid).ref == made[0]
    for sr in made:
        for pbd in storage.server.call("SR.get_PBDs", sr):
            storage.server.call("PBD.unplug", pbd)
    try:
        with pytest.raises(StorageNotFound, match="no host"):
            repositories.choose(storage.server, uuid)
    finally:
        for sr in made:
            storage.server.call("SR.forget", sr)
