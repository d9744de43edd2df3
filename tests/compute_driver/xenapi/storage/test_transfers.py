"""Bytes of disks go in and come out as they are, or there is an honest error and nothing holds the disk any more."""

from __future__ import annotations

import hashlib
import threading
from contextlib import closing

import pytest

from agent_protocol.outcomes import Unsupported
from compute_driver.errors import ImageUnavailable, TransferCancelled, TransferFailed, XenServerFailure
from compute_driver.images import DiskFormat
from compute_driver.xenapi.connection.session import Connection, XenServer
from compute_driver.xenapi.storage import transfers as module
from compute_driver.xenapi.storage.transfers import Transfers, Watch
from tools.simulator.process import SimulatorProcess

from .support import MIB, OPTIONS, Reader, Storage, noise, vhd_of

SIZE = 8 * MIB
DATA = noise(3 * MIB + 512) + bytes(4 * MIB) + noise(1 * MIB - 512, 2)


def send(storage: Storage, vdi: str, data: bytes, disk_format: DiskFormat = DiskFormat.RAW) -> None:
    storage.transfers.send(Reader(data), len(data), vdi, disk_format)


def is_free(storage: Storage, vdi: str) -> bool:
    return not storage.server.call("VDI.get_VBDs", vdi) and not storage.server.call("task.get_all")


@pytest.mark.parametrize("disk_format", [DiskFormat.RAW, DiskFormat.VHD])
def test_what_goes_in_comes_out(storage: Storage, disk_format: DiskFormat) -> None:
    vdi = storage.vdi(SIZE)
    data = DATA if disk_format is DiskFormat.RAW else vhd_of(DATA)
    reported: list[tuple[int, int]] = []
    watch = Watch(lambda done, total: reported.append((done, total)))
    storage.transfers.send(Reader(data), len(data), vdi, disk_format, watch)
    assert storage.transfers.bytes_sent == len(data)
    assert reported[-1] == (len(data), len(data))
    assert reported == sorted(reported)
    assert is_free(storage, vdi)
    assert hashlib.sha256(storage.content(vdi)).digest() == hashlib.sha256(DATA).digest()
    assert is_free(storage, vdi)


def test_a_vhd_that_came_out_goes_in_elsewhere(storage: Storage) -> None:
    first, second = storage.vdi(SIZE), storage.vdi(SIZE)
    send(storage, first, DATA)
    with storage.transfers.receive(first, DiskFormat.VHD, SIZE) as pieces:
        exported = b"".join(pieces)
    # The block in the middle is all zero, and not in it.
    assert len(exported) < SIZE
    assert storage.transfers.bytes_received == len(exported)
    send(storage, second, exported, DiskFormat.VHD)
    assert storage.content(second) == DATA


# What the image is to blame for


def test_an_image_that_ends_early_or_late_fails(storage: Storage) -> None:
    vdi = storage.vdi(SIZE)
    with pytest.raises(TransferFailed, match=f"ended after {SIZE - 1} of {SIZE} bytes"):
        storage.transfers.send(Reader(DATA[:-1]), SIZE, vdi, DiskFormat.RAW)
    assert is_free(storage, vdi)
    with pytest.raises(TransferFailed, match=f"more than its {SIZE} bytes"):
        storage.transfers.send(Reader(DATA + b"x"), SIZE, vdi, DiskFormat.RAW)
    assert is_free(storage, vdi)


def test_an_error_of_the_source_passes_through(storage: Storage) -> None:
    vdi = storage.vdi(SIZE)

    def fail(position: int) -> None:
        if position > MIB:
            raise ImageUnavailable("x", "gone")

    with pytest.raises(ImageUnavailable):
        storage.transfers.send(Reader(DATA, None, fail), SIZE, vdi, DiskFormat.RAW)
    assert is_free(storage, vdi)


def test_an_image_that_is_larger_than_its_disk_fails(storage: Storage) -> None:
    vdi = storage.vdi(4 * MIB)
    with pytest.raises((XenServerFailure, TransferFailed)):
        send(storage, vdi, DATA)
    assert is_free(storage, vdi)


