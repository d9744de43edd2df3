"""Clones, copies, snapshots, checkpoints, reverting, provisioning."""

from __future__ import annotations

from typing import Any

import pytest
import XenAPI

from .support import MIB, NULL, Vm, failure
from .test_devices import vbd_record, vdi_record
from .test_vm import vif_record


@pytest.fixture
def full(session: XenAPI.Session, vm: Vm) -> Any:
    """A VM with a disk, an empty drive and an interface; all that is made of it is removed."""
    api = session.xenapi
    before = set(api.VM.get_all()), set(api.VDI.get_all())
    disk = api.VDI.create(vdi_record(session, name_label="root"))
    api.VBD.create(vbd_record(vm, disk, userdevice="0"))
    api.VBD.create(vbd_record(vm, NULL, userdevice="3", type="CD", mode="RO", empty=True))
    network = api.network.get_by_name_label("Pool-wide network associated with eth0")[0]
    api.VIF.create(vif_record(vm, network))
    yield vm
    for ref in set(api.VM.get_all()) - before[0] - {vm.ref}:
        if api.VM.get_is_a_snapshot(ref):
            api.VM.destroy(ref)
        else:
            Vm(session, ref).destroy()
    vm.destroy()
    # What is not managed is kept for the others' sake, and goes with the last of them.
    for ref in api.VDI.get_all_where('field "managed"="true"'):
        if ref not in before[1]:
            api.VDI.destroy(ref)


def disks(session: XenAPI.Session, vm: str) -> list[str]:
    api = session.xenapi
    vdis = [api.VBD.get_VDI(vbd) for vbd in api.VM.get_VBDs(vm)]
    return [vdi for vdi in vdis if vdi != NULL]


@pytest.mark.parametrize("call", ["clone", "copy"])
def test_clones_and_copies(session: XenAPI.Session, full: Vm, call: str) -> None:
    api = session.xenapi
    ref = full.clone("second") if call == "clone" else full.copy("second", NULL)
    old, new = full.get_record(), api.VM.get_record(ref)
    assert new["name_label"] == "second"
    assert new["power_state"] == "Halted"
    assert new["parent"] == full.ref
    assert full.get_children() == [ref]
    assert (new["is_a_snapshot"], new["is_a_template"], new["snapshot_of"]) == (False, False, NULL)
    assert new["other_config"]["mac_seed"] != old["other_config"]["mac_seed"]
    for name in ("memory_static_max", "VCPUs_max", "platform", "HVM_boot_params", "xenstore_data"):
        assert new[name] == old[name]
    for name in ("uuid", "metrics", "VBDs", "VIFs"):
        assert new[name] != old[name]
    assert len(new["VBDs"]) == 2
    (disk,), (copied,) = disks(session, full.ref), disks(session, ref)
    assert disk != copied
    assert api.VDI.get_virtual_size(disk) == api.VDI.get_virtual_size(copied)
    (vif,), (copied_vif,) = old["VIFs"], new["VIFs"]
    assert api.VIF.get_MAC(vif) != api.VIF.get_MAC(copied_vif)
    assert api.VIF.get_network(vif) == api.VIF.get_network(copied_vif)
    Vm(session, ref).start(False, False)
    assert failure(api.VM.clone, ref, "third") == ["VM_BAD_POWER_STATE", ref, "halted", "running"]


def test_snapshot_of_a_running_vm(session: XenAPI.Session, full: Vm) -> None:
    api = session.xenapi
    full.start(False, False)
    ref = full.snapshot("before", [])
    record = api.VM.get_record(ref)
    assert (record["is_a_snapshot"], record["is_a_template"], record["power_state"]) == (True, True, "Halted")
    assert record["snapshot_of"] == full.ref
    assert full.get_snapshots() == [ref]
    assert full.get_parent() == ref
    assert record["snapshot_info"]["power-state-at-snapshot"] == "Running"
    assert str(record["snapshot_time"]) > "2020"
    assert record["domid"] == "-1"
    (vif,) = record["VIFs"]
    assert api.VIF.get_MAC(vif) == api.VIF.get_MAC(full.get_VIFs()[0])
    assert not api.VIF.get_currently_attached(vif)
    (disk,) = disks(session, ref)
    assert api.VDI.get_is_a_snapshot(disk)
    assert api.VDI.get_snapshot_of(disk) == disks(session, full.ref)[0]
    assert set(api.VM.get_allowed_operations(ref)) == {"clone", "copy", "revert", "export", "destroy", "create_vtpm"}
    assert failure(api.VM.start, ref, False, False) == ["VM_IS_SNAPSHOT", ref, "start"]
    assert full.get_power_state() == "Running"
    assert full.get_current_operations() == {}


