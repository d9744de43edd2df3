"""What can be set about a VM, and when: memory, processors, firmware, order, figures."""

from __future__ import annotations

from typing import Any

import pytest
import XenAPI

from agent_protocol.xenstore import connect
from tools.simulator.process import SimulatorProcess

from .support import MIB, NULL, Vm, failure


def test_only_when_halted(vm: Vm) -> None:
    vm.set_NVRAM({"EFI-variables": "x"})
    vm.set_has_vendor_device(False)
    vm.set_domain_type("pvh")
    assert vm.get_HVM_boot_policy() == ""
    vm.set_HVM_boot_policy("BIOS order")
    assert vm.get_domain_type() == "hvm"
    vm.start(False, False)
    refused = ["VM_BAD_POWER_STATE", vm.ref, "halted", "running"]
    for call, arguments in (
        (vm.set_NVRAM, [{}]),
        (vm.add_to_NVRAM, ["a", "b"]),
        (vm.remove_from_NVRAM, ["a"]),
        (vm.set_has_vendor_device, [True]),
        (vm.set_domain_type, ["hvm"]),
        (vm.set_VCPUs_max, ["4"]),
        (vm.set_VCPUs_at_startup, ["1"]),
        (vm.set_memory, [str(512 * MIB)]),
        (vm.set_memory_static_min, ["1"]),
        (vm.set_memory_static_range, ["1", "2"]),
        (vm.set_HVM_shadow_multiplier, [2.0]),
    ):
        assert failure(call, *arguments) == refused
    vm.set_NVRAM_EFI_variables("y")
    assert vm.get_NVRAM() == {"EFI-variables": "y"}
    vm.set_name_label("other")
    vm.set_platform({"nx": "false"})


def test_domain_type_follows_the_boot_policy(session: XenAPI.Session, vm: Vm) -> None:
    assert vm.get_domain_type() == "hvm"


def test_memory_of_a_running_vm(session: XenAPI.Session, simulator: SimulatorProcess, vm: Vm) -> None:
    vm.set_memory_limits(str(128 * MIB), str(512 * MIB), str(128 * MIB), str(512 * MIB))
    vm.set_memory_static_range(str(64 * MIB), str(512 * MIB))
    vm.start(False, False)
    vm.set_memory_dynamic_range(str(192 * MIB), str(256 * MIB))
    metrics = session.xenapi.VM_metrics.get_memory_actual(vm.get_metrics())
    assert metrics == vm.get_memory_target() == str(256 * MIB)
    with connect(str(simulator.xenstore_socket), timeout=5.0) as store:
        base = f"/local/domain/{vm.get_domid()}/memory"
        assert store.read(f"{base}/target") == store.read(f"{base}/dynamic-max") == str(256 * 1024).encode()
        assert store.read(f"{base}/dynamic-min") == str(192 * 1024).encode()
        assert store.read(f"{base}/static-max") == str(512 * 1024).encode()
    assert failure(vm.set_memory_dynamic_max, str(1024 * MIB)) == ["MEMORY_CONSTRAINT_VIOLATION_ORDER"]
    vm.set_memory_target_live(str(200 * MIB))
    vm.wait_memory_target_live()
    assert vm.get_memory_dynamic_min() == vm.get_memory_dynamic_max() == str(200 * MIB)
    assert vm.get_cooperative() is True
    vm.set_shadow_multiplier_live(1.5)
    assert failure(vm.set_shadow_multiplier_live, 0.5)[0] == "INVALID_VALUE"


def test_maximise_memory(vm: Vm) -> None:
    total = 8192 * MIB
    exact = int(vm.maximise_memory(str(total), False))
    assert exact % MIB == 0
    vm.set_memory(str(exact))
    assert exact + int(vm.compute_memory_overhead()) <= total
    vm.set_memory(str(exact + MIB))
    assert exact + MIB + int(vm.compute_memory_overhead()) > total
    assert int(vm.maximise_memory(str(total), True)) < exact
    assert vm.maximise_memory("0", False) == "0"


def test_processors(vm: Vm) -> None:
    assert failure(vm.set_VCPUs_max, "0")[0] == "INVALID_VALUE"
    assert failure(vm.set_VCPUs_at_startup, "3")[0] == "INVALID_VALUE"
    vm.set_VCPUs_max("17")
    assert failure(vm.start, False, False) == ["NO_HOSTS_AVAILABLE"]
    host = vm.session.xenapi.host.get_all()[0]
    assert failure(vm.start_on, host, False, False) == ["HOST_NOT_ENOUGH_PCPUS", "17", "16"]
    assert failure(vm.assert_can_boot_here, host) == ["HOST_NOT_ENOUGH_PCPUS", "17", "16"]
    assert vm.get_possible_hosts() == []
    vm.add_to_platform("vcpu-unrestricted", "true")
    vm.assert_can_boot_here(host)
    assert vm.get_possible_hosts() == [host]


def test_bios_strings(vm: Vm) -> None:
    for bad in ({"nothing": "x"}, {"bios-vendor": "x" * 513}, {"bios-vendor": " x"}, {"bios-vendor": "ü"}):
        assert failure(vm.set_bios_strings, bad)[0] == "INVALID_VALUE"
    vm.set_bios_strings({"bios-vendor": "x"})
    assert failure(vm.set_bios_strings, {"bios-vendor": "y"}) == ["VM_BIOS_STRINGS_ALREADY_SET"]
    host = vm.session.xenapi.host.get_all()[0]
    assert failure(vm.copy_bios_strings, host) == ["VM_BIOS_STRINGS_ALREADY_SET"]


