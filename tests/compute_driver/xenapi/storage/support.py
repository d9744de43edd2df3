"""A simulated pool to make disks in, images for it, and calls that go wrong in turn."""

from __future__ import annotations

import hashlib
import io
import random
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from agent_protocol.outcomes import Unsuccessful
from compute_driver.errors import XenServerAnswerLost, XenServerFailure, XenServerUnreachable
from compute_driver.images import DiskFormat, Image
from compute_driver.xenapi.connection.session import Connection, XenServer
from compute_driver.xenapi.storage import repositories
from compute_driver.xenapi.storage.repositories import Repository
from compute_driver.xenapi.storage.transfers import Transfers
from tools.simulator.control import Control
from tools.simulator.formats.vhd import BLOCK
from tools.simulator.formats.vhd_writer import write_vhd
from tools.simulator.process import SimulatorProcess

from ..waiting import vm_record

MIB = 1024**2

OPTIONS = ["--no-agent", "--login-failure-delay", "0"]

MAY_FAIL = frozenset(
    {"task.destroy", "task.cancel", "task.get_record", "task.get_all_records", "VDI.remove_from_other_config"}
)
"""Calls whose failure need not fail an operation: they tidy up, or are asked again."""


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes that look like any."""
    return random.Random(seed).randbytes(size)


def vhd_of(data: bytes) -> bytes:
    """A dynamic VHD file of a disk with this content; blocks of zeros are left out."""
    blocks = [number for number in range(-(-len(data) // BLOCK)) if any(data[number * BLOCK : (number + 1) * BLOCK])]
    return b"".join(write_vhd(len(data), blocks, lambda at, size: data[at : at + size], uuid.uuid4()))


class Bytes:
    """An image source whose bytes are at hand. opened: how often it was read."""

    digest_required = False

    def __init__(self, data: bytes, *, size: int | None = -1) -> None:
        self._data = data
        self._size = len(data) if size == -1 else size
        self.opened = 0

    @contextmanager
    def open(self) -> Iterator[Reader]:
        self.opened += 1
        yield Reader(self._data, self._size)


class Reader:
    """before: called before each read, with the position."""

    def __init__(self, data: bytes, size: int | None = None, before: Callable[[int], None] = lambda at: None) -> None:
        self._file = io.BytesIO(data)
        self._before = before
        self.size = size

    def read(self, size: int, /) -> bytes:
        self._before(self._file.tell())
        # Like a network, it gives less than it is asked for.
        return self._file.read(min(size, 300_000))


def image_of(data: bytes, disk_format: DiskFormat = DiskFormat.RAW, **members: Any) -> Image:
    """An image with these bytes and their SHA-256."""
    members = {"sha256": hashlib.sha256(data).hexdigest(), "source": Bytes(data), **members}
    return Image(id=members.pop("id", f"i{uuid.uuid4()}"), name="an image", disk_format=disk_format, **members)


class FaultyServer(XenServer):
    """fail_at: the number of the call that goes wrong, from 1. way: `refused`, without effect; or `lost` or
    `interrupted`, with it."""

    def __init__(self, connection: Connection, fail_at: int, way: str) -> None:
        super().__init__(connection)
        self.fail_at = fail_at
        self.way = way
        self.methods: list[str] = []

    def call(self, method: str, *arguments: Any, timeout: float | None = None) -> Any:
        self.methods.append(method)
        failing = len(self.methods) == self.fail_at
        if failing and self.way == "refused":
            raise XenServerFailure(["SOME_FAILURE", "x"])
        value = super().call(method, *arguments, timeout=timeout)
        if failing and self.way == "interrupted":
            raise KeyboardInterrupt
        if failing:
            raise XenServerUnreachable("xen", "gone") if ".get_" in method else XenServerAnswerLost(method)
        return value


class Storage:
    """A pool and what is in it."""

    def __init__(self, simulator: SimulatorProcess) -> None:
        self.simulator = simulator
        self.connection = Connection(simulator.url, simulator.username, simulator.password)
        self.server = XenServer(self.connection)
        self.transfers = Transfers(self.server, stall_timeout=20.0)

    @property
    def control(self) -> Control:
        return self.simulator.control

    @property
    def repository(self) -> Repository:
        return repositories.choose(self.server)

    def vdis(self) -> dict[str, dict[str, Any]]:
        """Records of the VDIs, without what clones have in common."""
        records = self.server.call("VDI.get_all_records")
        return {ref: record for ref, record in records.items() if record["managed"]}

    def vdi(self, size: int, **fields: Any) -> str:
        """A VDI that somebody else made."""
        record = {"name_label": "other", "SR": self.repository.ref, "virtual_size": str(size), "type": "user"}
        flags = {"sharable": False, "read_only": False, "other_config": {}}
        return str(self.server.call("VDI.create", {**record, **flags, **fields}))

    def content(self, vdi: str) -> bytes:
        """All bytes of a VDI."""
        size = int(self.server.call("VDI.get_virtual_size", vdi))
        with self.transfers.receive(vdi, DiskFormat.RAW, size) as pieces:
            return b"".join(pieces)

    def vm(self, instance: str) -> str:
        """A halted VM without devices."""
        return str(self.server.call("VM.create", vm_record(f"instance-{instance}")))

    def inventory(self) -> dict[str, set[str]]:
        """What there is, by class."""
        return {cls: set(self.server.call(f"{cls}.get_all")) for cls in ("VDI", "VBD", "VM")}

    @contextmanager
    def nothing_left(self) -> Iterator[None]:
        """That the block makes nothing which is still there at its end."""
        before = self.inventory()
        yield
        after = self.inventory()
        assert {cls: len(after[cls] - before[cls]) for cls in after} == dict.fromkeys(after, 0)

    def empty(self) -> None:
        """Remove everything, and all rules."""
        self.control.clear_rules()
        for ref, record in self.server.call("VM.get_all_records").items():
            if not record["is_control_domain"] and not record["is_a_template"]:
                if record["power_state"] != "Halted":
                    self.server.call("VM.hard_shutdown", ref)
                self.server.call("VM.destroy", ref)
        for ref in self.vdis():
            self.server.call("VDI.destroy", ref)

    def each_call(
        self,
        way: str,
        operation: Callable[[XenServer], object],
        undo: Callable[[], object],
        may_fail: Collection[str] = (),
    ) -> Iterator[list[str]]:
        """Runs an operation with its first, second, … call going wrong, until it makes so many calls no more.

        What is left after an error is for the caller to look at; what a success left, `undo` removes.
        """
        for number in range(1, 150):
            server = FaultyServer(self.connection, number, way)
            try:
                operation(server)
            except (Unsuccessful, KeyboardInterrupt):
                yield server.methods
                continue
            finally:
                server.fail_at = 0
                server.close()
            undo()
            if len(server.methods) < number:
                assert number > 2
                return
            failed = server.methods[number - 1]
            assert failed in {*MAY_FAIL, *may_fail}, f"call {number}, {failed}, {way}: taken for a success"
        raise AssertionError("an operation without end")
