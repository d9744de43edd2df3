"""The generated calls: getters, setters, maps, sets, searches, and the records' types on the wire."""

from __future__ import annotations

import pytest
import XenAPI

from .support import NULL, Vm, failure


def test_records_have_wire_types(session: XenAPI.Session, vm: Vm) -> None:
    record = vm.get_record()
    assert record["name_label"] == "test"
    assert record["domid"] == "-1"
    assert record["memory_static_max"] == str(256 * 1024 * 1024)
    assert record["HVM_shadow_multiplier"] == 1.0
    assert record["is_a_template"] is False
    assert str(record["snapshot_time"]) == "19700101T00:00:00Z"
    assert record["resident_on"] == NULL
    assert record["VBDs"] == []
    assert record["HVM_boot_params"] == {"order": "cd"}
    assert record["actions_after_softreboot"] == "soft_reboot"
    assert record["parent"] == NULL
    assert "mac_seed" in record["other_config"]
    assert session.xenapi.VM.get_all_records()[vm.ref] == record
    for name in ("domid", "memory_static_max", "platform", "is_a_template"):
        assert getattr(vm, f"get_{name}")() == record[name]


def test_labels(session: XenAPI.Session, vm: Vm) -> None:
    vm.set_name_label("a & <b> \"c\" 'ü' ☃")
    assert vm.get_name_label() == "a & <b> \"c\" 'ü' ☃"
    assert session.xenapi.VM.get_by_name_label("a & <b> \"c\" 'ü' ☃") == [vm.ref]
    assert session.xenapi.VM.get_by_name_label("nobody") == []


@pytest.mark.parametrize("field", ["xenstore_data", "HVM_boot_params", "other_config", "platform"])
def test_maps(vm: Vm, field: str) -> None:
    getattr(vm, f"set_{field}")({"a": "1"})
    getattr(vm, f"add_to_{field}")("b", "2")
    error = failure(getattr(vm, f"add_to_{field}"), "b", "3")
    assert error == ["MAP_DUPLICATE_KEY", "VM", field, vm.ref, "b"]
    getattr(vm, f"remove_from_{field}")("a")
    getattr(vm, f"remove_from_{field}")("a")
    assert getattr(vm, f"get_{field}")() == {"b": "2"}


def test_sets(vm: Vm) -> None:
    vm.add_tags("x")
    vm.add_tags("x")
    vm.add_tags("y")
    vm.remove_tags("x")
    vm.remove_tags("x")
    assert vm.get_tags() == ["y"]


def test_ints_come_as_text_or_numbers(vm: Vm) -> None:
    for given in ("7", 7):
        vm.set_user_version(given)
        assert vm.get_user_version() == "7"
    for bad in ("seven", 1.5, True, str(2**63), "9" * 10_000):
        assert failure(vm.set_user_version, bad)[0] == "INTERNAL_ERROR"


def test_enums(vm: Vm) -> None:
    vm.set_actions_after_shutdown("restart")
    assert failure(vm.set_actions_after_shutdown, "explode")[0] == "INVALID_VALUE"


def test_searches(session: XenAPI.Session, vm: Vm) -> None:
    vms = session.xenapi.VM
    ours = 'field "name__label"="test" and field "power_state"="Halted" and not field "is_control_domain"="true"'
    assert set(vms.get_all_records_where(ours)) == {vm.ref}
    assert vms.get_all_where(ours) == [vm.ref]
    assert vms.get_all_where('field "VCPUs__max"="2" and field "memory__static_max"="268435456"') == [vm.ref]
    assert vms.get_all_where(f'field "resident_on"="{NULL}"') == [vm.ref]
    assert vms.get_all_where("field \"xenstore_data\"=\"(('vm-data/site' 'here') ('elsewhere' 'hidden'))\"") == [vm.ref]
    assert vms.get_all_where("false") == []
    assert len(vms.get_all_where("true")) == len(vms.get_all())
    assert failure(vms.get_all_where, "bad")[:2] == ["INVALID_VALUE", "bad"]
    assert failure(vms.get_all_where, 'field "nothing"=""')[0] == "INTERNAL_ERROR"


def test_create_needs_its_members(session: XenAPI.Session) -> None:
    error = failure(session.xenapi.VM.create, {"name_label": "x"})
    assert error[0] == "INTERNAL_ERROR"
    assert "not present in rpc" in error[1]
    assert failure(session.xenapi.VM.create, "no record")[0] == "INTERNAL_ERROR"


def test_prepared_content(session: XenAPI.Session) -> None:
    api = session.xenapi
    (pool,), (host,), (sr,), (network,), (pif,) = (
        getattr(api, cls).get_all() for cls in ("pool", "host", "SR", "network", "PIF")
    )
    assert api.pool.get_master(pool) == host
    assert api.pool.get_default_SR(pool) == sr
    assert api.SR.get_type(sr) == "ext"
    (pbd,) = api.SR.get_PBDs(sr)
    assert api.host.get_PBDs(host) == [pbd]
    assert api.PBD.get_currently_attached(pbd)
    assert api.network.get_bridge(network) == "xenbr0"
    assert api.network.get_PIFs(network) == api.host.get_PIFs(host) == [pif]
    assert api.host.get_management_interface(host) == pif
    (dom0,) = api.VM.get_all_where('field "is_control_domain"="true"')
    assert api.VM.get_domid(dom0) == "0"
    assert api.host.get_control_domain(host) == dom0
    assert dom0 in api.host.get_resident_VMs(host)
    assert failure(api.VM.hard_shutdown, dom0)[0] == "OPERATION_NOT_ALLOWED"
    assert api.host_metrics.get_live(api.host.get_metrics(host))
    assert int(api.host.compute_free_memory(host)) > 2**30
