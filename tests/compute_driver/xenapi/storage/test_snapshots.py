"""An image of a guest is whole or there is none, and its snapshot is removed in every case."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_protocol.outcomes import Refused, Unsuccessful
from compute_driver.errors import ImageCorrupt, TransferCancelled
from compute_driver.images import DiskFormat, Image, NewImage
from compute_driver.images.directory import ImageDirectory
from compute_driver.xenapi.connection.session import XenServer
from compute_driver.xenapi.storage import disks, orphans
from compute_driver.xenapi.storage.image_cache import ImageCache
from compute_driver.xenapi.storage.marks import Purpose
from compute_driver.xenapi.storage.snapshots import Snapshots
from compute_driver.xenapi.storage.transfers import Transfers, Watch

from ..conftest import Wanted
from .support import MIB, Reader, Storage, noise

SIZE = 8 * MIB
DATA = noise(2 * MIB) + bytes(4 * MIB) + noise(2 * MIB, 5)


@pytest.fixture
def images(tmp_path: Path) -> ImageDirectory:
    return ImageDirectory(tmp_path)


class Guest:
    """A VM with a root disk that holds DATA."""

    def __init__(self, storage: Storage) -> None:
        self.instance = Wanted()
        self.vm = storage.vm(self.instance.uuid)
        new = disks.of_instance(self.instance, Purpose.ROOT, SIZE)
        self.root = disks.create(storage.server, storage.repository, new)
        storage.transfers.send(Reader(DATA), SIZE, self.root.ref, DiskFormat.RAW)
        disks.attach_root(storage.server, self.vm, self.root)


@pytest.fixture
def guest(storage: Storage) -> Guest:
    return Guest(storage)


def is_clean(storage: Storage, guest: Guest) -> bool:
    marks = storage.server.call("VDI.get_other_config", guest.root.ref)
    return set(storage.vdis()) == {guest.root.ref} and not any("branch" in key for key in marks)


@pytest.mark.parametrize("disk_format", [DiskFormat.RAW, DiskFormat.VHD])
def test_an_image_of_a_guest_boots_another_one(
    storage: Storage, guest: Guest, images: ImageDirectory, disk_format: DiskFormat
) -> None:
    storage.server.call("VM.start", guest.vm, False, False)
    seen: list[int] = []
    snapshots = Snapshots(storage.server, storage.transfers, images)
    image = snapshots.take(
        guest.instance,
        guest.vm,
        "backup",
        disk_format=disk_format,
        properties={"os_type": "linux"},
        watch=Watch(lambda done, total: seen.append(done)),
    )
    assert is_clean(storage, guest)
    assert (image.name, image.disk_format, image.min_disk_gb) == ("backup", disk_format, 1)
    assert image.properties == {"os_type": "linux"}
    with image.source.open() as reader:
        data = b"".join(iter(lambda: reader.read(MIB), b""))
    assert (image.size, image.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert seen[-1] == len(data)
    assert (data == DATA) == (disk_format is DiskFormat.RAW)
    cache = ImageCache(storage.server, storage.transfers)
    new = disks.of_instance(Wanted(), Purpose.ROOT, 1024 * MIB)
    disk = cache.root_disk(storage.repository, images.get(image.id), new)
    begin = b""
    with storage.transfers.receive(disk.ref, DiskFormat.RAW, disk.size) as pieces:
        while len(begin) < SIZE:
            begin += next(pieces)
    assert begin[:SIZE] == DATA


def test_a_snapshot_is_of_its_moment(storage: Storage, guest: Guest, images: ImageDirectory) -> None:
    changed = threading.Event()

    def change(done: int, total: int) -> None:
        if not changed.is_set():
            changed.set()
            storage.transfers.send(Reader(bytes(SIZE)), SIZE, guest.root.ref, DiskFormat.RAW)

    snapshots = Snapshots(storage.server, storage.transfers, images)
    image = snapshots.take(guest.instance, guest.vm, "x", disk_format=DiskFormat.RAW, watch=Watch(change))
    assert image.sha256 == hashlib.sha256(DATA).hexdigest()
    assert storage.content(guest.root.ref) == bytes(SIZE)


@pytest.mark.parametrize("way", ["refused", "lost", "interrupted"])
def test_a_snapshot_that_fails_leaves_neither_image_nor_disk(
    storage: Storage, guest: Guest, images: ImageDirectory, tmp_path: Path, way: str
) -> None:
    def operation(server: XenServer) -> None:
        Snapshots(server, Transfers(server), images).take(guest.instance, guest.vm, "x")

    def forget() -> None:
        for path in tmp_path.glob("*.json"):
            images.delete(path.stem)
        # One whose removal was refused is known by its marks.
        for orphan in orphans.find(storage.server, [guest.instance.uuid], grace=-60.0):
            disks.destroy(storage.server, orphan.ref)

    for methods in storage.each_call(way, operation, forget, ["Async.VDI.destroy"]):
        assert list(tmp_path.iterdir()) == [], methods[-3:]
        assert set(storage.vdis()) == {guest.root.ref}, methods[-4:]
    assert is_clean(storage, guest)


@pytest.mark.parametrize("fault", [("cut", {"size": MIB}), ("fail_late", {"error": ["VDI_IO_ERROR", "x"]})])
def test_an_export_that_breaks_leaves_no_image(
    storage: Storage, guest: Guest, images: ImageDirectory, tmp_path: Path, fault: tuple[str, dict[str, object]]
) -> None:
    storage.control.add_rule("export_raw_vdi", fault[0], **fault[1])  # type: ignore[arg-type]
    with pytest.raises(Unsuccessful):
        Snapshots(storage.server, storage.transfers, images).take(guest.instance, guest.vm, "x")
    assert list(tmp_path.iterdir()) == []
    assert is_clean(storage, guest)


def test_a_cancelled_snapshot_leaves_nothing(
    storage: Storage, guest: Guest, images: ImageDirectory, tmp_path: Path
) -> None:
    cancelled = threading.Event()
    watch = Watch(lambda done, total: cancelled.set(), cancelled)
    with pytest.raises(TransferCancelled):
        Snapshots(storage.server, storage.transfers, images).take(guest.instance, guest.vm, "x", watch=watch)
    assert list(tmp_path.iterdir()) == []
    assert is_clean(storage, guest)


class Lossy(ImageDirectory):
    """Keeps other bytes than it was given."""

    def store(self, new: NewImage, pieces: Iterator[bytes]) -> Image:
        return super().store(new, (piece[:-1] + b"x" for piece in pieces))


def test_a_service_that_keeps_other_bytes_is_found_out(storage: Storage, guest: Guest, tmp_path: Path) -> None:
    with pytest.raises(ImageCorrupt):
        Snapshots(storage.server, storage.transfers, Lossy(tmp_path)).take(guest.instance, guest.vm, "x")
    assert list(tmp_path.iterdir()) == []
    assert is_clean(storage, guest)


class Full(ImageDirectory):
    """Gives up after the first piece."""

    def store(self, new: NewImage, pieces: Iterator[bytes]) -> Image:
        next(pieces)
        raise Refused("quota", "too many images")


def test_a_service_that_gives_up_ends_the_export(storage: Storage, guest: Guest, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="too many images"):
        Snapshots(storage.server, storage.transfers, Full(tmp_path)).take(guest.instance, guest.vm, "x")
    assert is_clean(storage, guest)


def test_what_cannot_be_made_is_refused(storage: Storage, guest: Guest, images: ImageDirectory) -> None:
    snapshots = Snapshots(storage.server, storage.transfers, images)
    with pytest.raises(Refused) as caught:
        snapshots.take(guest.instance, guest.vm, "x", disk_format=DiskFormat.QCOW2)
    assert caught.value.code == "snapshot_format"
    with pytest.raises(Refused) as caught:
        snapshots.take(guest.instance, storage.vm(Wanted().uuid), "x")
    assert caught.value.code == "no_root_disk"
