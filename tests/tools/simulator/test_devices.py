"""Disks and network interfaces: what a client meets when it makes, plugs and removes them."""

from __future__ import annotations

from typing import Any

import pytest
import XenAPI

from .support import MIB, NULL, Vm, failure
from .test_vm import vif_record


def vdi_record(session: XenAPI.Session, **changes: Any) -> dict[str, Any]:
    (sr,) = session.xenapi.SR.get_all()
    record = {
        "name_label": "disk",
        "SR": sr,
        "virtual_size": str(10 * MIB),
        "type": "user",
        "sharable": False,
        "read_only": False,
        "other_config": {},
    }
    return {**record, **changes}


def vbd_record(vm: Vm, vdi: str, **changes: Any) -> dict[str, Any]:
    record = {
        "VM": vm.ref,
        "VDI": vdi,
        "userdevice": "autodetect",
        "bootable": False,
        "mode": "RW",
        "type": "Disk",
        "empty": False,
        "other_config": {},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
    }
    return {**record, **changes}


@pytest.fixture
def vdi(session: XenAPI.Session) -> Any:
    ref = session.xenapi.VDI.create(vdi_record(session))
    yield ref
    if ref in session.xenapi.VDI.get_all():
        session.xenapi.VDI.destroy(ref)


def test_vdi(session: XenAPI.Session, vdi: str) -> None:
    api = session.xenapi
    record = api.VDI.get_record(vdi)
    assert record["virtual_size"] == str(12 * MIB)
    assert record["location"] == record["uuid"]
    assert record["managed"] is True
    (sr,) = api.SR.get_all()
    assert vdi in api.SR.get_VDIs(sr)
    assert api.SR.get_virtual_allocation(sr) == str(12 * MIB)
    api.VDI.resize(vdi, str(20 * MIB))
    assert api.VDI.get_virtual_size(vdi) == str(20 * MIB)
    assert failure(api.VDI.create, vdi_record(session, virtual_size=str(2**60)))[0] == "SR_BACKEND_FAILURE_44"
    api.VDI.destroy(vdi)
    assert api.SR.get_VDIs(sr) == []
    assert api.SR.get_virtual_allocation(sr) == "0"


def test_vbd_checks(session: XenAPI.Session, vm: Vm, vdi: str) -> None:
    api = session.xenapi
    first = api.VBD.create(vbd_record(vm, vdi, userdevice="0"))
    assert api.VBD.get_device(first) == ""
    assert api.VM.get_VBDs(vm.ref) == api.VDI.get_VBDs(vdi) == [first]
    assert vm.get_allowed_VBD_devices()[:2] == ["1", "2"]
    for alias in ("0", "hda", "xvda"):
        error = failure(api.VBD.create, vbd_record(vm, vdi, userdevice=alias))
        assert error == ["DEVICE_ALREADY_EXISTS", alias]
    for bad in ("", "zzz", "255", "-1", "xvdzz"):
        assert failure(api.VBD.create, vbd_record(vm, vdi, userdevice=bad)) == ["INVALID_DEVICE", bad]
    second = api.VBD.create(vbd_record(vm, vdi))
    assert api.VBD.get_userdevice(second) == "1"
    assert failure(api.VBD.create, vbd_record(vm, NULL)) == ["HANDLE_INVALID", "VDI", NULL]
    assert failure(api.VBD.create, vbd_record(vm, vdi, VM=NULL)) == ["HANDLE_INVALID", "VM", NULL]
    cd = {"type": "CD", "empty": True}
    assert failure(api.VBD.create, vbd_record(vm, NULL, **cd)) == ["VBD_CDS_MUST_BE_READONLY"]
    assert failure(api.VBD.create, vbd_record(vm, NULL, empty=True)) == ["VBD_NOT_REMOVABLE_MEDIA", "in constructor"]
    drive = api.VBD.create(vbd_record(vm, NULL, mode="RO", **cd))
    assert failure(api.VBD.eject, drive) == ["VBD_IS_EMPTY", drive]
    api.VBD.insert(drive, vdi)
    api.VBD.eject(drive)
    api.VDI.set_read_only(vdi, True)
    assert failure(api.VBD.create, vbd_record(vm, vdi)) == ["VDI_READONLY", vdi]
    api.VBD.destroy(second)
    assert api.VDI.get_VBDs(vdi) == [first]


