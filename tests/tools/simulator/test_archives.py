"""Whole VMs into and out of the pool."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
import XenAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.simulator.formats.streams import FormatError, Source
from tools.simulator.formats.tar_blocks import blocks_of, read_members, write_blocks, write_end, write_member
from tools.simulator.formats.xxhash import xxh64
from tools.simulator.process import SimulatorProcess

from .support import MIB, NULL, Vm, failure
from .test_devices import vbd_record
from .test_vm import vif_record
from .transfers import Transfers, make_sr


@pytest.fixture
def transfers(simulator: SimulatorProcess, session: XenAPI.Session) -> Iterator[Transfers]:
    transfers = Transfers(simulator, session)
    yield transfers
    for ref, record in session.xenapi.VDI.get_all_records().items():
        if record["managed"]:
            session.xenapi.VDI.destroy(ref)


CONTENT = bytes(3 * MIB) + os.urandom(MIB) + bytes(2 * MIB)


@pytest.fixture
def furnished(transfers: Transfers, vm: Vm) -> Vm:
    """A VM with a disk, an empty drive and an interface."""
    api = transfers.api
    api.VBD.create(vbd_record(vm, transfers.disk(CONTENT), userdevice="0"))
    api.VBD.create(vbd_record(vm, NULL, type="CD", empty=True, mode="RO", userdevice="3"))
    (network,) = api.network.get_all()
    api.VIF.create(vif_record(vm, network))
    return vm


def imported(transfers: Transfers, archive: bytes, **parameters: str) -> Vm:
    task = transfers.put("/import", archive, **parameters)
    assert task["status"] == "success", task["error_info"]
    return Vm(transfers.session, re.findall("<value>(OpaqueRef:[^<]*)</value>", task["result"])[0])


def names_in(archive: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return opened.getnames()


def disk_of(transfers: Transfers, vm: Vm) -> str:
    vbds = transfers.api.VM.get_VBDs(vm.ref)
    (vdi,) = [transfers.api.VBD.get_VDI(vbd) for vbd in vbds if not transfers.api.VBD.get_empty(vbd)]
    return str(vdi)


@pytest.mark.parametrize("compression", ["", "true"])
def test_there_and_back(transfers: Transfers, furnished: Vm, compression: str) -> None:
    api = transfers.api
    archive = transfers.get("/export", uuid=furnished.uuid, use_compression=compression)
    if compression:
        archive = gzip.decompress(archive)
    names = names_in(archive)
    assert names[0] == "ova.xml"
    assert [name.rpartition("/")[2] for name in names[1::2]] == ["00000000", "00000003", "00000007"]
    sr = make_sr(transfers.session)
    copy = imported(transfers, gzip.compress(archive) if compression else archive, sr_id=sr)
    assert copy.ref != furnished.ref
    assert copy.get_power_state() == "Halted"
    for field in ("name_label", "memory_static_max", "platform", "xenstore_data", "HVM_boot_params"):
        assert getattr(copy, f"get_{field}")() == getattr(furnished, f"get_{field}")()
    vdi = disk_of(transfers, copy)
    assert api.VDI.get_SR(vdi) == sr
    assert transfers.content(vdi) == CONTENT.ljust(8 * MIB, b"\0")
    assert sorted(api.VBD.get_userdevice(vbd) for vbd in api.VM.get_VBDs(copy.ref)) == ["0", "3"]
    (mine,), (its,) = api.VM.get_VIFs(furnished.ref), api.VM.get_VIFs(copy.ref)
    assert api.VIF.get_network(its) == api.VIF.get_network(mine)
    assert api.VIF.get_MAC(its) != api.VIF.get_MAC(mine)
    copy.start(False, False)
    copy.destroy()
    api.VDI.destroy(vdi)
    (pbd,) = api.SR.get_PBDs(sr)
    api.PBD.unplug(pbd)
    api.SR.destroy(sr)


def test_restored(transfers: Transfers, furnished: Vm) -> None:
    api = transfers.api
    mac = api.VIF.get_MAC(api.VM.get_VIFs(furnished.ref)[0])
    archive = transfers.get("/export", ref=furnished.ref)
    task = transfers.put("/import", archive, restore="true")
    assert task["error_info"] == ["DUPLICATE_VM", furnished.ref]
    uuid = furnished.uuid
    furnished.destroy()
    restored = imported(transfers, archive, restore="true")
    assert restored.uuid == uuid
    assert api.VIF.get_MAC(api.VM.get_VIFs(restored.ref)[0]) == mac
    restored.destroy()


def remains(transfers: Transfers) -> tuple[Any, ...]:
    api = transfers.api
    return tuple(sorted(cls.get_all()) for cls in (api.VM, api.VDI, api.VBD, api.VIF, api.network))


def test_broken_archives_leave_nothing(transfers: Transfers, furnished: Vm) -> None:
    archive = transfers.get("/export", ref=furnished.ref)
    before = remains(transfers)
    data = archive.index(CONTENT[3 * MIB : 3 * MIB + 64])
    damaged = archive[:data] + b"!" + archive[data + 1 :]
    cases = [
        (damaged, ["IMPORT_ERROR_SOME_CHECKSUMS_FAILED"]),
        (archive[: len(archive) // 2], ["IMPORT_ERROR_PREMATURE_EOF"]),
        (write_member("other", b"") + write_end(), ["IMPORT_ERROR_UNEXPECTED_FILE", "ova.xml", "other"]),
        (write_member("ova.xml", b"<nonsense") + write_end(), ["IMPORT_ERROR", "malformed ova.xml"]),
        (b"x" * 2048, ["IMPORT_ERROR", "not a tar archive"]),
        (b"\x1f\x8b" + b"x" * 2048, ["IMPORT_ERROR", "not a gzip file"]),
    ]
    for broken, error in cases:
        task = transfers.put("/import", broken)
        assert (task["status"], task["error_info"]) == ("failure", error)
        assert remains(transfers) == before


def test_refused(transfers: Transfers, furnished: Vm) -> None:
    assert transfers.request("PUT", "/import", iter([b"x"])).status == 403
    assert transfers.request("GET", "/export").status == 400
    assert transfers.request("GET", "/export", uuid="nobody").status == 500
    furnished.start(False, False)
    task = transfers.api.task.create("export", "")
    assert transfers.request("GET", "/export", ref=furnished.ref, task_id=task).status == 500
    error = transfers.api.task.get_error_info(task)
    assert error == ["VM_BAD_POWER_STATE", furnished.ref, "halted, suspended", "running"]
    assert failure(transfers.api.VM.destroy, furnished.ref)[0] == "VM_BAD_POWER_STATE"
    assert names_in(transfers.get("/export_metadata", ref=furnished.ref)) == ["ova.xml"]


# The format


def archive_of(content: bytes, directory: str = "Ref:1") -> bytes:
    blocks = range(-(-len(content) // MIB))
    return b"".join(write_blocks(directory, len(content), blocks, lambda at, length: content[at : at + length]))


def blocks(archive: bytes, sizes: dict[str, int]) -> list[tuple[str, int, int]]:
    found = blocks_of(read_members(Source(io.BytesIO(archive).read)), sizes)
    return [(directory, extent.offset, len(extent.data)) for directory, extent in found]


def test_both_checksums_are_read() -> None:
    content = os.urandom(MIB + 512)
    archive = archive_of(content)
    newer = archive
    for part in (content[:MIB], content[MIB:]):
        sha1 = hashlib.sha1(part).hexdigest().encode()
        xxh = f"{xxh64(part):016X}".encode()
        head = archive.index(sha1) - 512
        newer = newer.replace(archive[head : head + 1024], b"", 1)
        number = b"Ref:1/00000000" if len(part) == MIB else b"Ref:1/00000001"
        at = newer.index(number) + 512 + len(part)
        newer = newer[:at] + write_member(number.decode() + ".xxhash", xxh) + newer[at:]
    sizes = {"Ref:1": len(content)}
    assert blocks(newer + write_end(), sizes) == blocks(archive + write_end(), sizes) != []
    with pytest.raises(FormatError, match="checksum"):
        blocks(newer.replace(xxh, b"0" * 16) + write_end(), sizes)


def test_xxh64() -> None:
    assert xxh64(b"") == 0xEF46DB3751D8E999
    assert xxh64(b"abc") == 0x44BC2CF5AD770999
    assert xxh64(b"Call me Ishmael. Some years ago--never mind how long precisely-") == 0x02A2E85470D6FD96


def test_what_an_archive_must_be() -> None:
    archive = archive_of(bytes(2 * MIB)) + write_end()
    assert blocks(archive, {"Ref:1": 2 * MIB}) == [("Ref:1", 0, MIB), ("Ref:1", MIB, MIB)]
    for sizes in ({"Ref:2": 2 * MIB}, {"Ref:1": MIB}, {"Ref:1": 3 * MIB}, {"Ref:1": 2 * MIB, "Ref:2": MIB}):
        with pytest.raises(FormatError):
            blocks(archive, sizes)
    link = tarfile.TarInfo("Ref:1/00000000")
    link.type = tarfile.SYMTYPE
    with pytest.raises(FormatError, match="does not belong"):
        blocks(link.tobuf() + archive, {"Ref:1": 2 * MIB})


SMALL = archive_of(os.urandom(1024)) + write_end()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(SMALL) - 1025), st.integers(0, 255))
def test_corrupted(position: int, value: int) -> None:
    broken = SMALL[:position] + bytes([value]) + SMALL[position + 1 :]
    try:
        found = blocks(broken, {"Ref:1": 1024})
    except FormatError:
        return
    assert found == [("Ref:1", 0, 1024)]
