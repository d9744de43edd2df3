"""Virtual disks that hold bytes: what they share, what they take, what may be done with them when."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import XenAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.simulator.disks import BLOCK, Disks, NoSpace
from tools.simulator.process import SimulatorProcess

from .support import MIB, NULL, Vm, failure
from .test_devices import vbd_record
from .transfers import Transfers, make_sr, vdi_record

SIZE = 5 * BLOCK + 512


@pytest.fixture
def disks(tmp_path: Path) -> Disks:
    return Disks(tmp_path / "disks")


def test_a_new_disk_is_zero_and_takes_nothing(disks: Disks, tmp_path: Path) -> None:
    disks.create("a", "sr", SIZE)
    assert disks.read("a", 0, 10 * SIZE) == bytes(SIZE)
    disks.write("a", BLOCK - 1, bytes(2 * BLOCK))
    assert disks.utilisation("a") == 0
    assert (tmp_path / "disks/a").stat().st_size == SIZE
    disks.write("a", BLOCK - 1, b"xy")
    assert disks.utilisation("a") == disks.repository_utilisation("sr") == 2 * BLOCK
    assert disks.read("a", BLOCK - 2, 4) == b"\0xy\0"
    with pytest.raises(FileExistsError):
        disks.create("a", "sr", SIZE)
    for offset in (-1, SIZE, SIZE - 1):
        with pytest.raises(ValueError, match="beyond"):
            disks.write("a", offset, b"xy")


def test_a_clone_copies_nothing(disks: Disks) -> None:
    disks.create("a", "sr", SIZE)
    disks.write("a", 0, b"x" * SIZE)
    before = disks.repository_utilisation("sr")
    disks.branch("a", "base", "b")
    assert disks.repository_utilisation("sr") == before
    assert (disks.utilisation("a"), disks.utilisation("b"), disks.utilisation("base")) == (0, 0, before)
    assert (disks.parent("a"), disks.parent("b"), disks.parent("base")) == ("base", "base", None)
    disks.write("b", 5, b"y")
    assert disks.utilisation("b") == BLOCK
    assert disks.read("a", 0, 10) == b"x" * 10
    assert disks.read("b", 0, 10) == b"xxxxxyxxxx"
    disks.remove("a")
    # What only one disk needs is its own again.
    assert disks.names("sr") == ["b"]
    assert disks.read("b", 0, SIZE) == b"xxxxxy" + b"x" * (SIZE - 6)
    disks.remove("b")
    assert list(disks.directory.iterdir()) == []


def test_zeros_hide_what_is_below(disks: Disks) -> None:
    disks.create("a", "sr", SIZE)
    disks.write("a", 0, b"x" * BLOCK)
    disks.branch("a", "base", "b")
    disks.write("b", 0, bytes(BLOCK))
    assert disks.read("b", 0, BLOCK) == bytes(BLOCK)
    assert disks.read("a", 0, BLOCK) == b"x" * BLOCK


def test_a_full_repository(disks: Disks) -> None:
    disks.set_capacity("sr", 2 * BLOCK)
    disks.create("a", "sr", SIZE)
    with pytest.raises(NoSpace):
        disks.write("a", 0, b"x" * SIZE)
    assert disks.utilisation("a") == 2 * BLOCK
    disks.write("a", 0, b"y" * BLOCK)


OPERATION = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 3), st.integers(0, SIZE - 1), st.binary(min_size=1, max_size=2 * BLOCK)),
    st.tuples(st.just("zero"), st.integers(0, 3), st.integers(0, SIZE - 1), st.integers(1, 2 * BLOCK).map(bytes)),
    st.tuples(st.just("branch"), st.integers(0, 3), st.just(0), st.just(b"")),
    st.tuples(st.just("remove"), st.integers(0, 3), st.just(0), st.just(b"")),
    st.tuples(st.just("resize"), st.integers(0, 3), st.integers(1, 2 * BLOCK), st.just(b"")),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(OPERATION, max_size=12))
def test_disks_are_as_if_each_were_alone(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, int, int, bytes]]
) -> None:
    disks = Disks(tmp_path_factory.mktemp("disks"))
    expected: dict[str, bytearray] = {"first": bytearray(SIZE)}
    disks.create("first", "sr", SIZE)
    for step, (what, which, offset, data) in enumerate(operations):
        if not expected:
            break
        name = sorted(expected)[which % len(expected)]
        if what in ("write", "zero"):
            data = data[: len(expected[name]) - offset]
            disks.write(name, offset, data)
            expected[name][offset : offset + len(data)] = data
        elif what == "branch":
            disks.branch(name, f"shared{step}", f"disk{step}")
            expected[f"disk{step}"] = bytearray(expected[name])
        elif what == "remove":
            disks.remove(name)
            del expected[name]
        else:
            disks.resize(name, len(expected[name]) + offset)
            expected[name] += bytes(offset)
    for name, content in expected.items():
        assert disks.read(name, 0, 1 << 30) == content
        held = {number for number in range(len(content) // BLOCK + 1) if any(content[number * BLOCK :][:BLOCK])}
        assert held <= set(disks.allocated(name, BLOCK))
    shared = [name for name in disks.names("sr") if disks.is_shared(name)]
    assert len(shared) < max(1, len(expected))
    assert {path.name for path in disks.directory.iterdir()} == set(disks.names("sr"))


# The calls


@pytest.fixture
def transfers(simulator: SimulatorProcess, session: XenAPI.Session) -> Iterator[Transfers]:
    transfers = Transfers(simulator, session)
    yield transfers
    for ref, record in session.xenapi.VDI.get_all_records().items():
        if record["managed"]:
            session.xenapi.VDI.destroy(ref)
    assert session.xenapi.VDI.get_all() == []
    assert list((Path(simulator.state) / "disks").iterdir()) == []


def test_clone_and_snapshot(transfers: Transfers) -> None:
    api = transfers.api
    content = os.urandom(4 * MIB)
    vdi = transfers.disk(content, other_config={"a": "b"}, tags=["t"])
    sr = api.VDI.get_SR(vdi)
    before = api.SR.get_physical_utilisation(sr)
    clone, snapshot = api.VDI.clone(vdi), api.VDI.snapshot(vdi, {"epochhint": "1"})
    assert api.SR.get_physical_utilisation(sr) == before == str(4 * MIB)
    records = api.VDI.get_all_records()
    assert [records[ref]["physical_utilisation"] for ref in (vdi, clone, snapshot)] == ["0", "0", "0"]
    hidden = {record["uuid"]: record for record in records.values() if not record["managed"]}
    assert {record["name_label"] for record in hidden.values()} == {"base copy"}
    assert all(records[ref]["sm_config"]["vhd-parent"] in hidden for ref in (vdi, clone, snapshot))
    assert records[snapshot]["sm_config"]["epochhint"] == "1"
    for name in ("name_label", "other_config", "type", "virtual_size"):
        assert records[clone][name] == records[snapshot][name] == records[vdi][name]
    assert (records[snapshot]["is_a_snapshot"], records[clone]["is_a_snapshot"]) == (True, False)
    assert records[snapshot]["snapshot_of"] == vdi
    assert records[snapshot]["snapshot_time"].value > "2020"
    assert records[clone]["snapshot_of"] == NULL
    assert api.VDI.get_snapshots(vdi) == [snapshot]
    assert transfers.put("/import_raw_vdi", b"changed!" * 64, vdi=vdi)["status"] == "success"
    assert transfers.content(vdi)[: len(content)] == b"changed!" * 64 + content[512:]
    for same in (clone, snapshot):
        assert transfers.content(same)[: len(content)] == content
    base = next(ref for ref, record in records.items() if not record["managed"])
    assert failure(api.VDI.clone, base) == ["VDI_NOT_MANAGED", base]
    assert failure(api.VDI.destroy, base) == ["VDI_NOT_MANAGED", base]
    api.VDI.destroy(snapshot)
    api.VDI.destroy(clone)
    assert api.VDI.get_all() == [vdi]
    assert "vhd-parent" not in api.VDI.get_sm_config(vdi)


def test_what_cannot_be_snapshot(transfers: Transfers) -> None:
    api = transfers.api
    vdi = transfers.disk(sharable=True)
    assert failure(api.VDI.snapshot, vdi) == ["VDI_IS_SHARABLE", vdi]
    assert "snapshot" not in api.VDI.get_allowed_operations(api.VDI.clone(vdi))
    other = transfers.disk()
    api.VDI.set_on_boot(other, "reset")
    assert failure(api.VDI.snapshot, other) == ["VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION"]


def test_copy(transfers: Transfers) -> None:
    api = transfers.api
    content = os.urandom(3 * MIB)
    vdi = transfers.disk(content)
    sr = make_sr(transfers.session)
    copy = api.VDI.copy(vdi, sr)
    assert api.VDI.get_SR(copy) == sr
    assert api.SR.get_physical_utilisation(sr) == str(3 * MIB)
    assert transfers.content(copy) == transfers.content(vdi)
    into = transfers.disk(os.urandom(8 * MIB))
    assert api.VDI.copy(vdi, NULL, NULL, into) == into
    assert transfers.content(into) == transfers.content(vdi)
    small = transfers.disk(virtual_size="1")
    assert failure(api.VDI.copy, vdi, NULL, NULL, small) == ["VDI_TOO_SMALL", small, str(8 * MIB)]
    api.VDI.set_read_only(into, True)
    assert failure(api.VDI.copy, vdi, NULL, NULL, into) == ["VDI_READONLY", into]
    assert failure(api.VDI.copy, vdi, NULL) == ["HANDLE_INVALID", "SR", NULL]
    tiny = make_sr(transfers.session, 8 * MIB)
    first = api.VDI.copy(vdi, tiny)
    assert failure(api.VDI.copy, vdi, tiny)[0] == "SR_BACKEND_FAILURE_44"
    assert api.SR.get_VDIs(tiny) == [first]
    for ref in (copy, first):
        api.VDI.destroy(ref)
    for extra in (sr, tiny):
        end(transfers, extra)


def end(transfers: Transfers, sr: str) -> None:
    for pbd in transfers.api.SR.get_PBDs(sr):
        transfers.api.PBD.unplug(pbd)
    transfers.api.SR.destroy(sr)


def test_resize(transfers: Transfers) -> None:
    api = transfers.api
    vdi = transfers.disk(b"x" * MIB)
    clone = api.VDI.clone(vdi)
    api.VDI.resize(clone, str(9 * MIB))
    assert api.VDI.get_virtual_size(clone) == str(12 * MIB)
    assert transfers.content(clone) == b"x" * MIB + bytes(11 * MIB)
    error = failure(api.VDI.resize, clone, "1")
    assert error == ["SR_BACKEND_FAILURE_79", "", "VDI Invalid size [opterr=shrinking not allowed]", ""]
    assert failure(api.VDI.resize_online, vdi, str(20 * MIB)) == ["SR_OPERATION_NOT_SUPPORTED", api.VDI.get_SR(vdi)]


def test_disks_in_use(transfers: Transfers, vm: Vm) -> None:
    api = transfers.api
    vdi = transfers.disk()
    api.VBD.create(vbd_record(vm, vdi))
    assert set(api.VDI.get_allowed_operations(vdi)) >= {"destroy", "copy", "resize", "snapshot"}
    vm.start(False, False)
    for call, *arguments in (("copy", NULL), ("resize", str(20 * MIB)), ("forget",), ("destroy",)):
        assert failure(getattr(api.VDI, call), vdi, *arguments) == ["VDI_IN_USE", vdi, call]
    assert failure(api.VDI.checksum, vdi) == ["VDI_IN_USE", vdi]
    assert set(api.VDI.get_allowed_operations(vdi)) == {"snapshot", "clone"}
    api.VDI.clone(vdi)
    vm.hard_shutdown()
    assert "destroy" in api.VDI.get_allowed_operations(vdi)


def test_forget_and_find_again(transfers: Transfers) -> None:
    api = transfers.api
    vdi = transfers.disk(b"kept")
    record = api.VDI.get_record(vdi)
    sr = record["SR"]
    api.VDI.forget(vdi)
    assert api.SR.get_VDIs(sr) == []
    api.SR.scan(sr)
    (found,) = api.SR.get_VDIs(sr)
    assert api.VDI.get_uuid(found) == record["uuid"]
    assert api.VDI.get_name_label(found) == ""
    assert transfers.content(found)[:4] == b"kept"
    api.VDI.db_forget(found)
    introduce = (record["uuid"], "named", "", sr, "user", False, False, {"k": "v"}, record["location"])
    again = api.VDI.introduce(*introduce)
    assert (api.VDI.get_name_label(again), api.VDI.get_other_config(again)) == ("named", {"k": "v"})
    assert api.VDI.get_virtual_size(again) == record["virtual_size"]
    assert transfers.content(again)[:4] == b"kept"
    other = list(introduce)
    other[0] = "00000000-0000-4000-8000-000000000001"
    assert failure(api.VDI.introduce, *other) == ["LOCATION_NOT_UNIQUE", sr, record["location"]]
    other[8] = other[0]
    assert failure(api.VDI.introduce, *other)[0] == "SR_BACKEND_FAILURE_46"
    ghost = api.VDI.db_introduce(*other)
    assert failure(api.VDI.checksum, ghost)[0] == "SR_BACKEND_FAILURE_46"
    other[0], other[8] = "no uuid", "elsewhere"
    assert failure(api.VDI.db_introduce, *other) == ["UUID_INVALID", "VDI", "no uuid"]
    # A record without a disk does not outlive a scan.
    api.SR.scan(sr)
    assert failure(api.VDI.get_uuid, ghost) == ["HANDLE_INVALID", "VDI", ghost]


def test_life_of_a_repository(transfers: Transfers) -> None:
    api = transfers.api
    (host,) = api.host.get_all()
    create: tuple[Any, ...] = (host, {"device": "/dev/sdb"}, "0", "n", "", "nosuch", "user", False, {})
    assert failure(api.SR.create, *create) == ["SR_UNKNOWN_DRIVER", "nosuch"]
    assert failure(api.SR.create, *create[:5], "nfs", *create[6:])[0] == "SR_BACKEND_FAILURE_101"
    assert {"ext", "nfs"} <= set(api.SR.get_supported_types())
    sr = make_sr(transfers.session, sr_type="nfs")
    record, (pbd,) = api.SR.get_record(sr), api.SR.get_PBDs(sr)
    assert (record["type"], record["physical_size"], record["physical_utilisation"]) == ("nfs", str(64 * MIB), "0")
    assert api.PBD.get_currently_attached(pbd)
    vdi = transfers.disk(b"kept", SR=sr)
    uuid = api.VDI.get_uuid(vdi)
    for call in (api.SR.forget, api.SR.destroy):
        assert failure(call, sr) == ["SR_HAS_PBD", sr]
    assert not {"forget", "destroy"} & set(api.SR.get_allowed_operations(sr))
    api.PBD.unplug(pbd)
    assert failure(api.VDI.clone, vdi) == ["SR_HAS_NO_PBDS", sr]
    assert failure(api.SR.destroy, sr) == ["SR_NOT_EMPTY"]
    api.SR.forget(sr)
    assert failure(api.VDI.get_uuid, vdi)[0] == failure(api.PBD.get_uuid, pbd)[0] == "HANDLE_INVALID"
    sr = api.SR.introduce(record["uuid"], "again", "", "NFS", "user", False)
    assert failure(api.SR.introduce, record["uuid"], "", "", "nfs", "", False) == ["SR_UUID_EXISTS", record["uuid"]]
    assert (api.SR.get_physical_size(sr), api.SR.get_type(sr)) == ("-1", "nfs")
    config = {"server": "filer", "serverpath": "/srv"}
    pbd = api.PBD.create({"host": host, "SR": sr, "device_config": config})
    api.PBD.plug(pbd)
    assert api.SR.get_physical_size(sr) == str(64 * MIB)
    (vdi,) = api.SR.get_VDIs(sr)
    assert api.VDI.get_uuid(vdi) == uuid
    assert transfers.content(vdi)[:4] == b"kept"
    api.VDI.destroy(vdi)
    api.SR.add_to_other_config(sr, "indestructible", "true")
    api.PBD.unplug(pbd)
    assert failure(api.SR.destroy, sr) == ["SR_INDESTRUCTIBLE", sr]
    api.SR.remove_from_other_config(sr, "indestructible")
    api.SR.destroy(sr)
    assert failure(api.SR.get_uuid, sr) == ["HANDLE_INVALID", "SR", sr]


def test_suspend_image(transfers: Transfers, vm: Vm) -> None:
    vm.start(False, False)
    vm.suspend()
    image = vm.get_suspend_VDI()
    assert transfers.api.VDI.get_type(image) == "suspend"
    transfers.api.SR.scan(transfers.api.VDI.get_SR(image))
    assert vm.get_suspend_VDI() == image
    assert transfers.api.VDI.get_record(image)["location"]
    vm.resume(False, False)
    assert failure(transfers.api.VDI.get_uuid, image) == ["HANDLE_INVALID", "VDI", image]


def test_record(transfers: Transfers) -> None:
    with pytest.raises(XenAPI.Failure, match="VDI_INCOMPATIBLE_TYPE"):
        transfers.api.VDI.create(vdi_record(transfers.session, type="cbt_metadata"))
    assert failure(lambda: transfers.disk(virtual_size="-1"))[0] == "SR_BACKEND_FAILURE_79"
    vdi = transfers.disk(virtual_size="0", sm_config={"type": "raw"})
    assert transfers.api.VDI.get_virtual_size(vdi) == str(4 * MIB)
    assert transfers.api.VDI.get_sm_config(vdi) == {"vdi_type": "vhd", "type": "raw"}


def test_what_the_storage_manager_can_do(session: XenAPI.Session) -> None:
    drivers = {record["type"]: record for record in session.xenapi.SM.get_all_records().values()}
    assert set(drivers) == set(session.xenapi.SR.get_supported_types())
    assert {"VDI_CLONE", "VDI_SNAPSHOT", "VDI_RESIZE"} <= set(drivers["ext"]["features"])
    assert "VDI_RESIZE_ONLINE" not in drivers["ext"]["features"]
    assert "VDI_CREATE" not in drivers["iscsi"]["features"]
    (repository,) = session.xenapi.SR.get_all_records().values()
    assert {"vdi_create", "vdi_clone", "scan"} <= set(repository["allowed_operations"])