def test_snapshot_without_some_disks(session: XenAPI.Session, full: Vm) -> None:
    ref = full.snapshot("without", disks(session, full.ref))
    assert disks(session, ref) == []


def test_revert(session: XenAPI.Session, full: Vm) -> None:
    api = session.xenapi
    full.set_name_description("then")
    mac = api.VIF.get_MAC(full.get_VIFs()[0])
    ref = full.snapshot("before", [])
    full.set_name_description("now")
    full.set_VCPUs_max("4")
    (disk,) = disks(session, full.ref)
    api.VIF.destroy(full.get_VIFs()[0])
    full.start(False, False)
    api.VM.revert(ref)
    assert full.get_power_state() == "Halted"
    assert full.get_name_description() == "then"
    assert full.get_name_label() == "test"
    assert full.get_VCPUs_max() == "2"
    assert api.VIF.get_MAC(full.get_VIFs()[0]) == mac
    assert not full.get_is_a_snapshot()
    assert not full.get_is_a_template()
    assert full.get_snapshots() == [ref]
    (restored,) = disks(session, full.ref)
    assert restored != disk
    assert failure(api.VDI.get_record, disk)[0] == "HANDLE_INVALID"
    assert not api.VDI.get_is_a_snapshot(restored)
    full.start(False, False)
    assert failure(api.VM.revert, full.ref) == ["ONLY_REVERT_SNAPSHOT"]


def test_checkpoint(session: XenAPI.Session, full: Vm) -> None:
    api = session.xenapi
    assert failure(full.checkpoint, "x") == ["VM_BAD_POWER_STATE", full.ref, "paused, suspended, running", "halted"]
    full.start(False, False)
    domid = full.get_domid()
    ref = full.checkpoint("with memory")
    assert full.get_power_state() == "Running"
    assert int(full.get_domid()) > int(domid)
    assert api.VM.get_power_state(ref) == "Suspended"
    image = api.VM.get_suspend_VDI(ref)
    assert api.VDI.get_type(image) == "suspend"
    api.VM.revert(ref)
    assert full.get_power_state() == "Suspended"
    full.resume(False, False)
    assert full.get_power_state() == "Running"


def test_provision(session: XenAPI.Session, vm: Vm) -> None:
    api = session.xenapi
    assert failure(vm.provision) == ["ONLY_PROVISION_TEMPLATE"]
    sr = api.pool.get_default_SR(api.pool.get_all()[0])
    text = f'<provision><disk device="0" size="{8 * MIB}" sr="" bootable="true" type="system"/></provision>'
    vm.add_to_other_config("disks", text)
    vm.set_is_a_template(True)
    ref = vm.clone("from template")
    assert api.VM.get_is_a_template(ref)
    api.VM.provision(ref)
    provisioned = Vm(session, ref)
    try:
        assert not provisioned.get_is_a_template()
        assert "disks" not in provisioned.get_other_config()
        (vbd,) = provisioned.get_VBDs()
        assert api.VBD.get_bootable(vbd)
        vdi = api.VBD.get_VDI(vbd)
        assert (api.VDI.get_SR(vdi), api.VDI.get_type(vdi)) == (sr, "system")
        assert int(api.VDI.get_virtual_size(vdi)) == 8 * MIB
        provisioned.start(False, False)
    finally:
        provisioned.destroy()
    api.VDI.destroy(vdi)
    for bad in ("<provision", '<!DOCTYPE x [<!ENTITY a "b">]><provision/>'):
        vm.remove_from_other_config("disks")
        vm.add_to_other_config("disks", bad)
        assert failure(vm.provision)[0] == "INTERNAL_ERROR"
        assert vm.get_is_a_template()


