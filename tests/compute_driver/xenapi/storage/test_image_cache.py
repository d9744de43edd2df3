"""An image travels into the pool once; root disks are clones of it, and nothing half-made is ever used or left."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from agent_protocol.outcomes import Refused, Unsuccessful
from compute_driver.errors import (
    ImageCorrupt,
    ImageTooLarge,
    StorageFull,
    TransferCancelled,
    TransferFailed,
    XenServerFailure,
)
from compute_driver.images import DiskFormat, Image
from compute_driver.xenapi.connection.session import XenServer
from compute_driver.xenapi.storage import disks, image_cache, marks, repositories
from compute_driver.xenapi.storage.disks import Disk
from compute_driver.xenapi.storage.image_cache import ImageCache
from compute_driver.xenapi.storage.marks import Purpose
from compute_driver.xenapi.storage.transfers import Transfers, Watch

from ..conftest import Wanted
from .support import MIB, Bytes, Storage, image_of, noise, vhd_of

SIZE = 8 * MIB
DATA = noise(3 * MIB) + bytes(5 * MIB)


@pytest.fixture
def cache(storage: Storage) -> ImageCache:
    return ImageCache(storage.server, storage.transfers)


def spawn(
    storage: Storage, cache: ImageCache, image: Image, size: int = 2 * SIZE, watch: Watch | None = None, **more: Any
) -> Disk:
    new = disks.of_instance(Wanted(), Purpose.ROOT, size)
    return cache.root_disk(storage.repository, image, new, watch=watch, **more)


def cached(storage: Storage) -> list[dict[str, Any]]:
    return [each for each in storage.vdis().values() if each["other_config"].get(marks.PURPOSE_KEY) == Purpose.IMAGE]


@pytest.mark.parametrize("disk_format", [DiskFormat.RAW, DiskFormat.VHD])
def test_the_second_instance_moves_no_bytes(storage: Storage, cache: ImageCache, disk_format: DiskFormat) -> None:
    data = DATA if disk_format is DiskFormat.RAW else vhd_of(DATA)
    image = image_of(data, disk_format)
    first = spawn(storage, cache, image)
    assert storage.transfers.bytes_sent == len(data)
    second = spawn(storage, cache, image)
    assert storage.transfers.bytes_sent == len(data)
    assert isinstance(image.source, Bytes)
    assert image.source.opened == 1
    assert len(cached(storage)) == 1
    for disk in (first, second):
        assert disk.size == 2 * SIZE
        assert storage.content(disk.ref) == DATA + bytes(SIZE)


def test_a_root_disk_has_marks_of_its_own(storage: Storage, cache: ImageCache) -> None:
    disk = spawn(storage, cache, image_of(DATA))
    record = storage.vdis()[disk.ref]
    assert record["name_label"].endswith(" root")
    found = record["other_config"]
    assert set(found) == {"xenward:instance", "xenward:purpose", "xenward:made", "xenward:vdi"}
    assert found["xenward:vdi"] == disk.uuid
    (image,) = cached(storage)
    assert marks.is_own(image)
    assert image["other_config"]["xenward:image_state"] == "ready"
    assert not marks.branches(image["other_config"])


def test_another_process_finds_it_too(storage: Storage, cache: ImageCache) -> None:
    image = image_of(DATA)
    spawn(storage, cache, image)
    sent = storage.transfers.bytes_sent
    spawn(storage, ImageCache(storage.server, storage.transfers), image)
    assert storage.transfers.bytes_sent == sent


def test_other_bytes_under_the_same_id_are_another_image(storage: Storage, cache: ImageCache) -> None:
    spawn(storage, cache, image_of(DATA, id="same"))
    other = noise(SIZE, 7)
    disk = spawn(storage, cache, image_of(other, id="same"), SIZE)
    assert storage.content(disk.ref) == other
    assert len(cached(storage)) == 2


def test_two_spawns_at_once_move_it_once(storage: Storage, cache: ImageCache) -> None:
    run_together(storage, [cache, cache])


def test_two_processes_at_once_move_it_once(storage: Storage) -> None:
    caches = [ImageCache(XenServer(storage.connection), storage.transfers) for _ in range(2)]
    run_together(storage, caches)
    for each in caches:
        each._server.close()


def run_together(storage: Storage, caches: list[ImageCache]) -> None:
    """The second begins while the first one's bytes are on their way."""
    image = image_of(DATA)
    half, finish = threading.Event(), threading.Event()

    def progress(done: int, total: int) -> None:
        if done > total // 4:
            half.set()
            assert finish.wait(20)

    made: list[object] = []

    def run(cache: ImageCache, watch: Watch | None) -> None:
        try:
            made.append(spawn(storage, cache, image, watch=watch))
        except BaseException as error:
            made.append(error)

    first = threading.Thread(target=run, args=(caches[0], Watch(progress)))
    second = threading.Thread(target=run, args=(caches[1], None))
    first.start()
    assert half.wait(20)
    second.start()
    # It waits: nothing that it could do without the first one.
    second.join(0.3)
    assert second.is_alive()
    finish.set()
    first.join(30)
    second.join(30)
    assert [type(each) for each in made] == [Disk, Disk]
    assert storage.transfers.bytes_sent == len(DATA)
    assert len(cached(storage)) == 1


