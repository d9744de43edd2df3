"""A simulated pool of two hosts with storage of their own besides what they share, and guests to be moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from agent_protocol.outcomes import Unsuccessful
from compute_driver.images import DiskFormat
from compute_driver.states import PowerState
from compute_driver.xenapi.guests.vms import NULL
from compute_driver.xenapi.storage import marks
from tests.contract import faults
from tests.contract.faults import AGENTLESS, Bench, Operation, Row, Steps, Wanted

from ..storage.support import Reader

MIB = 1024**2
GIB = 1024**3
DRIVE = {"openstack/latest/meta_data.json": b'{"uuid": "here"}'}


class Pair:
    """A pool of two nodes. here, there: their names. local: their own storage repositories, by node."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.driver, self.server, self.control = bench.driver, bench.server, bench.control
        self.here, self.there = self.driver.get_available_nodes()
        self.guests: list[Wanted] = []
        self.local: dict[str, str] = {}
        for pbd in self.server.call("PBD.get_all_records").values():
            if not self.server.call("SR.get_shared", pbd["SR"]):
                self.local[self.server.call("host.get_hostname", pbd["host"])] = pbd["SR"]
        self.shared: str = self.server.call("pool.get_default_SR", self.server.call("pool.get_all")[0])

    def empty(self) -> None:
        """Remove all guests, and see that nothing is left."""
        self.control.clear_rules()
        while self.guests:
            self.driver.destroy(self.guests.pop())
        try:
            self.bench.assert_nothing_left()
        finally:
            # One bad test must not spoil the next.
            self.control.mark()

    @contextmanager
    def disks_at(self, node: str | None) -> Iterator[None]:
        """New disks are made in a node's own storage meanwhile."""
        before = self.driver._parts
        if node is not None:
            uuid = self.server.call("SR.get_uuid", self.local[node])
            self.driver._parts = replace(before, repository=uuid)
        try:
            yield
        finally:
            self.driver._parts = before

    def guest(self, *, local: bool = False, running: bool = True, image: Any = AGENTLESS, **more: Any) -> Wanted:
        """A guest at the first node. local: with its disks in that node's own storage, and a config drive."""
        instance = Wanted()
        self.guests.append(instance)
        drive = DRIVE if local else None
        with self.disks_at(self.here if local else None):
            self.driver.spawn(
                instance,
                image=image,
                config_drive=drive,
                node=self.here,
                power_on=running,
                progress=Steps(),
                **more,
            )
        return instance

    def node(self, instance: Wanted) -> str | None:
        host = self.bench.vm(instance).host
        return None if host == NULL else str(self.server.call("host.get_hostname", host))

    def sizes(self, instance: Wanted) -> tuple[int, int, int]:
        """MiB of memory, processors, GiB of the root disk."""
        record = self.server.call("VM.get_record", self.bench.vm(instance).ref)
        limits = {int(record[f"memory_{name}"]) for name in ("static_max", "dynamic_max", "dynamic_min")}
        (memory,) = limits
        assert record["VCPUs_max"] == record["VCPUs_at_startup"]
        size = int(self.server.call("VDI.get_virtual_size", self.bench.disks(instance)["0"]))
        return memory // MIB, int(record["VCPUs_max"]), size // GIB

    def places(self, instance: Wanted) -> dict[str, str]:
        """Where its disks are: a node's name, or `shared`. All of them bear their marks."""
        names = {self.shared: "shared", **{sr: node for node, sr in self.local.items()}}
        found = {}
        for device, vdi in self.bench.disks(instance).items():
            if vdi == NULL:
                # An empty drive.
                continue
            record = self.server.call("VDI.get_record", vdi)
            assert marks.is_own(record)
            assert marks.instance_of(record) == instance.uuid
            assert record["name_label"] == f"instance-{instance.uuid} {record['other_config'][marks.PURPOSE_KEY]}"
            found[device] = names[record["SR"]]
        return found

    def write(self, instance: Wanted, data: bytes) -> None:
        """What a guest writes at the beginning of its disk. It is off."""
        root = self.bench.disks(instance)["0"]
        self.driver._parts.transfers.send(Reader(data, len(data)), len(data), root, DiskFormat.RAW)

    def read(self, instance: Wanted, count: int) -> bytes:
        root = self.bench.disks(instance)["0"]
        size = int(self.server.call("VDI.get_virtual_size", root))
        content = b""
        with self.driver._parts.transfers.receive(root, DiskFormat.RAW, size) as pieces:
            for piece in pieces:
                content += piece[: count - len(content)]
        return content

    def notes(self, instance: Wanted) -> set[str]:
        """What VM.other_config says besides whose VM it is."""
        return set(self.bench.vm(instance).other_config) - {"mac_seed", "xenward:instance"}


@contextmanager
def pair(*arguments: str) -> Iterator[Pair]:
    """A fresh one, in which the images are already, in all of its repositories."""
    with faults.bench("--hosts", "2", *arguments) as bench:
        it = Pair(bench)
        instance = it.guest(local=True, running=False)
        it.driver.destroy(instance)
        it.control.mark()
        yield it


def running_at(it: Pair, instance: Wanted, node: str) -> None:
    assert it.bench.state(instance) is PowerState.RUNNING
    assert it.node(instance) == node


def each_fault(
    it: Pair,
    prepare: Callable[[], Wanted],
    run: Callable[[Wanted], object],
    check: Callable[[Wanted, Unsuccessful | None], None],
    *,
    fault: str,
) -> list[Row]:
    """A row for each call that changes something; the guest that check() leaves is removed."""

    def ended(bench: Bench, instance: Wanted, error: Unsuccessful | None) -> None:
        check(instance, error)
        bench.driver.destroy(instance)

    operation = Operation("", lambda bench: prepare(), lambda bench, instance: run(instance), ended)
    calls = [each for each in faults.calls_of(it.bench, operation) if ".get_" not in each[0]]
    assert calls
    rows = [faults._try(it.bench, operation, fault, name, number) for name, number in calls]
    for row in rows:
        print(row)
    return rows


def wrong(rows: list[Row]) -> list[str]:
    return [str(row) for row in rows if row.wrong or row.left]
