"""power.py: which operation is allowed when, as xapi's table says."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import XenAPI

from agent_protocol.xenstore import connect
from tools.simulator import model, power
from tools.simulator.process import SimulatorProcess

from .support import Vm, failure, plugin, until

MODEL = model.load()

HALTED = (
    "snapshot clone copy start start_on migrate_send changing_dynamic_range changing_static_range "
    "changing_shadow_memory changing_NVRAM make_into_template export destroy create_vtpm"
)
RUNNING = (
    "snapshot checkpoint pause clean_shutdown clean_reboot hard_shutdown hard_reboot suspend pool_migrate migrate_send "
    "changing_dynamic_range"
)
PAUSED = "snapshot checkpoint unpause hard_shutdown hard_reboot"
SUSPENDED = "snapshot checkpoint hard_shutdown resume resume_on migrate_send export destroy"


def test_table_knows_every_operation() -> None:
    assert set(power.POWER_STATES) == set(MODEL.enums["vm_operations"])
    for states in power.POWER_STATES.values():
        assert set(states) <= set(MODEL.enums["vm_power_state"])


def test_allowed_operations_of_each_state(vm: Vm) -> None:
    def allowed() -> set[str]:
        return set(vm.get_allowed_operations())

    assert allowed() == set(HALTED.split())
    vm.start(True, False)
    assert allowed() == set(PAUSED.split())
    vm.unpause()
    assert allowed() == set(RUNNING.split())
    vm.suspend()
    assert allowed() == set(SUSPENDED.split())
    vm.hard_shutdown()
    assert allowed() == set(HALTED.split())


def test_refusals_are_those_of_the_table(vm: Vm) -> None:
    for operation, states in power.POWER_STATES.items():
        if "Halted" not in states:
            expected = ", ".join(state.lower() for state in states)
            assert failure(vm.assert_operation_valid, operation) == ["VM_BAD_POWER_STATE", vm.ref, expected, "halted"]
    for operation in HALTED.split():
        vm.assert_operation_valid(operation)
    assert failure(vm.assert_operation_valid, "provision") == ["ONLY_PROVISION_TEMPLATE"]
    assert failure(vm.assert_operation_valid, "revert") == ["ONLY_REVERT_SNAPSHOT"]
    assert failure(vm.assert_operation_valid, "query_services") == ["NOT_SYSTEM_DOMAIN", vm.ref]


def test_templates(vm: Vm) -> None:
    vm.set_is_a_template(True)
    assert {"clone", "copy", "export", "provision", "destroy"} <= set(vm.get_allowed_operations())
    assert not {"start", "start_on", "snapshot"} & set(vm.get_allowed_operations())
    assert failure(vm.snapshot, "x", []) == ["VM_IS_TEMPLATE", vm.ref, "snapshot"]
    vm.set_is_default_template(True)
    assert failure(vm.session.xenapi.VM.destroy, vm.ref) == ["VM_IS_TEMPLATE", vm.ref, "destroy"]
    vm.set_is_default_template(False)
    vm.set_is_a_template(False)
    vm.start(False, False)
    assert failure(vm.set_is_a_template, True) == ["VM_BAD_POWER_STATE", vm.ref, "halted", "running"]


def test_control_domain(session: XenAPI.Session) -> None:
    vms = session.xenapi.VM
    (dom0,) = vms.get_all_where('field "is_control_domain"="true"')
    assert vms.get_allowed_operations(dom0) == ["changing_dynamic_range", "changing_static_range"]
    for operation in ("snapshot", "pause", "suspend", "hard_reboot"):
        assert failure(vms.assert_operation_valid, dom0, operation)[0] == "OPERATION_NOT_ALLOWED"


def test_features_that_a_guest_must_have(simulator: SimulatorProcess, vm: Vm) -> None:
    vm.start(False, False)
    control = f"/local/domain/{vm.get_domid()}/control"
    with connect(str(simulator.xenstore_socket), timeout=5.0) as store:
        assert failure(vm.set_VCPUs_number_live, 2) == ["VM_LACKS_FEATURE", vm.ref]
        store.write(f"{control}/feature-vcpu-hotplug", b"1")
        until(lambda: "changing_VCPUs_live" in vm.get_allowed_operations())
        vm.set_VCPUs_number_live(2)
        assert store.read(f"/local/domain/{vm.get_domid()}/cpu/1/availability") == b"online"
        assert failure(vm.set_VCPUs_number_live, 3)[0] == "INVALID_VALUE"
        store.remove(f"{control}/feature-suspend")
        store.remove(f"{control}/feature-poweroff")
        until(lambda: "suspend" not in vm.get_allowed_operations())
        until(lambda: "clean_shutdown" not in vm.get_allowed_operations())
        assert failure(vm.suspend) == ["VM_LACKS_FEATURE", vm.ref]
        assert failure(vm.clean_shutdown) == ["VM_LACKS_FEATURE", vm.ref]
        store.write(f"/local/domain/{vm.get_domid()}/data/cant_suspend_reason", b"because")
        until(lambda: failure(vm.suspend) == ["VM_NON_SUSPENDABLE", vm.ref, "because"])
    vm.hard_reboot()
    assert "suspend" in vm.get_allowed_operations()


def test_devices(session: XenAPI.Session, vm: Vm) -> None:
    api = session.xenapi
    network = api.network.get_all()[0]
    record: dict[str, Any] = {
        "VM": vm.ref,
        "network": network,
        "device": "0",
        "MAC": "",
        "MTU": "1500",
        "other_config": {},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
    }
    vif = api.VIF.create(record)
    assert api.VIF.get_allowed_operations(vif) == ["attach"]
    vm.start(False, False)
    assert api.VIF.get_allowed_operations(vif) == ["attach", "unplug"]
    api.VIF.unplug(vif)
    assert api.VIF.get_allowed_operations(vif) == ["attach", "plug"]
    assert failure(api.VIF.unplug, vif) == ["DEVICE_ALREADY_DETACHED", vif]
    vm.hard_shutdown()
    assert failure(api.VIF.plug, vif) == ["VM_BAD_POWER_STATE", vm.ref, "running", "halted"]


def test_hotplug_that_a_guest_does_not_support(session: XenAPI.Session, simulator: SimulatorProcess, vm: Vm) -> None:
    api = session.xenapi
    network = api.network.get_all()[0]
    vm.start(False, False)
    record = {"VM": vm.ref, "network": network, "device": "0", "MAC": "", "MTU": "1500", "other_config": {}}
    vif = api.VIF.create({**record, "qos_algorithm_type": "", "qos_algorithm_params": {}})
    path = f"/local/domain/{vm.get_domid()}/feature/hotplug/vif"
    with connect(str(simulator.xenstore_socket), timeout=5.0) as store:
        store.write(path, b"0")
        metrics = vm.get_guest_metrics()
        until(lambda: api.VM_guest_metrics.get_can_use_hotplug_vif(metrics) == "no")
        error = failure(api.VIF.plug, vif)
        assert error == ["OPERATION_NOT_ALLOWED", "VM states it does not support VIF hotplug."]
        store.write(path, b"1")
        until(lambda: api.VM_guest_metrics.get_can_use_hotplug_vif(metrics) == "yes")
    api.VIF.plug(vif)


@pytest.fixture
def slow_plugin(simulator: SimulatorProcess) -> Any:
    flag = simulator.state / "go"
    body = (
        f"import time, pathlib\nwhile not pathlib.Path({str(flag)!r}).exists(): time.sleep(0.01)\nprint(answer('done'))"
    )
    plugin(simulator.plugins, "slow", body)
    yield flag
    flag.unlink()
    (simulator.plugins / "slow").unlink()


def test_current_operations(session: XenAPI.Session, simulator: SimulatorProcess, vm: Vm, slow_plugin: Any) -> None:
    assert failure(vm.call_host_plugin, "slow", "f", {}) == ["VM_BAD_POWER_STATE", vm.ref, "Running", "Halted"]
    vm.start(False, False)
    results: list[str] = []

    def call() -> None:
        own = XenAPI.Session(simulator.url)
        own.login_with_password(simulator.username, simulator.password)
        results.append(own.xenapi.VM.call_host_plugin(vm.ref, "slow", "f", {}))
        own("close")()

    thread = threading.Thread(target=call)
    thread.start()
    try:
        until(vm.get_current_operations)
        ((task, operation),) = vm.get_current_operations().items()
        assert operation == "call_plugin"
        assert task.startswith(("OpaqueRef:", "DummyRef:"))
        assert set(vm.get_allowed_operations()) == {"hard_shutdown", "hard_reboot"}
        error = failure(vm.call_host_plugin, "slow", "f", {})
        assert error == ["OTHER_OPERATION_IN_PROGRESS", "VM", vm.ref, "call_plugin", task]
    finally:
        slow_plugin.touch()
        thread.join(30)
    assert results == ["done"]
    assert vm.get_current_operations() == {}
    assert set(vm.get_allowed_operations()) == set(RUNNING.split())