def test_a_maker_that_shows_no_life_is_taken_over(storage: Storage, cache: ImageCache) -> None:
    image = image_of(DATA)
    dead = half_made(storage, image, str(int(time.time() - image_cache.STALE_AFTER - 10)))
    disk = spawn(storage, cache, image)
    assert dead not in storage.vdis()
    assert storage.content(disk.ref)[:SIZE] == DATA


def half_made(storage: Storage, image: Image, seen: str) -> str:
    found = {
        marks.PURPOSE_KEY: "image",
        marks.IMAGE_KEY: image.id,
        marks.DIGEST_KEY: image.sha256 or "",
        marks.STATE_KEY: marks.IMPORTING,
        marks.MAKER_KEY: "somebody",
        marks.MADE_KEY: seen,
        marks.TIME_KEY: seen,
    }
    return storage.vdi(SIZE, name_label=f"image {image.id}", other_config=found)


def test_a_maker_whose_clock_is_ahead_is_taken_over_too(storage: Storage) -> None:
    image = image_of(DATA)
    dead = half_made(storage, image, str(int(time.time() + 9999)))
    impatient = ImageCache(storage.server, storage.transfers, stale_after=0.2)
    spawn(storage, impatient, image)
    assert dead not in storage.vdis()


def test_who_waits_for_a_living_maker_can_be_cancelled(storage: Storage, cache: ImageCache) -> None:
    image = image_of(DATA)
    living = half_made(storage, image, marks.now())
    watch = Watch()
    threading.Timer(0.2, watch.cancelled.set).start()
    with pytest.raises(TransferCancelled):
        spawn(storage, cache, image, watch=watch)
    assert set(storage.vdis()) == {living}
    assert storage.transfers.bytes_sent == 0


def test_somebodys_copy_of_a_cached_image_is_not_used(storage: Storage, cache: ImageCache) -> None:
    image = image_of(DATA)
    original = cache.obtain(storage.repository, image, SIZE)
    copy = storage.server.call("VDI.copy", original.ref, storage.repository.ref)
    storage.server.call("VDI.destroy", original.ref)
    spawn(storage, cache, image)
    assert storage.transfers.bytes_sent == 2 * len(DATA)
    assert copy in storage.vdis()


# Sizes


def test_an_image_larger_than_the_root_disk_is_refused_before_anything_moves(
    storage: Storage, cache: ImageCache
) -> None:
    for image in (image_of(DATA), image_of(vhd_of(DATA), DiskFormat.VHD), image_of(DATA[:MIB], min_disk_gb=1)):
        with pytest.raises(ImageTooLarge):
            spawn(storage, cache, image, SIZE - 512)
    assert storage.transfers.bytes_sent == 0
    assert storage.vdis() == {}