def test_a_format_that_the_host_does_not_take_is_unsupported(storage: Storage) -> None:
    vdi = storage.vdi(SIZE)
    with pytest.raises((Unsupported, XenServerFailure)):
        send(storage, vdi, DATA, DiskFormat.QCOW2)
    assert storage.transfers.bytes_sent == 0
    assert is_free(storage, vdi)


# What XenServer is to blame for


def test_a_task_that_fails_at_the_end_fails_it_although_all_bytes_went(storage: Storage) -> None:
    vdi = storage.vdi(SIZE)
    storage.control.add_rule("import_raw_vdi", "fail_late", error=["VDI_IO_ERROR", "Device I/O errors"])
    with pytest.raises(XenServerFailure) as caught:
        send(storage, vdi, DATA)
    assert caught.value.details[0] == "VDI_IO_ERROR"
    assert storage.transfers.bytes_sent == SIZE
    assert is_free(storage, vdi)


@pytest.mark.parametrize("size", [0, 100, 5 * MIB])
def test_a_connection_that_is_cut_fails_the_import(storage: Storage, size: int) -> None:
    vdi = storage.vdi(SIZE)
    storage.control.add_rule("import_raw_vdi", "cut", size=size)
    with pytest.raises((TransferFailed, XenServerFailure)):
        send(storage, vdi, DATA)
    assert is_free(storage, vdi)


