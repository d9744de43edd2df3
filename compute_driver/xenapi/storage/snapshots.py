"""Images of instances: a snapshot of the root disk, sent to an image service as it is read."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping

from agent_protocol.outcomes import Refused, Unsuccessful

from ...driver import Instance
from ...errors import ImageCorrupt
from ...fencing import LeaseLost
from ...images import DiskFormat, Image, ImageService, NewImage
from ...images.formats import MAX_VHD
from ..connection.session import XenServer
from ..guests.vms import part_name
from ..undo import Undo
from . import branches, disks
from .disks import Disk, NewDisk
from .marks import Purpose
from .transfers import Transfers, Watch

LOG = logging.getLogger(__name__)


class Snapshots:
    """Makes images of guests. Serves many threads."""

    def __init__(self, server: XenServer, transfers: Transfers, images: ImageService) -> None:
        self._server = server
        self._transfers = transfers
        self._images = images

    def take(
        self,
        instance: Instance,
        vm: str,
        name: str,
        *,
        disk_format: DiskFormat = DiskFormat.VHD,
        properties: Mapping[str, str] | None = None,
        watch: Watch | None = None,
    ) -> Image:
        """An image of the root disk of an instance's VM (a ref), running or not, as of this moment.

        As after a loss of power: what the guest did not write to its disk yet is not in it. disk_format: VHD, which
        leaves out what is empty, or RAW. Raises what Transfers.receive() and the image service do, ImageCorrupt when
        the service has got other bytes than were sent. Without success there is no image; the snapshot is removed in
        any case, or, when XenServer refuses that, left for orphans.py.
        """
        if disk_format not in (DiskFormat.RAW, DiskFormat.VHD):
            raise Refused("snapshot_format", "snapshots are raw or VHD")
        root, root_name = self._root(vm)
        if disk_format is DiskFormat.VHD and root.size > MAX_VHD:
            raise Refused("snapshot_format", "the disk is too large for VHD; take a raw image")
        new = NewDisk(part_name(instance.uuid, "snapshot"), name, root.size, Purpose.SNAPSHOT, instance=instance.uuid)
        copy = branches.snapshot(self._server, root, root_name, new)
        with Undo() as undo:
            undo.add("snapshot", lambda: disks.destroy(self._server, copy.ref))
            kept = NewImage(name, disk_format, -(-root.size // disks.GIB), properties or {})
            image = self._upload(copy, kept, watch or Watch(), undo)
            self._remove(copy)
        return image

    def _root(self, vm: str) -> tuple[Disk, str]:
        for vbd in self._server.call("VM.get_VBDs", vm):
            record = self._server.call("VBD.get_record", vbd)
            if record["userdevice"] in _ROOT_NAMES and record["type"] == "Disk":
                ref = str(record["VDI"])
                return disks.find(self._server, ref), str(self._server.call("VDI.get_name_label", ref))
        raise Refused("no_root_disk", "the guest has no root disk")

    def _upload(self, copy: Disk, new: NewImage, watch: Watch, undo: Undo) -> Image:
        digest = hashlib.sha256()

        def digested(pieces: Iterator[bytes]) -> Iterator[bytes]:
            for piece in pieces:
                digest.update(piece)
                yield piece

        with self._transfers.receive(copy.ref, new.disk_format, copy.size, watch) as pieces:
            image = self._images.store(new, digested(pieces))
            undo.add(f"image {image.id}", lambda: self._images.delete(image.id))
        if image.sha256 not in (None, digest.hexdigest()):
            raise ImageCorrupt(new.name, "the image service has another SHA-256")
        return image

    def _remove(self, copy: Disk) -> None:
        try:
            disks.destroy(self._server, copy.ref)
        except LeaseLost:
            raise
        except Unsuccessful as error:
            # The image, or the error that led here, is what counts; the marks let it be found later.
            LOG.error("snapshot VDI %s could not be removed: %s", copy.uuid, error.code)


_ROOT_NAMES = (disks.ROOT_DEVICE, "hda", "xvda", "sda")
"""The same device under all of its names."""