def test_a_cached_image_larger_than_the_root_disk_is_refused(storage: Storage, cache: ImageCache) -> None:
    image = image_of(DATA[: SIZE - 512])
    spawn(storage, cache, image, SIZE - 512)
    with pytest.raises(ImageTooLarge):
        spawn(storage, cache, image, SIZE - 1024)
    assert len(storage.vdis()) == 2


def test_a_disk_need_not_grow(storage: Storage, cache: ImageCache) -> None:
    disk = spawn(storage, cache, image_of(DATA, min_disk_gb=1), 1024 * MIB, grow=False)
    assert disk.size == SIZE


def test_an_image_of_unknown_size_is_refused(storage: Storage, cache: ImageCache) -> None:
    with pytest.raises(Refused) as caught:
        spawn(storage, cache, image_of(DATA, source=Bytes(DATA, size=None)))
    assert caught.value.code == "image_size_unknown"
    spawn(storage, cache, image_of(DATA, source=Bytes(DATA, size=None), size=len(DATA)))


# Bytes that are not the image's


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (image_of(DATA, sha256="0" * 64), ImageCorrupt),
        (image_of(DATA, source=Bytes(DATA[:-1])), ImageCorrupt),
        (image_of(DATA, size=SIZE + 1), ImageCorrupt),
        (image_of(DATA, source=Bytes(DATA[:-1], size=SIZE)), TransferFailed),
        (image_of(vhd_of(DATA)[:-512], DiskFormat.VHD), Unsuccessful),
        (image_of(vhd_of(DATA)[512:], DiskFormat.VHD), Unsuccessful),
        (image_of(DATA + bytes(511), DiskFormat.VHD), Refused),
        (image_of(DATA + bytes(512), DiskFormat.VHD), Unsuccessful),
        (image_of(DATA, DiskFormat.QCOW2), Refused),
    ],
)
def test_a_bad_image_is_never_visible_and_leaves_nothing(
    storage: Storage, cache: ImageCache, image: Image, error: type[Unsuccessful]
) -> None:
    states: list[str] = []

    def progress(done: int, total: int) -> None:
        states.extend(each["other_config"][marks.STATE_KEY] for each in cached(storage))

    with pytest.raises(error):
        spawn(storage, cache, image, watch=Watch(progress))
    assert set(states) <= {"importing"}
    assert storage.vdis() == {}


# What goes wrong


@pytest.mark.parametrize("way", ["refused", "lost", "interrupted"])
def test_a_spawn_that_fails_leaves_no_more_than_a_good_image(storage: Storage, way: str) -> None:
    image, small = image_of(DATA[:MIB]), 8 * MIB
    repository = storage.repository

    def operation(server: XenServer) -> None:
        cache = ImageCache(server, Transfers(server))
        cache.root_disk(repository, image, disks.of_instance(Wanted(), Purpose.ROOT, small))

    for methods in storage.each_call(way, operation, storage.empty):
        for record in storage.vdis().values():
            found = record["other_config"]
            assert found.get(marks.STATE_KEY) == marks.READY, methods[-3:]
            assert marks.is_own(record), methods[-3:]
        storage.empty()


def test_a_cut_import_leaves_nothing(storage: Storage, cache: ImageCache) -> None:
    storage.control.add_rule("import_raw_vdi", "cut", size=MIB)
    with pytest.raises(Unsuccessful):
        spawn(storage, cache, image_of(DATA))
    assert storage.vdis() == {}
    storage.control.clear_rules()
    spawn(storage, cache, image_of(DATA))


def test_a_repository_without_room_is_told_before_anything_moves(storage: Storage, cache: ImageCache) -> None:
    repository = storage.repository
    full = repositories.Repository(repository.ref, repository.uuid, repository.name, SIZE - 1, True)
    with pytest.raises(StorageFull):
        cache.root_disk(full, image_of(DATA), disks.of_instance(Wanted(), Purpose.ROOT, SIZE))
    assert storage.transfers.bytes_sent == 0
    assert storage.vdis() == {}


