"""Volumes at VMs: attached once, whole or not at all, and given back with all that was introduced for them."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from agent_protocol.messages import Password
from agent_protocol.outcomes import Outcome, Refused, Unsuccessful, Unsupported
from compute_driver.errors import DetachRejected, VolumeInUse, VolumeNotFound, XenServerFailure
from compute_driver.volumes import IscsiConnection, NfsConnection, VdiConnection, Volume
from compute_driver.xenapi.guests.vms import VM
from compute_driver.xenapi.storage.volume_repositories import of_iscsi
from compute_driver.xenapi.storage.volumes import VOLUME_KEY, AttachedVolume, Volumes

from ..faults import WAYS, Faulty, each_call
from ..pool import MIB, Pool

CHAP = "hunter2-Chap"
ISCSI = IscsiConnection("san.example", "iqn.2004-10.example:vol", 0, 3260, "ada", Password(CHAP))
NFS = {"server": "filer.example", "serverpath": "/volumes"}


def disk(pool: Pool, sr: str, **more: Any) -> str:
    """A virtual disk, made as whoever offers storage does it; its uuid."""
    record = {
        "name_label": "",
        "name_description": "",
        "SR": sr,
        "virtual_size": str(4 * MIB),
        "type": "user",
        "sharable": False,
        "read_only": False,
        "other_config": {},
        **more,
    }
    return str(pool.server.call("VDI.get_uuid", pool.server.call("VDI.create", record)))


def storage(pool: Pool, sr_uuid: str, count: int) -> list[str]:
    """Storage that the pool does not know, with so many disks in it; their uuids."""
    sr = pool.server.call("SR.introduce", sr_uuid, "", "", "nfs", "user", True, {})
    host = pool.server.call("host.get_all")[0]
    pbd = pool.server.call("PBD.create", {"host": host, "SR": sr, "device_config": NFS, "other_config": {}})
    pool.server.call("PBD.plug", pbd)
    uuids = [disk(pool, sr) for _ in range(count)]
    pool.server.call("PBD.unplug", pbd)
    pool.server.call("SR.forget", sr)
    return uuids


@dataclass(frozen=True)
class Offered:
    """A volume of each kind, and another one beside it in the same place."""

    volume: Volume
    other: Volume


@pytest.fixture(scope="module")
def offers(pool: Pool) -> dict[str, Offered]:
    sr_uuid = str(uuid.uuid4())
    nfs = [NfsConnection("filer.example", "/volumes", sr_uuid, each) for each in storage(pool, sr_uuid, 2)]
    storage(pool, of_iscsi(ISCSI).uuid, 3)
    (default,) = [pool.server.call("pool.get_default_SR", each) for each in pool.server.call("pool.get_all")]
    vdis = [VdiConnection(disk(pool, default)) for _ in range(2)]
    return {
        kind: Offered(Volume("vol-1", first), Volume("vol-2", second))
        for kind, (first, second) in {"vdi": vdis, "nfs": nfs, "iscsi": (ISCSI, replace(ISCSI, lun=2))}.items()
    }


@pytest.fixture(params=["vdi", "nfs", "iscsi"])
def offered(request: pytest.FixtureRequest, offers: dict[str, Offered]) -> Offered:
    return offers[request.param]


@pytest.fixture
def vms(pool: Pool, offers: dict[str, Offered]) -> Iterator[Any]:
    made: list[VM] = []

    def make(*, running: bool = True) -> VM:
        made.append(pool.vm(running=running))
        return made[-1]

    with pool.nothing_left():
        yield make
        for vm in made:
            pool.destroy(vm)


def record(pool: Pool, vm: VM) -> dict[str, Any]:
    (vbd,) = pool.server.call("VM.get_VBDs", vm.ref)
    it: dict[str, Any] = pool.server.call("VBD.get_record", vbd)
    return it


@pytest.mark.parametrize("running", [False, True])
def test_a_volume_comes_and_goes_and_leaves_nothing(pool: Pool, vms: Any, offered: Offered, running: bool) -> None:
    it, vm = Volumes(pool.server), vms(running=running)
    with pool.nothing_left():
        device = it.attach(vm, offered.volume)
        vbd = record(pool, vm)
        assert vbd["currently_attached"] is running
        assert vbd["other_config"] == {VOLUME_KEY: "vol-1"}
        assert (vbd["mode"], vbd["type"], vbd["bootable"], vbd["unpluggable"]) == ("RW", "Disk", False, True)
        assert device == (vbd["device"] if running else vbd["userdevice"])
        again = pool.inventory()
        assert it.attach(vm, offered.volume) == device
        assert pool.inventory() == again
        it.detach(vm, offered.volume)
        it.detach(vm, offered.volume)


def test_it_is_the_disk_that_was_meant(pool: Pool, vms: Any, offers: dict[str, Offered]) -> None:
    it, vm = Volumes(pool.server), vms()
    found = {}
    for kind, offered in offers.items():
        it.attach(vm, offered.other)
        found[kind] = pool.server.call("VDI.get_record", record(pool, vm)["VDI"])
        it.detach(vm, offered.other)
    vdi, nfs = offers["vdi"].other.connection, offers["nfs"].other.connection
    assert isinstance(vdi, VdiConnection)
    assert isinstance(nfs, NfsConnection)
    assert found["vdi"]["uuid"] == vdi.uuid
    assert found["nfs"]["uuid"] == nfs.vdi
    assert found["iscsi"]["sm_config"]["LUNid"] == "2"
    assert found["iscsi"]["managed"]


def test_what_xenserver_is_told_of_an_iscsi_target(pool: Pool, vms: Any, offers: dict[str, Offered]) -> None:
    it, vm = Volumes(pool.server), vms()
    it.attach(vm, offers["iscsi"].volume)
    sr = pool.server.call("VDI.get_SR", record(pool, vm)["VDI"])
    assert pool.server.call("SR.get_type", sr) == "iscsi"
    (pbd,) = pool.server.call("SR.get_PBDs", sr)
    assert pool.server.call("PBD.get_host", pbd) == vm.host
    config = pool.server.call("PBD.get_device_config", pbd)
    secret = pool.server.call("secret.get_by_uuid", config.pop("chappassword_secret"))
    assert config == {"target": "san.example", "port": "3260", "targetIQN": ISCSI.iqn, "chapuser": "ada"}
    assert pool.server.call("secret.get_value", secret) == CHAP
    it.detach(vm, offers["iscsi"].volume)


def test_a_halted_vm_can_start_on_any_host_with_it(pool: Pool, vms: Any, offers: dict[str, Offered]) -> None:
    it, vm = Volumes(pool.server), vms(running=False)
    it.attach(vm, offers["iscsi"].volume)
    sr = pool.server.call("VDI.get_SR", record(pool, vm)["VDI"])
    hosts = {pool.server.call("PBD.get_host", pbd) for pbd in pool.server.call("SR.get_PBDs", sr)}
    assert hosts == set(pool.server.call("host.get_all"))
    assert len(pool.server.call("secret.get_all")) == 2
    it.detach(vm, offers["iscsi"].volume)
    assert pool.server.call("secret.get_all") == []


def test_a_device_a_mode_and_the_boot_disk(pool: Pool, vms: Any, offered: Offered) -> None:
    it, vm = Volumes(pool.server), vms()
    volume = replace(offered.volume, device="/dev/xvdf", read_only=True, boot_index=0)
    assert it.attach(vm, volume) == "xvdf"
    vbd = record(pool, vm)
    assert (vbd["mode"], vbd["bootable"]) == ("RO", True)
    with pytest.raises(Refused) as caught:
        it.attach(vm, replace(offered.other, device="xvdf"))
    assert caught.value.code == "device_in_use"
    with pytest.raises(Refused) as caught:
        it.attach(vm, replace(offered.other, device="255"))
    assert caught.value.code == "bad_device"
    it.detach(vm, volume)


def test_a_volume_is_attached_to_one_guest_at_a_time(pool: Pool, vms: Any, offered: Offered) -> None:
    it, vm, other = Volumes(pool.server), vms(), vms(running=False)
    it.attach(vm, offered.volume)
    for elsewhere in (replace(offered.volume, id="vol-9"), offered.volume, replace(offered.volume, read_only=True)):
        with pool.nothing_left(), pytest.raises(VolumeInUse) as caught:
            it.attach(other, elsewhere)
        assert (caught.value.outcome, caught.value.code) == (Outcome.BUSY, "volume_in_use")
    it.detach(other, offered.volume)
    assert record(pool, vm)["currently_attached"]
    it.detach(vm, offered.volume)


def test_readers_can_share_a_volume(pool: Pool, vms: Any, offered: Offered) -> None:
    it, vm, other = Volumes(pool.server), vms(), vms()
    volume = replace(offered.volume, read_only=True)
    it.attach(vm, volume)
    it.attach(other, volume)
    with pytest.raises(VolumeInUse):
        it.attach(vms(running=False), offered.volume)
    it.detach(vm, volume)
    it.detach(other, volume)


def test_two_requests_at_once_for_one_volume(pool: Pool, vms: Any, offered: Offered) -> None:
    it = Volumes(pool.server)
    guests = [vms(running=False), vms(running=False)]
    ended: list[BaseException | str] = []

    def attach(vm: VM) -> None:
        try:
            ended.append(it.attach(vm, offered.volume))
        except BaseException as error:
            ended.append(error)

    with pool.nothing_left():
        threads = [threading.Thread(target=attach, args=[vm]) for vm in guests]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(type(end).__name__ for end in ended) == ["VolumeInUse", "str"]
        for vm in guests:
            it.detach(vm, offered.volume)


@pytest.mark.parametrize("kind", ["nfs", "iscsi"])
def test_what_they_share_stays_until_the_last_volume(
    pool: Pool, vms: Any, offers: dict[str, Offered], kind: str
) -> None:
    it, vm, other, offered = Volumes(pool.server), vms(), vms(), offers[kind]
    with pool.nothing_left():
        it.attach(vm, offered.volume)
        it.attach(other, offered.other)
        known = {cls: len(refs) for cls, refs in pool.inventory().items()}
        it.detach(other, offered.other)
        it.attach(other, offered.other)
        assert {cls: len(refs) for cls, refs in pool.inventory().items()} == known
        it.detach(vm, offered.volume)
        assert record(pool, other)["currently_attached"]
        it.detach(other, offered.other)


def test_an_sr_that_somebody_else_introduced_is_used_and_stays(
    pool: Pool, vms: Any, offers: dict[str, Offered]
) -> None:
    it, vm, volume = Volumes(pool.server), vms(), offers["nfs"].volume
    assert isinstance(volume.connection, NfsConnection)
    sr = pool.server.call("SR.introduce", volume.connection.sr, "theirs", "", "nfs", "user", True, {})
    with pool.nothing_left(), pytest.raises(Refused) as caught:
        it.attach(vm, volume)
    assert caught.value.code == "sr_not_on_host"
    pbd = pool.server.call("PBD.create", {"host": vm.host, "SR": sr, "device_config": NFS, "other_config": {}})
    pool.server.call("PBD.plug", pbd)
    with pool.nothing_left():
        it.attach(vm, volume)
        it.detach(vm, volume)
    assert pool.server.call("PBD.get_currently_attached", pbd)
    pool.server.call("PBD.unplug", pbd)
    pool.server.call("SR.forget", sr)


@pytest.mark.parametrize("kind", ["nfs", "iscsi"])
def test_a_connection_that_was_cut_is_made_anew(pool: Pool, vms: Any, offers: dict[str, Offered], kind: str) -> None:
    it, vm, other = Volumes(pool.server), vms(running=False), vms(running=False)
    with pool.nothing_left():
        it.attach(vm, offers[kind].volume)
        sr = pool.server.call("VDI.get_SR", record(pool, vm)["VDI"])
        for pbd in pool.server.call("SR.get_PBDs", sr):
            pool.server.call("PBD.unplug", pbd)
        it.attach(other, offers[kind].other)
        pbds = pool.server.call("SR.get_PBDs", sr)
        assert [pool.server.call("PBD.get_currently_attached", pbd) for pbd in pbds] == [True, True]
        it.detach(vm, offers[kind].volume)
        it.detach(other, offers[kind].other)


def test_volumes_in_use_are_listed(pool: Pool, vms: Any, offers: dict[str, Offered]) -> None:
    it, vm, other = Volumes(pool.server), vms(), vms(running=False)
    assert it.in_use() == []
    it.attach(other, offers["vdi"].other)
    it.attach(vm, offers["nfs"].volume)
    assert it.in_use() == [
        AttachedVolume("vol-1", vm.uuid, "xvda", True),
        AttachedVolume("vol-2", other.uuid, "0", False),
    ]
    it.detach(vm, offers["nfs"].volume)
    it.detach(other, offers["vdi"].other)
    assert it.in_use() == []


def test_all_volumes_of_a_vm_that_is_to_be_destroyed(pool: Pool, vms: Any, offers: dict[str, Offered]) -> None:
    it, vm = Volumes(pool.server), vms(running=False)
    with pool.nothing_left():
        for number, offered in enumerate(offers.values()):
            it.attach(vm, replace(offered.volume, id=f"vol-{number}"))
            it.attach(vm, replace(offered.other, id=f"other-{number}"))
        it.detach_all(vm)


def test_a_volume_that_is_not_where_it_should_be(pool: Pool, vms: Any, offers: dict[str, Offered]) -> None:
    it, vm = Volumes(pool.server), vms()
    nfs = offers["nfs"].volume.connection
    assert isinstance(nfs, NfsConnection)
    for missing in (VdiConnection(str(uuid.uuid4())), replace(nfs, vdi=str(uuid.uuid4())), replace(ISCSI, lun=9)):
        with pool.nothing_left(), pytest.raises(VolumeNotFound) as caught:
            it.attach(vm, Volume("vol-1", missing))
        assert caught.value.code == "volume_not_found"


def test_a_read_only_volume_is_not_written_to(pool: Pool, vms: Any, offers: dict[str, Offered]) -> None:
    connection = offers["vdi"].volume.connection
    assert isinstance(connection, VdiConnection)
    vdi = pool.server.call("VDI.get_by_uuid", connection.uuid)
    pool.server.call("VDI.set_read_only", vdi, True)
    it, vm = Volumes(pool.server), vms()
    with pytest.raises(Refused) as caught:
        it.attach(vm, offers["vdi"].volume)
    pool.server.call("VDI.set_read_only", vdi, False)
    assert caught.value.code == "volume_read_only"


@pytest.mark.parametrize("way, running", [("lost", False), *((way, True) for way in WAYS)])
def test_nothing_is_left_whichever_call_of_attaching_goes_wrong(
    pool: Pool, vms: Any, offered: Offered, way: str, running: bool, caplog: pytest.LogCaptureFixture
) -> None:
    vm = vms(running=running)
    before = pool.inventory()
    with caplog.at_level(logging.DEBUG):
        for faulty in each_call(pool.server, lambda server: Volumes(server).attach(vm, offered.volume), way):
            assert pool.inventory() == before, faulty.methods
            assert not {"VDI.destroy", "SR.destroy"} & set(faulty.methods)
    assert CHAP not in caplog.text
    Volumes(pool.server).detach(vm, offered.volume)


@pytest.mark.parametrize("way", WAYS)
def test_detaching_can_be_asked_for_again_whichever_call_goes_wrong(
    pool: Pool, vms: Any, offered: Offered, way: str
) -> None:
    vm, it = vms(), Volumes(pool.server)
    before = pool.inventory()
    it.attach(vm, offered.volume)
    for faulty in each_call(pool.server, lambda server: Volumes(server).detach(vm, offered.volume), way):
        it.detach(vm, offered.volume)
        assert pool.inventory() == before, faulty.methods
        assert not {"VDI.destroy", "SR.destroy"} & set(faulty.methods)
        it.attach(vm, offered.volume)


def test_a_failure_that_repeats_the_password_does_not_tell_it(pool: Pool, vms: Any, offers: dict[str, Offered]) -> None:
    faulty: Any = Faulty(pool.server)
    faulty.replies["PBD.plug"] = XenServerFailure(["SR_BACKEND_FAILURE_68", "", f"login as ada, {CHAP}", ""])
    with pytest.raises(XenServerFailure) as caught:
        Volumes(faulty).attach(vms(), offers["iscsi"].volume)
    assert CHAP not in str(caught.value)
    assert CHAP not in repr(offers["iscsi"].volume)


@pytest.mark.parametrize(
    "details, error, code",
    [
        (["VDI_IN_USE", "OpaqueRef:x"], VolumeInUse, "volume_in_use"),
        (["DISK_VBD_MUST_BE_READWRITE_FOR_HVM", "OpaqueRef:x"], Unsupported, "read_only_unsupported"),
    ],
)
def test_what_xenserver_has_against_plugging_it(
    pool: Pool, vms: Any, offered: Offered, details: list[str], error: type[Unsuccessful], code: str
) -> None:
    faulty: Any = Faulty(pool.server)
    faulty.replies["VBD.plug"] = XenServerFailure(details)
    vm = vms()
    with pool.nothing_left(), pytest.raises(error) as caught:
        Volumes(faulty).attach(vm, offered.volume)
    assert caught.value.code == code


def test_a_guest_that_does_not_let_go_is_not_forced(pool: Pool, vms: Any, offered: Offered) -> None:
    vm, it = vms(), Volumes(pool.server)
    it.attach(vm, offered.volume)
    faulty: Any = Faulty(pool.server)
    faulty.replies["VBD.unplug"] = XenServerFailure(["DEVICE_DETACH_REJECTED", "VBD", "OpaqueRef:x", "it is mounted"])
    with pool.nothing_left(), pytest.raises(DetachRejected, match="it is mounted"):
        Volumes(faulty).detach(vm, offered.volume)
    assert record(pool, vm)["currently_attached"]
    it.detach(vm, offered.volume)


@pytest.mark.parametrize("kind", ["nfs", "iscsi"])
def test_another_process_attaches_to_it_while_it_is_released(
    pool: Pool, vms: Any, offers: dict[str, Offered], kind: str
) -> None:
    """PBD.unplug says then that a disk is in use: everything stays connected."""
    vm, other, it = vms(), vms(running=False), Volumes(pool.server)
    it.attach(vm, offers[kind].volume)
    faulty: Any = Faulty(pool.server)
    faulty.replies["PBD.unplug"] = XenServerFailure(["VDI_IN_USE", "OpaqueRef:x"])
    Volumes(faulty).detach(vm, offers[kind].volume)
    assert "SR.forget" not in faulty.methods
    it.attach(other, offers[kind].volume)
    it.detach(other, offers[kind].volume)
