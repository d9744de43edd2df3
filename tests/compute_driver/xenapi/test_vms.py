from __future__ import annotations

from collections.abc import Callable

import pytest

from agent_protocol.messages import Password
from agent_protocol.outcomes import Refused
from compute_driver.agents import AgentsInMemory
from compute_driver.driver import InjectedFile
from compute_driver.errors import InstanceNotFound, XenServerFailure
from compute_driver.states import PowerState
from compute_driver.xenapi import vms
from compute_driver.xenapi.driver import XenServerDriver
from compute_driver.xenapi.session import Connection, XenServer

from .conftest import NOTHING, Calls, Objects, Steps, Wanted
from .plugin import Plugin

GIB = 1024**3
MIB = 1024**2


@pytest.fixture
def driver(connection: Connection, objects: Objects, calls: Calls) -> XenServerDriver:
    return XenServerDriver(connection, AgentsInMemory(), agent_timeout=5.0, boot_timeout=5.0)


def made(driver: XenServerDriver, *, running: bool = False) -> Wanted:
    """A guest of an instance, made without its agent."""
    instance = Wanted()
    vm = vms.create(driver._server, instance)
    if running:
        vms.start(driver._server, vm)
    return instance


def test_a_guest_is_what_the_instance_says(driver: XenServerDriver, xenserver: XenServer) -> None:
    instance = made(driver)
    vm = vms.find(xenserver, instance)
    record = xenserver.call("VM.get_record", vm.ref)
    assert record["name_label"] == f"instance-{instance.uuid}"
    assert record["name_description"] == "web"
    assert record["other_config"]["xenward:instance"] == instance.uuid
    assert (record["VCPUs_max"], record["memory_static_max"]) == ("2", str(64 * MIB))
    assert (vm.uuid, vm.power_state) == (record["uuid"], PowerState.SHUTDOWN)
    (vbd,) = (xenserver.call("VBD.get_record", ref) for ref in record["VBDs"])
    assert (vbd["userdevice"], vbd["bootable"], vbd["type"], vbd["mode"]) == ("0", True, "Disk", "RW")
    assert xenserver.call("VDI.get_virtual_size", vbd["VDI"]) == str(3 * GIB)
    (vif,) = (xenserver.call("VIF.get_record", ref) for ref in record["VIFs"])
    assert vif["device"] == "0"
    assert xenserver.call("network.get_PIFs", vif["network"])


def test_two_instances_may_have_one_name(driver: XenServerDriver) -> None:
    one, two = made(driver), made(driver)
    assert one.display_name == two.display_name
    assert driver.get_info(one).internal_id != driver.get_info(two).internal_id


def test_a_guest_that_is_not_there_is_not_found(driver: XenServerDriver, calls: Calls) -> None:
    missing = Wanted()
    file = InjectedFile("/etc/motd", b"")
    for operation in (
        lambda: driver.get_info(missing),
        lambda: driver.power_on(missing),
        lambda: driver.power_off(missing),
        lambda: driver.reboot(missing, "SOFT"),
        lambda: driver.set_admin_password(missing, Password("a Pass-word 1")),
        lambda: driver.inject_file(missing, file),
        lambda: driver.add_ssh_keys(missing, ["ssh-ed25519 AAAA"]),
        lambda: driver.trust_agent(missing),
        lambda: driver.send_sealed(missing, "id", "value", ""),
    ):
        calls.methods.clear()
        with pytest.raises(InstanceNotFound):
            operation()
        assert calls.methods == ["VM.get_by_name_label"]


def test_a_template_or_snapshot_of_that_name_is_not_the_guest(driver: XenServerDriver, xenserver: XenServer) -> None:
    instance = made(driver)
    ref = vms.find(xenserver, instance).ref
    xenserver.call("VM.set_is_a_template", ref, True)
    try:
        with pytest.raises(InstanceNotFound):
            vms.find(xenserver, instance)
    finally:
        xenserver.call("VM.set_is_a_template", ref, False)


# Power


def test_power_on_starts_what_is_off_and_leaves_alone_what_runs(driver: XenServerDriver, calls: Calls) -> None:
    instance = made(driver)
    driver.power_on(instance)
    assert driver.get_info(instance).state is PowerState.RUNNING
    calls.methods.clear()
    driver.power_on(instance)
    assert all(".get_" in method for method in calls.methods)


def test_power_off_asks_first_and_leaves_alone_what_is_off(driver: XenServerDriver, calls: Calls) -> None:
    instance = made(driver, running=True)
    calls.methods.clear()
    driver.power_off(instance)
    assert "VM.clean_shutdown" in calls.methods
    assert driver.get_info(instance).state is PowerState.SHUTDOWN
    calls.methods.clear()
    driver.power_off(instance)
    assert all(".get_" in method for method in calls.methods)