def test_a_disk_that_cannot_be_copied_leaves_nothing(session: XenAPI.Session, full: Vm) -> None:
    api = session.xenapi
    before = set(api.VM.get_all()), set(api.VDI.get_all()), set(api.VM_metrics.get_all())
    (disk,) = disks(session, full.ref)
    (pbd,) = api.SR.get_PBDs(api.VDI.get_SR(disk))
    api.PBD.unplug(pbd)
    try:
        for call, arguments in (("copy", ("x", NULL)), ("clone", ("x",)), ("snapshot", ("x", []))):
            assert failure(getattr(full, call), *arguments)[0].startswith("SR_")
    finally:
        api.PBD.plug(pbd)
    assert (set(api.VM.get_all()), set(api.VDI.get_all()), set(api.VM_metrics.get_all())) == before
    assert full.get_current_operations() == {}


def test_migration_within_the_only_host(session: XenAPI.Session, vm: Vm) -> None:
    api = session.xenapi
    host = api.host.get_all()[0]
    network = api.network.get_by_name_label("Pool-wide network associated with eth0")[0]
    assert failure(vm.pool_migrate, host, {}) == ["VM_BAD_POWER_STATE", vm.ref, "running", "halted"]
    vm.start(False, False)
    domid = int(vm.get_domid())
    vm.pool_migrate(host, {"live": "true"})
    assert int(vm.get_domid()) > domid
    assert failure(vm.pool_migrate, NULL, {}) == ["HANDLE_INVALID", "host", NULL]
    destination = api.host.migrate_receive(host, network, {})
    assert set(destination) == {"SM", "host", "xenops", "session_id", "master"}
    assert api.session.get_originator(destination["session_id"]) == "migration"
    arguments: tuple[Any, ...] = (destination, True, {}, {}, {})
    assert vm.assert_can_migrate(*arguments) == ""
    assert vm.migrate_send(*arguments) == vm.ref
    assert failure(vm.assert_can_migrate, {}, True, {}, {}, {}) == ["INTERNAL_ERROR", "Not_found"]
    stranger = {**destination, "host": NULL}
    assert failure(vm.migrate_send, stranger, True, {}, {}, {}) == ["VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED"]
    stranger = {**destination, "session_id": NULL}
    assert failure(vm.migrate_send, stranger, True, {}, {}, {}) == ["VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED"]
    assert vm.get_power_state() == "Running"
    assert vm.get_current_operations() == {}
    other = api.network.create({"name_label": "internal", "other_config": {}})
    assert failure(api.host.migrate_receive, host, other, {}) == ["HOST_CANNOT_ATTACH_NETWORK", host, other]
    api.network.destroy(other)


def test_copies_made_before_one_that_fails_are_removed(session: XenAPI.Session, full: Vm) -> None:
    api = session.xenapi
    host = api.host.get_all()[0]
    record = vdi_record(session, name_label="data")
    sr = api.SR.create(host, {"device": "/dev/sdz"}, "0", "second", "", "ext", "user", False, {})
    (pbd,) = api.SR.get_PBDs(sr)
    other = api.VDI.create({**record, "SR": sr})
    api.VBD.create(vbd_record(full, other, userdevice="9"))
    api.PBD.unplug(pbd)
    before = set(api.VM.get_all()), set(api.VDI.get_all_where('field "managed"="true"'))
    for call, arguments in (("copy", ("x", NULL)), ("clone", ("x",)), ("snapshot", ("x", []))):
        failure(getattr(full, call), *arguments)
        assert (set(api.VM.get_all()), set(api.VDI.get_all_where('field "managed"="true"'))) == before
    api.PBD.plug(pbd)
    full.destroy()
    api.VDI.destroy(other)
    api.PBD.unplug(pbd)
    api.SR.forget(sr)