def test_a_request_that_is_dropped_fails(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compute_driver.xenapi.storage.transfer_tasks.NEWS_TIMEOUT", 0.3)
    monkeypatch.setattr("compute_driver.xenapi.storage.transfer_tasks.UNTOUCHED_TIMEOUT", 0.3)
    vdi = storage.vdi(SIZE)
    storage.control.add_rule("import_raw_vdi", "drop_before")
    with pytest.raises(TransferFailed, match="did not answer"):
        send(storage, vdi, DATA)
    assert storage.transfers.bytes_sent == 0
    assert is_free(storage, vdi)


@pytest.mark.parametrize("disk_format", [DiskFormat.RAW, DiskFormat.VHD])
@pytest.mark.parametrize("size", [0, 100, 3 * MIB])
def test_an_export_that_is_cut_never_looks_whole(storage: Storage, disk_format: DiskFormat, size: int) -> None:
    vdi = storage.vdi(SIZE)
    send(storage, vdi, DATA)
    storage.control.add_rule("export_raw_vdi", "cut", size=size)
    got = 0
    with (
        pytest.raises((TransferFailed, XenServerFailure)),
        storage.transfers.receive(vdi, disk_format, SIZE) as pieces,
    ):
        for piece in pieces:
            got += len(piece)
    assert got <= size
    assert is_free(storage, vdi)


def test_an_export_whose_task_fails_at_the_end_fails(storage: Storage) -> None:
    vdi = storage.vdi(SIZE)
    storage.control.add_rule("export_raw_vdi", "fail_late", error=["VDI_IO_ERROR", "Device I/O errors"])
    with (
        pytest.raises(XenServerFailure, match="VDI_IO_ERROR"),
        storage.transfers.receive(vdi, DiskFormat.RAW, SIZE) as pieces,
    ):
        for _ in pieces:
            pass
    assert is_free(storage, vdi)


@pytest.mark.parametrize("size", [SIZE - 512, SIZE + 512])
def test_a_raw_export_of_another_size_fails_though_its_task_succeeds(storage: Storage, size: int) -> None:
    vdi = storage.vdi(SIZE)
    with (
        pytest.raises(TransferFailed, match=f"{SIZE} of {size} bytes came"),
        storage.transfers.receive(vdi, DiskFormat.RAW, size) as pieces,
    ):
        for _ in pieces:
            pass


def test_a_vhd_without_its_end_fails_though_its_task_succeeds() -> None:
    data = vhd_of(DATA)
    with pytest.raises(TransferFailed, match="does not end as a VHD"):
        Transfers._check_whole(DiskFormat.VHD, SIZE, len(data) - 512, data[:512], data[-1024:-512])


# Who does not want it any more


def test_a_cancelled_import_ends_and_lets_go_of_the_disk(storage: Storage) -> None:
    vdi = storage.vdi(SIZE)
    watch = Watch()

    def cancel(position: int) -> None:
        if position > MIB:
            watch.cancelled.set()

    with pytest.raises(TransferCancelled):
        storage.transfers.send(Reader(DATA, None, cancel), SIZE, vdi, DiskFormat.RAW, watch)
    assert storage.transfers.bytes_sent < SIZE
    assert is_free(storage, vdi)


def test_an_import_is_cancelled_while_xenserver_takes_nothing(storage: Storage) -> None:
    # More than what the sockets between us hold.
    data = bytes(24 * MIB)
    vdi = storage.vdi(len(data))
    storage.control.add_rule("import_raw_vdi", "throttle", size=1000)
    watch = Watch()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            storage.transfers.send(Reader(data), len(data), vdi, DiskFormat.RAW, watch)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while not storage.transfers.bytes_sent:
        assert thread.is_alive()
        thread.join(0.01)
    watch.cancelled.set()
    thread.join(30)
    storage.control.clear_rules()
    assert not thread.is_alive()
    assert [type(error) for error in errors] == [TransferCancelled]
    assert is_free(storage, vdi)


def test_an_export_that_nobody_reads_to_its_end_is_ended(storage: Storage) -> None:
    vdi = storage.vdi(SIZE)
    storage.control.add_rule("export_raw_vdi", "throttle", size=MIB)
    with storage.transfers.receive(vdi, DiskFormat.RAW, SIZE) as pieces:
        next(pieces)
    assert is_free(storage, vdi)


def test_a_task_that_somebody_cancels_in_xenserver_fails_it(storage: Storage) -> None:
    vdi = storage.vdi(SIZE)
    watch = Watch(lambda done, total: None)

    def cancel(position: int) -> None:
        if position > MIB:
            for task in storage.server.call("task.get_all"):
                storage.server.call("task.cancel", task)

    with pytest.raises(TransferFailed):
        storage.transfers.send(Reader(DATA, None, cancel), SIZE, vdi, DiskFormat.RAW, watch)
    assert is_free(storage, vdi)


def test_a_host_that_takes_no_more_bytes_is_given_up(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_UP", 0.05)
    data = bytes(24 * MIB)
    vdi = storage.vdi(len(data))
    storage.control.add_rule("import_raw_vdi", "throttle", size=1)
    impatient = Transfers(storage.server, stall_timeout=0.3)
    with pytest.raises(TransferFailed, match="takes no more bytes"):
        impatient.send(Reader(data), len(data), vdi, DiskFormat.RAW)
    storage.control.clear_rules()
    assert is_free(storage, vdi)


def test_a_transfer_goes_where_a_host_sends_it() -> None:
    """A repository that only the second host of a pool sees."""
    with SimulatorProcess([*OPTIONS, "--hosts", "2", "--tls"]) as two:
        prints = tuple(host.fingerprint for host in two.hosts)
        connection = Connection(two.url, two.username, two.password, fingerprints=prints)
        with closing(XenServer(connection)) as server:
            transfers = Transfers(server)
            second = next(host for host in two.hosts if host.url != two.url)
            host = server.call("host.get_by_uuid", second.uuid)
            sr = server.call("SR.create", host, {"device": "/dev/x"}, "0", "far", "", "ext", "user", False, {})
            record = {"SR": sr, "virtual_size": str(SIZE), "type": "user", "sharable": False, "read_only": False}
            vdi = server.call("VDI.create", {**record, "name_label": "far", "other_config": {}})
            transfers.send(Reader(DATA), SIZE, vdi, DiskFormat.RAW)
            assert transfers.bytes_sent == SIZE
            with transfers.receive(vdi, DiskFormat.RAW, SIZE) as pieces:
                assert b"".join(pieces) == DATA