def test_vbd_in_a_running_vm(session: XenAPI.Session, vm: Vm, vdi: str) -> None:
    api = session.xenapi
    vbd = api.VBD.create(vbd_record(vm, vdi))
    assert failure(api.VBD.plug, vbd) == ["VM_BAD_POWER_STATE", vm.ref, "running", "halted"]
    vm.start(False, False)
    assert api.VBD.get_currently_attached(vbd)
    assert api.VBD.get_device(vbd) == "xvda"
    assert failure(api.VBD.plug, vbd) == ["DEVICE_ALREADY_ATTACHED", vbd]
    assert failure(api.VDI.destroy, vdi) == ["VDI_IN_USE", vdi, "destroy"]
    assert failure(api.VDI.resize, vdi, str(2**30)) == ["VDI_IN_USE", vdi, "resize"]
    assert failure(api.VBD.destroy, vbd)[0] == "OPERATION_NOT_ALLOWED"
    other = api.VBD.create(vbd_record(vm, vdi))
    assert failure(api.VBD.plug, other) == ["VDI_IN_USE", vdi]
    (pbd,) = api.PBD.get_all()
    assert failure(api.PBD.unplug, pbd) == ["VDI_IN_USE", vdi]
    api.VBD.unplug(vbd)
    assert failure(api.VBD.unplug, vbd) == ["DEVICE_ALREADY_DETACHED", vbd]
    api.VBD.plug(other)
    vm.hard_shutdown()
    assert not api.VBD.get_currently_attached(other)


def test_vdi_outlives_its_vm(session: XenAPI.Session, vm: Vm, vdi: str) -> None:
    vbd = session.xenapi.VBD.create(vbd_record(vm, vdi))
    vm.destroy()
    assert failure(session.xenapi.VBD.get_record, vbd)[0] == "HANDLE_INVALID"
    assert session.xenapi.VDI.get_VBDs(vdi) == []


def test_vif(session: XenAPI.Session, vm: Vm) -> None:
    api = session.xenapi
    (network,) = api.network.get_all()
    vif = api.VIF.create(vif_record(vm, network))
    mac = api.VIF.get_MAC(vif)
    assert int(mac[:2], 16) & 3 == 2
    assert api.VIF.get_MAC_autogenerated(vif)
    assert failure(api.VIF.create, vif_record(vm, network)) == ["DEVICE_ALREADY_EXISTS", "0"]
    for bad in ("", "x", "-1"):
        assert failure(api.VIF.create, vif_record(vm, network, device=bad)) == ["INVALID_DEVICE", bad]
    assert failure(api.VIF.create, vif_record(vm, network, device="1", MAC="zz")) == ["MAC_INVALID", "zz"]
    assert failure(api.VIF.create, vif_record(vm, NULL, device="1")) == ["HANDLE_INVALID", "network", NULL]
    assert vm.get_allowed_VIF_devices() == [str(number) for number in range(1, 16)]
    vm.start(False, False)
    assert failure(api.VIF.destroy, vif) == ["OPERATION_NOT_ALLOWED", "VIF currently attached to a running VM"]
    api.VIF.unplug(vif)
    assert failure(api.VIF.unplug, vif) == ["DEVICE_ALREADY_DETACHED", vif]
    api.VIF.plug(vif)
    assert failure(api.VIF.plug, vif) == ["DEVICE_ALREADY_ATTACHED", vif]
    api.VIF.unplug(vif)
    api.VIF.destroy(vif)
    assert api.network.get_VIFs(network) == []


def test_network(session: XenAPI.Session, vm: Vm) -> None:
    api = session.xenapi
    network = api.network.create({"name_label": "n", "other_config": {}, "bridge": ""})
    assert api.network.get_bridge(network) == "xapi0"
    assert failure(api.network.create, {"other_config": {}, "bridge": "xenbr9"})[:2] == ["INVALID_VALUE", "bridge"]
    assert failure(api.network.create, {"other_config": {}, "bridge": "b" * 16})[:2] == ["INVALID_VALUE", "bridge"]
    vif = api.VIF.create(vif_record(vm, network))
    vm.start(False, False)
    assert failure(api.network.destroy, network) == ["NETWORK_CONTAINS_VIF", vif]
    vm.hard_shutdown()
    api.network.destroy(network)
    assert failure(api.VIF.get_record, vif)[0] == "HANDLE_INVALID"


def test_pbd(session: XenAPI.Session) -> None:
    api = session.xenapi
    (pbd,), (host,), (sr,) = api.PBD.get_all(), api.host.get_all(), api.SR.get_all()
    api.PBD.plug(pbd)
    api.PBD.unplug(pbd)
    api.PBD.unplug(pbd)
    assert failure(api.VDI.create, vdi_record(session)) == ["SR_HAS_NO_PBDS", sr]
    api.PBD.plug(pbd)
    assert failure(api.PBD.create, {"host": host, "SR": sr, "device_config": {}}) == ["PBD_EXISTS", sr, host, pbd]
    api.SR.scan(sr)