def test_a_repository_that_cannot_clone_gets_a_copy(storage: Storage, cache: ImageCache) -> None:
    repository = storage.repository
    plain = repositories.Repository(repository.ref, repository.uuid, repository.name, repository.free, False)
    storage.control.log_calls()
    disk = cache.root_disk(plain, image_of(DATA), disks.of_instance(Wanted(), Purpose.ROOT, 2 * SIZE))
    assert storage.content(disk.ref) == DATA + bytes(SIZE)
    assert marks.is_own(storage.vdis()[disk.ref])
    assert storage.transfers.bytes_sent == len(DATA)


def test_a_clone_that_turns_out_to_be_unsupported_becomes_a_copy(storage: Storage, cache: ImageCache) -> None:
    storage.control.add_rule("VDI.clone", "fail", error=["SR_OPERATION_NOT_SUPPORTED", storage.repository.ref])
    disk = spawn(storage, cache, image_of(DATA))
    assert storage.content(disk.ref) == DATA + bytes(SIZE)
    assert len(storage.vdis()) == 2


# Eviction


def test_images_that_nobody_uses_are_evicted_and_clones_stay(storage: Storage, cache: ImageCache) -> None:
    image = image_of(DATA)
    disk = spawn(storage, cache, image)
    assert cache.evict(storage.repository, 3600.0) == []
    (ref,) = [ref for ref, each in storage.vdis().items() if each["other_config"].get(marks.STATE_KEY)]
    age(storage, ref, 7200)
    assert cache.evict(storage.repository, 8000.0) == []
    assert cache.evict(storage.repository, 7000.0) == [image.id]
    assert set(storage.vdis()) == {disk.ref}
    assert storage.content(disk.ref) == DATA + bytes(SIZE)


def age(storage: Storage, vdi: str, seconds: float) -> None:
    storage.server.call("VDI.remove_from_other_config", vdi, marks.TIME_KEY)
    storage.server.call("VDI.add_to_other_config", vdi, marks.TIME_KEY, str(int(time.time() - seconds)))


def test_a_use_keeps_an_image(storage: Storage, cache: ImageCache) -> None:
    image = image_of(DATA)
    original = cache.obtain(storage.repository, image, SIZE)
    age(storage, original.ref, 7200)
    spawn(storage, cache, image)
    assert cache.evict(storage.repository, 7000.0) == []


def test_what_is_on_its_way_or_others_made_is_not_evicted(storage: Storage, cache: ImageCache) -> None:
    image = image_of(DATA)
    half = half_made(storage, image_of(DATA), "1")
    original = cache.obtain(storage.repository, image, SIZE)
    age(storage, original.ref, 9999)
    copy = storage.server.call("VDI.copy", original.ref, storage.repository.ref)
    assert cache.evict(storage.repository, 7000.0) == [image.id]
    assert set(storage.vdis()) == {half, copy}


def test_an_eviction_in_the_same_moment_is_made_good(
    storage: Storage, cache: ImageCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = image_of(DATA)
    real = ImageCache.obtain

    def evicted(self: ImageCache, *arguments: Any, **named: Any) -> Disk:
        disk = real(self, *arguments, **named)
        storage.server.call("VDI.destroy", disk.ref)
        monkeypatch.setattr(ImageCache, "obtain", real)
        return disk

    monkeypatch.setattr(ImageCache, "obtain", evicted)
    disk = spawn(storage, cache, image)
    assert storage.content(disk.ref)[:SIZE] == DATA


def test_an_error_of_xenserver_is_told_as_it_is(storage: Storage, cache: ImageCache) -> None:
    storage.control.add_rule("VDI.clone", "fail", error=["SR_BACKEND_FAILURE_44", "", "full", ""])
    with pytest.raises(StorageFull):
        spawn(storage, cache, image_of(DATA))
    storage.control.clear_rules()
    storage.control.add_rule("VDI.resize", "fail", error=["SR_BACKEND_FAILURE_110", "", "x", ""])
    with pytest.raises(XenServerFailure):
        spawn(storage, cache, image_of(DATA))
    assert all(each["other_config"][marks.PURPOSE_KEY] == "image" for each in storage.vdis().values())
