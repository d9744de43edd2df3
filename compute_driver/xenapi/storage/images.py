"""Images into VDIs: checked before, while and after they travel, and never half there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

from agent_protocol.outcomes import Refused, Unsuccessful

from ...errors import ImageCorrupt, ImageTooLarge
from ...images import DiskFormat, Image, ImageReader
from ...images.formats import HEAD, check_vhd_end, disk_size
from ..connection.session import XenServer
from ..undo import Undo
from . import disks, marks
from .disks import Disk, NewDisk
from .repositories import Repository
from .transfers import Transfers, Watch


class _Checked:
    """An image that is read from its first byte, with what is needed to judge it in the end."""

    def __init__(self, reader: ImageReader, size: int) -> None:
        self._reader = reader
        self._digest = hashlib.sha256()
        self.size: int | None = size
        self.head = self._read_head()
        self._held = self.head
        self._end = b""

    def _read_head(self) -> bytes:
        head = b""
        while len(head) < HEAD:
            piece = self._reader.read(HEAD - len(head))
            if not piece:
                break
            head += piece
        return head

    def read(self, size: int, /) -> bytes:
        piece, self._held = self._held[:size], self._held[size:]
        if not piece:
            piece = self._reader.read(size)
        self._digest.update(piece)
        self._end = (self._end + piece[-HEAD:])[-HEAD:]
        return piece

    def verify(self, image: Image) -> None:
        """ImageCorrupt unless what was read is what the image says it is."""
        if image.sha256 is not None and self._digest.hexdigest() != image.sha256:
            raise ImageCorrupt(image.name, "its SHA-256 is another one")
        if image.disk_format is DiskFormat.VHD:
            try:
                check_vhd_end(self.head, self._end, self.size or 0)
            except Unsuccessful as error:
                raise ImageCorrupt(image.name, error.message) from None


def load(
    server: XenServer,
    transfers: Transfers,
    repository: Repository,
    image: Image,
    new: NewDisk,
    *,
    largest: int | None = None,
    watch: Watch | None = None,
    made: Callable[[Disk], None] | None = None,
) -> Disk:
    """A new disk with the image's content; the size that `new` names does not count.

    largest: bytes that the image's disk may have: ImageTooLarge otherwise, before XenServer is asked for anything.
    made: called with the disk while it is still empty; what it raises ends everything. Raises what image sources and
    Transfers.send() do, Refused for an image that cannot be used, ImageCorrupt when the bytes that came are not those
    of the image, StorageFull. No disk is left in any of these cases.
    """
    with image.source.open() as reader:
        checked = _Checked(reader, _size(image, reader))
        assert checked.size is not None
        size = disk_size(image.disk_format, checked.head, checked.size)
        if largest is not None and size > largest:
            raise ImageTooLarge(image.name, size, largest)
        repository.assert_room(checked.size)
        with Undo() as undo:
            sized = replace(new, size=size, marks={**new.marks, marks.SIZE_KEY: str(size)})
            disk = disks.create(server, repository, sized)
            undo.add(f"disk of image {image.id}", lambda: disks.destroy(server, disk.ref))
            if made is not None:
                made(disk)
            transfers.send(checked, checked.size, disk.ref, image.disk_format, watch)
            checked.verify(image)
    return disk


def _size(image: Image, reader: ImageReader) -> int:
    if image.size is not None and reader.size is not None and image.size != reader.size:
        raise ImageCorrupt(image.name, f"it has {reader.size} bytes instead of {image.size}")
    size = image.size if image.size is not None else reader.size
    if size is None:
        # Without it, an end of the bytes could not be told from a broken connection.
        raise Refused("image_size_unknown", f"nobody says how many bytes image {image.name!r} has")
    return size
