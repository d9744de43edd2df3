"""Images that are in the pool already: a VDI for each image and repository, of which root disks are clones.

An image travels once. Marks on its VDI (marks.py) tell other processes that it is on its way, or ready; a maker that
did not show for a while is taken for dead, and its VDI removed. Should two processes begin at the same instant, the
later one sees the other's VDI, drops its own and waits.
"""

from __future__ import annotations

import logging
import time
import uuid as uuids
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from agent_protocol.outcomes import Busy, Unsuccessful

from ...errors import ImageTooLarge, ObjectGone, XenServerFailure
from ...images import Image
from ..connection.session import XenServer
from ..turns import Turns
from ..undo import Undo
from . import branches, disks, marks
from .disks import Disk, NewDisk
from .images import load
from .marks import Purpose
from .repositories import Repository
from .transfers import Transfers, Watch

LOG = logging.getLogger(__name__)

STALE_AFTER = 900.0
"""Seconds without a sign of life after which the maker of a cached image is taken for dead."""

HEARTBEAT = 60.0
"""Seconds from one sign of life to the next."""

USE_STEP = 3600.0
"""Seconds that a use is not noted after the last one: a mark less to change with each spawn."""

_LOOK_UP = 2.0
"""Seconds that one wait lasts at most, so that who waits without need ends soon."""


@dataclass(frozen=True)
class _Cached:
    disk: Disk
    marks: Mapping[str, str]

    @property
    def is_ready(self) -> bool:
        return self.marks.get(marks.STATE_KEY) == marks.READY and self.marks.get(marks.OWN_KEY) == self.disk.uuid

    @property
    def seen(self) -> float:
        return marks.moment(self.marks.get(marks.TIME_KEY))

    @property
    def age(self) -> tuple[float, str]:
        """What orders them: the oldest counts when there are several."""
        return marks.moment(self.marks.get(marks.MADE_KEY)), self.disk.uuid


