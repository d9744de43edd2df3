"""The host, the pool, and classes with little behaviour."""

from __future__ import annotations

import pytest
import XenAPI

from .support import NULL, Vm, failure

ALWAYS = {"provision", "evacuate", "vm_start", "vm_resume", "vm_migrate"}


@pytest.fixture
def host(session: XenAPI.Session) -> str:
    ref: str = session.xenapi.host.get_all()[0]
    return ref


def test_host_record(session: XenAPI.Session, host: str) -> None:
    api = session.xenapi
    record = api.host.get_record(host)
    assert record["software_version"]["product_brand"] == "XCP-ng"
    assert len(record["host_CPUs"]) == int(record["cpu_info"]["cpu_count"])
    cpu = api.host_cpu.get_record(record["host_CPUs"][3])
    assert (cpu["number"], cpu["host"], cpu["vendor"]) == ("3", host, "GenuineIntel")
    assert record["chipset_info"]["iommu"] == "true"
    assert set(record["allowed_operations"]) == ALWAYS
    dom0 = record["control_domain"]
    consoles = [api.console.get_record(console) for console in api.VM.get_consoles(dom0)]
    assert {console["protocol"] for console in consoles} == {"rfb", "vt100"}
    assert all("/console?ref=OpaqueRef:" in console["location"] for console in consoles)
    assert failure(api.console.create, {"other_config": {}}) == ["NOT_IMPLEMENTED", "console.create"]
    assert str(api.host.get_servertime(host)) > "2020"
    assert "VM.start" in api.host.list_methods()
    assert api.host.get_sched_gran(host) == "cpu"


def test_disabling(session: XenAPI.Session, host: str, vm: Vm) -> None:
    api = session.xenapi.host
    for call in (api.reboot, api.shutdown):
        assert failure(call, host) == ["HOST_NOT_DISABLED"]
    api.disable(host)
    try:
        assert set(api.get_allowed_operations(host)) == ALWAYS | {"reboot", "shutdown", "apply_updates", "enable"}
        assert failure(vm.start, False, False) == ["NO_HOSTS_AVAILABLE"]
        assert vm.get_possible_hosts() == []
        assert failure(vm.assert_can_boot_here, host) == ["HOST_DISABLED", host]
        api.enable(host)
        vm.start(False, False)
        api.disable(host)
        assert failure(api.reboot, host) == ["HOST_IN_USE", host, "VM", vm.ref]
        vm.hard_shutdown()
        assert failure(api.reboot, host)[0] == "NOT_IMPLEMENTED"
    finally:
        api.enable(host)
    assert set(api.get_allowed_operations(host)) == ALWAYS


def test_evacuation(session: XenAPI.Session, host: str, vm: Vm) -> None:
    api = session.xenapi.host
    api.assert_can_evacuate(host)
    api.evacuate(host)
    vm.start(False, False)
    assert api.get_vms_which_prevent_evacuation(host) == {vm.ref: ["NO_HOSTS_AVAILABLE", vm.ref]}
    expected = ["CANNOT_EVACUATE_HOST", f"NO_HOSTS_AVAILABLE,{vm.ref}"]
    assert failure(api.assert_can_evacuate, host) == expected
    assert failure(api.evacuate, host) == expected
    assert api.get_uncooperative_resident_VMs(host) == []


def test_refusals_of_the_only_host(session: XenAPI.Session, host: str) -> None:
    api = session.xenapi
    for call in (api.host.power_on, api.host.declare_dead):
        assert failure(call, host) == ["HOST_IS_LIVE", host]
    assert failure(api.host.destroy, host) == ["HOST_CANNOT_DESTROY_SELF", host]
    assert failure(api.pool.eject, host)[0] == "OPERATION_NOT_ALLOWED"
    assert failure(api.pool.eject, NULL) == ["HANDLE_INVALID", "host", NULL]
    api.pool.designate_new_master(host)
    assert failure(api.pool.designate_new_master, NULL)[0] == "HANDLE_INVALID"
    assert api.pool.recover_slaves() == []


