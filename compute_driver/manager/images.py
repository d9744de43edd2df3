"""Copies of guests: snapshots, and guests that hold still for them."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from agent_protocol.outcomes import Unsuccessful, Unsupported

from ..context import RequestContext
from ..images import Image, ImageService, NewImage
from . import operations
from .turns import Operations

LOG = logging.getLogger(__name__)

DEFAULT_FREEZE = 60.0
"""Seconds after which a guest thaws by itself."""


class _Under:
    """An image service that stores under an id that was written down beforehand."""

    def __init__(self, image_id: str, service: ImageService) -> None:
        self.image_id = image_id
        self._service = service
        self.get = service.get
        self.delete = service.delete

    def store(self, new: NewImage, pieces: Iterator[bytes]) -> Image:
        """As in ImageService."""
        return self._service.store(replace(new, id=self.image_id), pieces)


class ImageOperations(Operations):
    """Each is recorded as an action of its own name."""

    def snapshot_instance(
        self, context: RequestContext, target: str, *, name: str, disk_format: str = "vhd"
    ) -> dict[str, Any]:
        """Store a copy of the root disk as an image (action `snapshot`); gives its id, size and SHA-256."""
        if self._images is None:
            raise Unsupported("no_image_service", "this service has no image service")
        with self._turn(context, target, operations.SNAPSHOT) as turn:
            kept = _Under(str(uuid.uuid4()), self._images)
            self._note(turn, kept.image_id)
            image = self._driver.snapshot(
                turn.instance, service=kept, name=name, disk_format=disk_format, progress=turn.audit
            )
        return {
            "id": image.id,
            "name": image.name,
            "disk_format": str(image.disk_format),
            "size": image.size,
            "sha256": image.sha256,
        }

    def quiesce_instance(self, context: RequestContext, target: str, *, timeout: float = DEFAULT_FREEZE) -> None:
        """Freeze the guest's file systems for at most `timeout` seconds (action `quiesce`)."""
        with self._turn(context, target, operations.QUIESCE) as turn:
            self._driver.quiesce(turn.instance, timeout=timeout)

    def unquiesce_instance(self, context: RequestContext, target: str) -> None:
        """Thaw them (action `unquiesce`)."""
        with self._turn(context, target, operations.UNQUIESCE) as turn:
            self._driver.unquiesce(turn.instance)

    def remove_abandoned(self, older_than: float) -> None:
        """Have half-made disks and copies removed that nobody worked on for so many seconds, as a crash leaves them.

        What goes wrong is logged.
        """
        try:
            for disk in self._driver.remove_abandoned(older_than=older_than):
                LOG.warning("host %s: disk %s was left half made, and is removed", self.host, disk)
        except Unsuccessful as error:
            LOG.warning("host %s: half-made disks could not be looked for: %s", self.host, error)

    def manage_image_cache(self, unused_for: float) -> None:
        """Have images removed that no guest was made from for so many seconds. What goes wrong is logged."""
        try:
            for image in self._driver.manage_image_cache(unused_for=unused_for):
                LOG.info("host %s: image %s was not used for long, and is not cached any more", self.host, image)
        except Unsuccessful as error:
            LOG.warning("host %s: cached images could not be looked through: %s", self.host, error)