class ImageCache:
    """The cached images of a pool. Serves many threads.

    stale_after: seconds after which somebody else's import that shows no life is taken over.
    """

    def __init__(self, server: XenServer, transfers: Transfers, *, stale_after: float = STALE_AFTER) -> None:
        self._server = server
        self._transfers = transfers
        self._stale_after = stale_after
        self._maker = str(uuids.uuid4())
        self._turns = Turns()

    def root_disk(
        self, repository: Repository, image: Image, new: NewDisk, *, grow: bool = True, watch: Watch | None = None
    ) -> Disk:
        """A disk with the image's content and of the size that `new` says: a clone, for which no image data moves.

        grow: whether it is made as large as `new` says; otherwise that is only what the image's disk must not exceed.
        Errors as of images.load(); nothing is left but, if it got so far, the cached image.
        """
        if grow and image.min_disk_gb * disks.GIB > new.size:
            raise ImageTooLarge(image.name, image.min_disk_gb * disks.GIB, new.size)
        watch = watch or Watch()
        try:
            return self._clone(repository, image, new, grow, watch)
        except ObjectGone:
            # Somebody evicted it in this very moment.
            return self._clone(repository, image, new, grow, watch)

    def _clone(self, repository: Repository, image: Image, new: NewDisk, grow: bool, watch: Watch) -> Disk:
        cached = self.obtain(repository, image, new.size, watch)
        with Undo() as undo:
            disk = branches.clone(self._server, repository, cached, _name(image), new, watch.cancelled)
            undo.add(f"disk {new.name}", lambda: disks.destroy(self._server, disk.ref))
            if grow and new.size > disk.size:
                disk = disks.resize(self._server, disk, new.size)
        return disk

    def obtain(self, repository: Repository, image: Image, largest: int, watch: Watch | None = None) -> Disk:
        """The cached disk of an image in a repository, which is imported when there is none. largest: bytes."""
        watch = watch or Watch()
        with self._turn(f"{repository.uuid} {image.id} {image.sha256}", watch):
            patience: dict[tuple[str, float], float] = {}
            while True:
                watch.check()
                found = self._oldest(repository, image)
                if found is None:
                    disk = self._import(repository, image, largest, watch)
                    if disk is not None:
                        return disk
                elif found.is_ready:
                    self._assert_fits(image, found, largest)
                    self._note_use(found)
                    return found.disk
                elif self._is_stale(found, patience):
                    self._take_over(found)
                else:
                    self._await_change(found)

    @contextmanager
    def _turn(self, key: str, watch: Watch) -> Iterator[None]:
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(self._turns.of(key, _LOOK_UP))
                except Busy:
                    watch.check()
                else:
                    break
            yield

    # Looking

    def _oldest(self, repository: Repository, image: Image) -> _Cached | None:
        found = self._find(repository, image)
        ready = [it for it in found if it.is_ready]
        return min(ready or found, key=lambda it: it.age, default=None)

    def _find(self, repository: Repository, image: Image) -> list[_Cached]:
        found = []
        for ref in self._server.call("VDI.get_by_name_label", _name(image)):
            try:
                record = self._server.call("VDI.get_record", ref)
            except ObjectGone:
                continue
            wanted = {marks.IMAGE_KEY: image.id, marks.DIGEST_KEY: image.sha256 or ""}
            if record["SR"] == repository.ref and _is_cached(record, wanted):
                found.append(_Cached(disks.find(self._server, ref), record["other_config"]))
        return found

    @staticmethod
    def _assert_fits(image: Image, cached: _Cached, largest: int) -> None:
        size = int(cached.marks.get(marks.SIZE_KEY, cached.disk.size))
        if size > largest:
            raise ImageTooLarge(image.name, size, largest)

    # Waiting for others

    def _is_stale(self, cached: _Cached, patience: dict[tuple[str, float], float]) -> bool:
        # By our own clock as well: the other's may be wrong.
        since = patience.setdefault((cached.disk.ref, cached.seen), time.monotonic())
        return time.time() - cached.seen > self._stale_after or time.monotonic() - since > self._stale_after

    def _take_over(self, cached: _Cached) -> None:
        LOG.warning("VDI %s: its import is given up, as its maker shows no life", cached.disk.uuid)
        try:
            disks.destroy(self._server, cached.disk.ref)
        except XenServerFailure as failure:
            if failure.details[0] != "VDI_IN_USE":
                raise
            # Something still writes to it.
            self._await_change(cached)

    def _await_change(self, cached: _Cached) -> None:
        def has_changed(untrusted_record: Mapping[str, Any]) -> bool:
            return dict(untrusted_record["other_config"]) != dict(cached.marks)

        with suppress(ObjectGone):
            self._server.events.wait_for("VDI", cached.disk.ref, has_changed, _LOOK_UP)

    # Importing

    def _import(self, repository: Repository, image: Image, largest: int, watch: Watch) -> Disk | None:
        """The disk, or None when somebody else turned out to have begun before us."""
        new = NewDisk(
            _name(image),
            image.name,
            1,
            Purpose.IMAGE,
            marks={
                marks.IMAGE_KEY: image.id,
                marks.DIGEST_KEY: image.sha256 or "",
                marks.STATE_KEY: marks.IMPORTING,
                marks.MAKER_KEY: self._maker,
                marks.TIME_KEY: marks.now(),
            },
        )
        pulse = _Pulse(self._server, watch)

        def made(disk: Disk) -> None:
            pulse.disk = disk
            oldest = self._oldest(repository, image)
            if oldest is not None and oldest.disk.ref != disk.ref and not self._is_stale(oldest, {}):
                raise _OutrunError

        try:
            with Undo() as undo:
                disk = load(
                    self._server,
                    self._transfers,
                    repository,
                    image,
                    new,
                    largest=largest,
                    watch=replace(watch, progress=pulse.progress),
                    made=made,
                )
                undo.add(f"cached image {image.id}", lambda: disks.destroy(self._server, disk.ref))
                self._server.call("VDI.remove_from_other_config", disk.ref, marks.STATE_KEY)
                self._server.call("VDI.add_to_other_config", disk.ref, marks.STATE_KEY, marks.READY)
        except _OutrunError:
            return None
        return disk

    def _note_use(self, cached: _Cached) -> None:
        if time.time() - cached.seen > USE_STEP:
            _set(self._server, cached.disk.ref, marks.TIME_KEY, marks.now())

    # Eviction

    def evict(self, repository: Repository, unused_for: float) -> list[str]:
        """Remove the cached images of a repository that nobody used for so many seconds; gives their ids.

        Uses are noted once an hour. Guests' disks do not depend on them: a repository keeps what clones share.
        """
        evicted = []
        for ref in self._server.call("SR.get_VDIs", repository.ref):
            try:
                record = self._server.call("VDI.get_record", ref)
                if not _is_cached(record, {marks.STATE_KEY: marks.READY}) or not marks.is_own(record):
                    continue
                if time.time() - marks.moment(record["other_config"].get(marks.TIME_KEY)) > unused_for:
                    disks.destroy(self._server, ref)
                    evicted.append(str(record["other_config"][marks.IMAGE_KEY]))
            except ObjectGone:
                continue
            except XenServerFailure as failure:
                if failure.details[0] not in ("VDI_IN_USE", "OTHER_OPERATION_IN_PROGRESS"):
                    raise
        return evicted


class _OutrunError(Exception):
    """Somebody else imports the same image."""


class _Pulse:
    """Signs of life of an import, and its progress."""

    def __init__(self, server: XenServer, watch: Watch) -> None:
        self._server = server
        self._watch = watch
        self._last = time.monotonic()
        self.disk: Disk | None = None

    def progress(self, done: int, total: int) -> None:
        self._watch.progress(done, total)
        if self.disk is not None and time.monotonic() - self._last > HEARTBEAT:
            self._last = time.monotonic()
            with suppress(Unsuccessful):
                _set(self._server, self.disk.ref, marks.TIME_KEY, marks.now())


def _set(server: XenServer, vdi: str, key: str, value: str) -> None:
    server.call("VDI.remove_from_other_config", vdi, key)
    try:
        server.call("VDI.add_to_other_config", vdi, key, value)
    except XenServerFailure as failure:
        # Another process did it in between.
        if failure.details[0] != "MAP_DUPLICATE_KEY":
            raise


def _name(image: Image) -> str:
    return f"image {image.id}"


def _is_cached(untrusted_record: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    """Whether a VDI is a cached image or becomes one, and not a clone or snapshot of such."""
    found = untrusted_record["other_config"]
    return (
        found.get(marks.PURPOSE_KEY) == Purpose.IMAGE
        and all(found.get(key) == value for key, value in wanted.items())
        and not untrusted_record["is_a_snapshot"]
        and found.get(marks.OWN_KEY, untrusted_record["uuid"]) == untrusted_record["uuid"]
    )