def test_host_names(session: XenAPI.Session, host: str) -> None:
    api = session.xenapi.host
    for bad in ("", "x" * 256, "a_b", "-a", "a-", "ü"):
        assert failure(api.set_hostname_live, host, bad)[0] == "HOST_NAME_INVALID"
    before = api.get_hostname(host)
    api.set_hostname_live(host, "other.example")
    assert api.get_hostname(host) == "other.example"
    api.set_hostname_live(host, before)


def test_host_settings(session: XenAPI.Session, host: str) -> None:
    api = session.xenapi.host
    api.set_power_on_mode(host, "wake-on-lan", {"a": "b"})
    assert (api.get_power_on_mode(host), api.get_power_on_config(host)) == ("wake-on-lan", {"a": "b"})
    assert failure(api.apply_edition, host, "gold") == ["INVALID_EDITION", "gold"]
    api.apply_edition(host, "xcp-ng")
    api.set_iscsi_iqn(host, "iqn.2001-01.example:x")
    assert api.has_extension(host, "x") is False
    assert failure(api.call_extension, host, '{"method": "a.b", "params": []}') == ["MESSAGE_METHOD_UNKNOWN", "a.b"]
    for bad in ("", "{}", "[" * 100_000):
        assert failure(api.call_extension, host, bad)[0] == "INTERNAL_ERROR"
    api.sync_data(host)
    api.management_reconfigure(session.xenapi.host.get_management_interface(host))


def test_pool(session: XenAPI.Session, vm: Vm) -> None:
    api = session.xenapi.pool
    (pool,) = api.get_all()
    api.set_name_label(pool, "mine")
    assert api.get_all_where('field "name_label"="mine"') == [pool]
    api.set_name_label(pool, "")
    assert "designate_new_master" in api.get_allowed_operations(pool)
    assert api.get_license_state(pool) == {"edition": "xcp-ng", "expiry": "never"}
    assert api.has_extension(pool, "x") is False
    assert api.certificate_list() == []
    api.sync_database()
    api.detect_nonhomogeneous_external_auth(pool)
    api.configure_update_sync(pool, "weekly", "6")
    for frequency, day in (("weekly", "7"), ("daily", "1"), ("weekly", "-1")):
        assert failure(api.configure_update_sync, pool, frequency, day) == ["INVALID_UPDATE_SYNC_DAY", day]
    api.set_ext_auth_cache_size(pool, "10")
    assert api.get_ext_auth_cache_size(pool) == "10"
    assert failure(api.join, "host.invalid", "root", "secret") == ["JOINING_HOST_CONNECTION_FAILED"]
    vm.start(False, False)
    assert failure(api.join_force, "host.invalid", "root", "secret") == ["JOINING_HOST_CANNOT_HAVE_RUNNING_VMS"]


def test_secrets(session: XenAPI.Session) -> None:
    api = session.xenapi.secret
    ref = api.create({"value": "x", "other_config": {}})
    assert api.get_value(ref) == "x"
    uuid = "6d7b5a3e-0000-4000-8000-000000000001"
    other = api.introduce(uuid, "y", {})
    assert api.get_by_uuid(uuid) == other
    for made in (ref, other):
        api.destroy(made)
    assert api.get_all() == []


def test_graphics(session: XenAPI.Session, vm: Vm) -> None:
    api = session.xenapi
    assert api.GPU_group.get_all() == api.PGPU.get_all() == api.VGPU_type.get_all() == []
    assert api.PGPU.get_all_records_where("true") == {}
    assert failure(api.GPU_group.get_by_uuid, "x") == ["UUID_INVALID", "GPU_group", "x"]
    assert failure(api.VGPU.create, vm.ref, NULL, "0", {}) == ["HANDLE_INVALID", "GPU_group", NULL]
    group = api.GPU_group.create("none", "", {})
    assert failure(api.VGPU.create, vm.ref, group, "0", {}) == ["GPU_GROUP_CONTAINS_NO_PGPUS", group]
    assert failure(api.VGPU.create, vm.ref, group, "1", {}) == ["INVALID_DEVICE", "1"]
    assert failure(api.GPU_group.get_remaining_capacity, group, NULL) == ["HANDLE_INVALID", "VGPU_type", NULL]
    assert api.GPU_group.get_enabled_VGPU_types(group) == []
    api.GPU_group.destroy(group)