def fail_at(calls: Calls, method: str, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each call of that method fail without effect."""
    real = XenServer.call

    def call(server: XenServer, name: str, *arguments: object, timeout: float | None = None) -> object:
        if name == method:
            calls.methods.append(name)
            raise error
        return real(server, name, *arguments, timeout=timeout)

    monkeypatch.setattr(XenServer, "call", call)


@pytest.mark.parametrize("code", ["VM_FAILED_SHUTDOWN_ACK", "VM_LACKS_FEATURE", "VM_SHUTDOWN_TIMEOUT"])
def test_a_guest_that_does_not_comply_loses_its_power(
    driver: XenServerDriver, calls: Calls, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    instance = made(driver, running=True)
    fail_at(calls, "VM.clean_shutdown", XenServerFailure([code, "OpaqueRef:vm"]), monkeypatch)
    driver.power_off(instance)
    assert calls.methods[-2:] == ["VM.clean_shutdown", "VM.hard_shutdown"]
    assert driver.get_info(instance).state is PowerState.SHUTDOWN


def test_a_guest_that_goes_down_by_itself_meanwhile_is_off(
    driver: XenServerDriver, xenserver: XenServer, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = made(driver, running=True)
    ref = vms.find(xenserver, instance).ref
    real = XenServer.call

    def call(server: XenServer, name: str, *arguments: object, timeout: float | None = None) -> object:
        if name == "VM.clean_shutdown":
            real(xenserver, "VM.hard_shutdown", ref)
            raise XenServerFailure(["VM_FAILED_SHUTDOWN_ACK", ref])
        return real(server, name, *arguments, timeout=timeout)

    monkeypatch.setattr(XenServer, "call", call)
    driver.power_off(instance)
    assert driver.get_info(instance).state is PowerState.SHUTDOWN


def test_a_guest_that_cannot_be_powered_off_is_a_failure(
    driver: XenServerDriver, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = made(driver, running=True)
    error = XenServerFailure(["OTHER_OPERATION_IN_PROGRESS", "VM", "x"])
    fail_at(calls, "VM.hard_shutdown", error, monkeypatch)
    monkeypatch.setattr(vms, "shut_down", vms._pull_the_plug)
    with pytest.raises(XenServerFailure) as caught:
        driver.power_off(instance)
    assert caught.value is error
    monkeypatch.undo()


@pytest.mark.parametrize(("kind", "method"), [("SOFT", "VM.clean_reboot"), ("HARD", "VM.hard_reboot")])
def test_a_reboot_is_the_kind_that_was_asked_for(driver: XenServerDriver, calls: Calls, kind: str, method: str) -> None:
    instance = made(driver, running=True)
    calls.methods.clear()
    driver.reboot(instance, kind)
    assert calls.methods[-1] == method
    assert driver.get_info(instance).state is PowerState.RUNNING


def test_what_needs_a_running_guest_is_refused_without_one(driver: XenServerDriver, plugin: Plugin) -> None:
    instance = made(driver)
    operations: list[Callable[[], object]] = [
        lambda: driver.reboot(instance, "HARD"),
        lambda: driver.set_admin_password(instance, Password("a Pass-word 1")),
        lambda: driver.inject_file(instance, InjectedFile("/etc/motd", b"")),
        lambda: driver.add_ssh_keys(instance, ["ssh-ed25519 AAAA"]),
        lambda: driver.trust_agent(instance),
        lambda: driver.send_sealed(instance, "id", "value", ""),
    ]
    for operation in operations:
        with pytest.raises(Refused) as caught:
            operation()
        assert caught.value.code == "instance_not_running"
    assert plugin.calls == []


# The end


@pytest.mark.parametrize("running", [True, False])
def test_destroy_leaves_nothing(driver: XenServerDriver, objects: Objects, running: bool) -> None:
    instance = made(driver, running=running)
    driver.destroy(instance)
    assert objects.all() == NOTHING


def test_destroy_of_one_that_is_not_there_does_nothing(driver: XenServerDriver, objects: Objects) -> None:
    other = made(driver)
    before = objects.all()
    driver.destroy(Wanted())
    assert objects.all() == before
    driver.get_info(other)


def test_init_host_tells_what_is_wrong_with_xenserver(connection: Connection) -> None:
    driver = XenServerDriver(Connection(connection.url, "root", "wrong"), AgentsInMemory())
    with pytest.raises(Refused):
        driver.init_host("here")


def test_a_guest_is_made_whole(driver: XenServerDriver, plugin: Plugin) -> None:
    steps = Steps()
    driver.spawn(
        Wanted(),
        admin_password=Password("a Pass-word 1"),
        injected_files=[InjectedFile("/a", b""), InjectedFile("/b", b"")],
        ssh_keys=["ssh-ed25519 AAAA"],
        progress=steps,
    )
    assert steps.names == [
        "create_vm",
        "boot",
        "wait_for_agent",
        "set_admin_password",
        "add_ssh_keys",
        "inject_file",
        "inject_file",
    ]
    assert plugin.passwords == ["a Pass-word 1"]
    assert plugin.names().count("file_put") == 2
