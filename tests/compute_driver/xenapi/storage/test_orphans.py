"""What a crash left behind is found and removed; what belongs to anybody is not touched."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from compute_driver.images import DiskFormat
from compute_driver.xenapi.connection.session import XenServer
from compute_driver.xenapi.storage import branches, disks, marks, orphans, transfer_tasks
from compute_driver.xenapi.storage.disks import Disk
from compute_driver.xenapi.storage.image_cache import ImageCache
from compute_driver.xenapi.storage.marks import Purpose

from ..conftest import Wanted
from .support import MIB, FaultyServer, Storage, image_of, noise

DATA = noise(MIB)
NOW = -60.0
"""As grace: also what was made this minute."""


def made(storage: Storage, purpose: Purpose = Purpose.ROOT, instance: Wanted | None = None) -> Disk:
    new = disks.of_instance(instance or Wanted(), purpose, MIB)
    return disks.create(storage.server, storage.repository, new)


def found(storage: Storage, *instances: str, grace: float = NOW) -> set[str]:
    return {each.ref for each in orphans.find(storage.server, instances, grace=grace)}


@pytest.mark.parametrize("purpose", [Purpose.ROOT, Purpose.EPHEMERAL, Purpose.SWAP, Purpose.CONFIG_DRIVE])
def test_a_disk_of_no_instance_is_an_orphan_after_a_while(storage: Storage, purpose: Purpose) -> None:
    instance = Wanted()
    disk = made(storage, purpose, instance)
    (orphan,) = orphans.find(storage.server, [], grace=NOW)
    assert (orphan.ref, orphan.uuid, orphan.purpose) == (disk.ref, disk.uuid, str(purpose))
    assert (orphan.instance, orphan.size) == (instance.uuid, disk.size)
    assert found(storage, grace=orphans.GRACE) == set()
    assert found(storage, instance.uuid) == set()


def test_disks_of_instances_are_none_while_nobody_knows_all_instances(storage: Storage) -> None:
    made(storage)
    abandoned = made(storage, Purpose.SNAPSHOT)
    assert [each.ref for each in orphans.find(storage.server, grace=NOW)] == [abandoned.ref]
    assert [each.ref for each in orphans.find(storage.server)] == []


def test_what_a_vm_has_is_no_orphan(storage: Storage) -> None:
    vm = storage.vm(Wanted().uuid)
    disk = made(storage)
    disks.attach_root(storage.server, vm, disk)
    assert found(storage) == set()


def test_what_others_made_is_no_orphan(storage: Storage) -> None:
    disk = made(storage)
    storage.vdi(MIB)
    for method in ("VDI.copy", "VDI.clone", "VDI.snapshot"):
        arguments = [storage.repository.ref] if method == "VDI.copy" else []
        storage.server.call(method, disk.ref, *arguments)
    assert len(storage.vdis()) == 5
    assert found(storage) == {disk.ref}


def test_a_ready_image_is_no_orphan_and_a_dead_import_is(storage: Storage) -> None:
    cache = ImageCache(storage.server, storage.transfers)
    ready = cache.obtain(storage.repository, image_of(DATA), MIB)
    assert found(storage) == set()
    storage.server.call("VDI.remove_from_other_config", ready.ref, marks.STATE_KEY)
    storage.server.call("VDI.add_to_other_config", ready.ref, marks.STATE_KEY, marks.IMPORTING)
    assert found(storage) == {ready.ref}
    assert found(storage, grace=orphans.GRACE) == set()


def dying(storage: Storage, monkeypatch: pytest.MonkeyPatch, fail_at: str) -> FaultyServer:
    """A process that ends when it makes a certain call, and undoes nothing."""
    monkeypatch.setattr(disks, "destroy", lambda server, ref: None)
    server = FaultyServer(storage.connection, 0, "interrupted")
    real = server.call

    def call(method: str, *arguments: object, timeout: float | None = None) -> object:
        value = real(method, *arguments, timeout=timeout)
        if method == fail_at:
            raise KeyboardInterrupt
        return value

    monkeypatch.setattr(server, "call", call)
    return server


@pytest.mark.parametrize("fail_at", ["Async.VDI.create", "VDI.add_to_other_config"])
def test_a_crash_while_a_disk_is_made_leaves_an_orphan(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, fail_at: str
) -> None:
    new = disks.of_instance(Wanted(), Purpose.ROOT, MIB)
    with closing(dying(storage, monkeypatch, fail_at)) as server, pytest.raises(KeyboardInterrupt):
        disks.create(server, storage.repository, new)
    settle(storage.server)
    monkeypatch.undo()
    assert found(storage) == set(storage.vdis())
    assert len(found(storage)) == 1
    assert found(storage, grace=orphans.GRACE) == set()


def test_a_crash_while_a_disk_is_cloned_leaves_an_orphan(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    image = image_of(DATA)
    cached = ImageCache(storage.server, storage.transfers).obtain(storage.repository, image, MIB)
    new = disks.of_instance(Wanted(), Purpose.ROOT, MIB)
    with (
        closing(dying(storage, monkeypatch, "Async.VDI.clone")) as server,
        pytest.raises(KeyboardInterrupt),
    ):
        ImageCache(server, storage.transfers).root_disk(storage.repository, image, new)
    settle(storage.server)
    monkeypatch.undo()
    assert found(storage) == set(storage.vdis()) - {cached.ref}
    assert len(found(storage)) == 1
    assert found(storage, grace=orphans.GRACE) == set()


def test_a_crash_while_a_snapshot_is_made_leaves_an_orphan(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = made(storage)
    record = storage.vdis()[disk.ref]
    new = disks.NewDisk("snapshot", "", MIB, Purpose.SNAPSHOT, marks.instance_of(record))
    with closing(dying(storage, monkeypatch, "Async.VDI.snapshot")) as server, pytest.raises(KeyboardInterrupt):
        branches.snapshot(server, disk, record["name_label"], new)
    settle(storage.server)
    monkeypatch.undo()
    assert found(storage, marks.instance_of(record)) == set(storage.vdis()) - {disk.ref}


def test_transfers_whose_process_died_are_ended(storage: Storage) -> None:
    disk, other = made(storage, Purpose.SNAPSHOT), made(storage)
    tasks = {
        ref: storage.server.call("task.create", label(ref), "mark")
        for label in (transfer_tasks.import_label, transfer_tasks.export_label)
        for ref in (disk.ref, other.ref)
    }
    ended = storage.server.call("task.create", transfer_tasks.import_label(disk.ref), "mark")
    storage.server.call("task.set_status", ended, "success")
    left = [each for each in orphans.find(storage.server, grace=NOW) if each.ref == disk.ref]
    assert orphans.remove(storage.server, left) == left
    remaining = storage.server.call("task.get_all")
    assert disk.ref not in storage.vdis()
    assert storage.server.call("task.get_by_name_label", transfer_tasks.import_label(disk.ref)) == []
    assert storage.server.call("task.get_by_name_label", transfer_tasks.export_label(disk.ref)) == []
    # Somebody may be working on the other one.
    assert tasks[other.ref] in remaining
    assert storage.server.call("task.get_status", tasks[other.ref]) == "pending"
    storage.server.call("task.set_status", tasks[other.ref], "cancelled")


def test_copies_of_a_disk_that_kept_a_mark_of_ours_are_not_ours(storage: Storage) -> None:
    disk = made(storage)
    instance = marks.instance_of(storage.vdis()[disk.ref])
    long_ago = str(int(time.time()) - 7200)
    storage.server.call("VDI.add_to_other_config", disk.ref, marks.branch_key("x"), long_ago)
    for method in ("VDI.clone", "VDI.snapshot"):
        storage.server.call(method, disk.ref)
    assert len(storage.vdis()) == 3
    assert found(storage, instance) == set()


def settle(server: XenServer) -> None:
    """Until XenServer has done what it was asked for."""
    deadline = time.monotonic() + 20.0
    while any(task["status"] == "pending" for task in server.call("task.get_all_records").values()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_orphans_are_removed_unless_somebody_took_them_meanwhile(storage: Storage) -> None:
    first, second, third = made(storage), made(storage), made(storage)
    listed = orphans.find(storage.server, [], grace=NOW)
    disks.attach_root(storage.server, storage.vm(Wanted().uuid), first)
    storage.server.call("VDI.destroy", third.ref)
    storage.control.add_rule("VDI.destroy", "fail", error=["SR_BACKEND_FAILURE_110", "", "", ""], first=1)
    assert orphans.remove(storage.server, [each for each in listed if each.ref == second.ref]) == []
    gone = orphans.remove(storage.server, listed)
    assert second.ref in {each.ref for each in gone}
    assert set(storage.vdis()) == {first.ref}


def test_a_snapshot_that_nobody_reads_is_an_orphan(storage: Storage) -> None:
    disk = made(storage)
    instance = marks.instance_of(storage.vdis()[disk.ref])
    name = storage.vdis()[disk.ref]["name_label"]
    new = disks.NewDisk("snapshot", "", MIB, Purpose.SNAPSHOT, instance)
    copy = branches.snapshot(storage.server, disk, name, new)
    assert found(storage, instance) == {copy.ref}
    assert found(storage, instance, grace=orphans.GRACE) == set()
    with storage.transfers.receive(copy.ref, DiskFormat.RAW, copy.size) as pieces:
        next(pieces)