def test_bios_strings_of_the_host(vm: Vm) -> None:
    host = vm.session.xenapi.host.get_all()[0]
    vm.copy_bios_strings(host)
    assert vm.get_bios_strings() == vm.session.xenapi.host.get_bios_strings(host)


def test_order_and_restarts(vm: Vm) -> None:
    for name in ("order", "start_delay", "shutdown_delay"):
        getattr(vm, f"set_{name}")("5")
        assert getattr(vm, f"get_{name}")() == "5"
        assert failure(getattr(vm, f"set_{name}"), "-1")[:2] == ["INVALID_VALUE", name]
    assert failure(vm.set_ha_restart_priority, "soon")[0] == "INVALID_VALUE"
    vm.set_ha_restart_priority("best-effort")
    vm.set_ha_always_run(True)
    assert vm.get_ha_restart_priority() == "restart"


def test_groups(session: XenAPI.Session, vm: Vm) -> None:
    api = session.xenapi.VM_group
    first, second = (api.create({"name_label": name, "placement": "anti_affinity"}) for name in "ab")
    vm.set_groups([first])
    assert api.get_VMs(first) == [vm.ref]
    assert failure(vm.set_groups, [first, second])[0] == "OPERATION_NOT_ALLOWED"
    assert failure(vm.set_groups, [NULL]) == ["HANDLE_INVALID", "VM_group", NULL]
    vm.set_groups([second])
    assert (api.get_VMs(first), api.get_VMs(second)) == ([], [vm.ref])
    api.destroy(first)
    api.destroy(second)
    assert vm.get_groups() == []


def test_boot_record(vm: Vm) -> None:
    vm.set_name_description("at boot")
    vm.start(False, False)
    vm.set_name_description("now")
    assert vm.get_boot_record()["name_description"] == "at boot"
    assert vm.get_boot_record()["power_state"] == "Halted"
    assert set(vm.get_boot_record()) == set(vm.get_record())


def test_data_sources(session: XenAPI.Session, vm: Vm) -> None:
    assert failure(vm.query_data_source, "memory") == ["VM_BAD_POWER_STATE", vm.ref, "running", "halted"]
    vm.start(False, False)
    assert vm.query_data_source("memory") == 256 * MIB
    names = [source["name_label"] for source in vm.get_data_sources()]
    assert names == ["memory", "memory_target", "cpu0", "cpu_usage"]
    vm.record_data_source("cpu0")
    assert failure(vm.query_data_source, "nothing")[0] == "INTERNAL_ERROR"
    api = session.xenapi.host
    host = api.get_all()[0]
    free = api.query_data_source(host, "memory_free_kib")
    assert free * 1024 == int(api.compute_free_memory(host))
    assert {source["name_label"] for source in api.get_data_sources(host)} >= {"memory_total_kib"}
    assert failure(api.query_data_source, host, "nothing")[0] == "INTERNAL_ERROR"


def test_guest_agent_operations(session: XenAPI.Session, vm: Vm) -> None:
    assert failure(vm.call_plugin, "xenward", "f", {}) == ["XENAPI_MISSING_PLUGIN", "xenward"]
    operation = "guest-agent-operation"
    assert failure(vm.call_plugin, operation, "run-script", {})[0] == "VM_BAD_POWER_STATE"
    vm.start(False, False)
    assert failure(vm.call_plugin, operation, "fly", {})[:2] == ["XENAPI_PLUGIN_FAILURE", "failed to find fn"]
    assert failure(vm.call_plugin, operation, "run-script", {}) == ["FEATURE_RESTRICTED"]
    pool = session.xenapi.pool.get_all()[0]
    session.xenapi.pool.add_to_other_config(pool, "allow_guest_agent_run_script", "true")
    try:
        arguments: dict[str, Any] = {"username": "u", "password": "p"}
        assert failure(vm.call_plugin, operation, "run-script", arguments)[0] == "XENAPI_PLUGIN_FAILURE"
        arguments["script"] = "x" * 1025
        assert failure(vm.call_plugin, operation, "run-script", arguments)[0] == "XENAPI_PLUGIN_FAILURE"
        arguments["script"] = "x"
        assert failure(vm.call_plugin, operation, "run-script", arguments)[0] == "NOT_IMPLEMENTED"
    finally:
        session.xenapi.pool.remove_from_other_config(pool, "allow_guest_agent_run_script")


def test_power_state_reset(vm: Vm) -> None:
    vm.start(False, False)
    vm.power_state_reset()
    assert (vm.get_power_state(), vm.get_domid()) == ("Halted", "-1")


@pytest.mark.parametrize(
    ("firmware", "platform", "nvram", "expected"),
    [
        ("bios", {}, {}, "not_supported"),
        ("uefi", {}, {}, "disabled"),
        ("uefi", {"secureboot": "true"}, {}, "first_boot"),
    ],
)
def test_secure_boot(vm: Vm, firmware: str, platform: Any, nvram: Any, expected: str) -> None:
    vm.set_HVM_boot_params({"firmware": firmware})
    vm.set_platform(platform)
    vm.set_NVRAM(nvram)
    assert vm.get_secureboot_readiness() == expected
