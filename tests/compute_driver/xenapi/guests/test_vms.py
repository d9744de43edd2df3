from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from agent_protocol.messages import Password
from agent_protocol.outcomes import Refused
from compute_driver.agents import AgentsInMemory
from compute_driver.errors import InstanceNotFound
from compute_driver.files import InjectedFile
from compute_driver.states import PowerState
from compute_driver.xenapi.connection.session import Connection, XenServer
from compute_driver.xenapi.driver import XenServerDriver
from compute_driver.xenapi.guests import power, vms
from compute_driver.xenapi.guests.hardware import Hardware

from ..conftest import Calls, Objects, Steps, Wanted
from ..plugin import Plugin

MIB = 1024**2


@pytest.fixture
def driver(connection: Connection, objects: Objects, calls: Calls) -> Iterator[XenServerDriver]:
    it = XenServerDriver(connection, AgentsInMemory(), agent_timeout=5.0, boot_timeout=5.0)
    yield it
    it.close()


def made(driver: XenServerDriver, *, running: bool = False) -> Wanted:
    """A guest of an instance, without any device."""
    instance = Wanted()
    vm = vms.create(driver._server, instance)
    if running:
        power.start(driver._server, vm)
    return instance


def test_a_guest_is_what_the_instance_says(driver: XenServerDriver, xenserver: XenServer) -> None:
    instance = made(driver)
    vm = vms.find(xenserver, instance)
    record = xenserver.call("VM.get_record", vm.ref)
    assert record["name_label"] == f"instance-{instance.uuid}"
    assert record["name_description"] == "web"
    assert record["other_config"]["xenward:instance"] == instance.uuid
    assert (record["VCPUs_max"], record["VCPUs_at_startup"]) == ("2", "2")
    sizes = [record[f"memory_{name}"] for name in ("static_max", "dynamic_max", "dynamic_min", "static_min")]
    assert sizes == [str(64 * MIB)] * 3 + [str(16 * MIB)]
    assert record["HVM_boot_params"]["firmware"] == "bios"
    assert record["platform"]["viridian"] == "false"
    assert record["has_vendor_device"] is False
    assert (vm.uuid, vm.power_state, vm.domid) == (record["uuid"], PowerState.SHUTDOWN, -1)


def test_its_hardware_is_what_was_asked_for(driver: XenServerDriver, xenserver: XenServer) -> None:
    hardware = Hardware("uefi", "required", windows=True, cores_per_socket=2)
    vm = vms.create(xenserver, Wanted(), hardware)
    record = xenserver.call("VM.get_record", vm.ref)
    assert record["HVM_boot_params"] == {"order": "cd", "firmware": "uefi"}
    wanted = {"viridian": "true", "secureboot": "true", "cores-per-socket": "2", "device-model": "qemu-upstream-uefi"}
    assert wanted.items() <= record["platform"].items()


def test_two_instances_may_have_one_name(driver: XenServerDriver) -> None:
    one, two = made(driver), made(driver)
    assert one.display_name == two.display_name
    assert driver.get_info(one).internal_id != driver.get_info(two).internal_id


def test_a_guest_that_is_not_there_is_not_found(driver: XenServerDriver, calls: Calls) -> None:
    missing = Wanted()
    operations: list[Callable[[], object]] = [
        lambda: driver.get_info(missing),
        lambda: driver.power_on(missing),
        lambda: driver.power_off(missing),
        lambda: driver.reboot(missing, "SOFT"),
        lambda: driver.reboot(missing, "HARD"),
        lambda: driver.pause(missing),
        lambda: driver.unpause(missing),
        lambda: driver.suspend(missing),
        lambda: driver.resume(missing),
        lambda: driver.unrescue(missing),
        lambda: driver.rebuild(missing, image=None, progress=Steps()),
        lambda: driver.quiesce(missing, timeout=5),
        lambda: driver.unquiesce(missing),
        lambda: driver.change_instance_metadata(missing, {"a": ["-"]}),
        lambda: driver.set_admin_password(missing, Password("a Pass-word 1")),
        lambda: driver.inject_file(missing, InjectedFile("/etc/motd", b"")),
        lambda: driver.add_ssh_keys(missing, ["ssh-ed25519 AAAA"]),
        lambda: driver.reset_network(missing),
        lambda: driver.trust_agent(missing),
        lambda: driver.send_sealed(missing, "id", "value", ""),
    ]
    for operation in operations:
        calls.methods.clear()
        with pytest.raises(InstanceNotFound):
            operation()
        assert all(".get_" in method for method in calls.methods)


@pytest.mark.parametrize("field", ["is_a_template"])
def test_a_template_of_that_name_is_not_the_guest(driver: XenServerDriver, xenserver: XenServer, field: str) -> None:
    instance = made(driver)
    ref = vms.find(xenserver, instance).ref
    xenserver.call(f"VM.set_{field}", ref, True)
    xenserver.events.barrier()
    try:
        with pytest.raises(InstanceNotFound):
            vms.find(xenserver, instance)
    finally:
        xenserver.call(f"VM.set_{field}", ref, False)


def test_a_snapshot_is_not_the_guest_nor_an_instance(driver: XenServerDriver, xenserver: XenServer) -> None:
    instance = made(driver)
    ref = vms.find(xenserver, instance).ref
    snapshot = xenserver.call("VM.snapshot", ref, f"instance-{instance.uuid}")
    assert xenserver.call("VM.get_other_config", snapshot)["xenward:instance"] == instance.uuid
    driver._server.events.barrier()
    assert vms.find(driver._server, instance).ref == ref
    assert driver.list_instance_uuids() == [instance.uuid]
    xenserver.call("VM.destroy", snapshot)


def test_instances_are_those_that_bear_the_mark(driver: XenServerDriver, xenserver: XenServer) -> None:
    one, two = sorted((made(driver), made(driver)), key=lambda it: it.uuid)
    other = vms.find(xenserver, made(driver)).ref
    xenserver.call("VM.remove_from_other_config", other, "xenward:instance")
    driver._server.events.barrier()
    assert driver.list_instance_uuids() == [one.uuid, two.uuid]
    assert driver.list_instances() == [f"instance-{one.uuid}", f"instance-{two.uuid}"]


def test_nodes_are_the_hosts_by_their_names(driver: XenServerDriver) -> None:
    assert driver.get_available_nodes() == ["simulated-1"]


def test_what_needs_a_running_guest_is_refused_without_one(driver: XenServerDriver, plugin: Plugin) -> None:
    instance = made(driver)
    operations: list[Callable[[], object]] = [
        lambda: driver.reboot(instance, "SOFT"),
        lambda: driver.pause(instance),
        lambda: driver.suspend(instance),
        lambda: driver.quiesce(instance, timeout=5),
        lambda: driver.unquiesce(instance),
        lambda: driver.set_admin_password(instance, Password("a Pass-word 1")),
        lambda: driver.inject_file(instance, InjectedFile("/etc/motd", b"")),
        lambda: driver.add_ssh_keys(instance, ["ssh-ed25519 AAAA"]),
        lambda: driver.reset_network(instance),
        lambda: driver.trust_agent(instance),
        lambda: driver.send_sealed(instance, "id", "value", ""),
    ]
    for operation in operations:
        with pytest.raises(Refused) as caught:
            operation()
        assert caught.value.code == "instance_not_running"
    assert plugin.calls == []


def test_init_host_tells_what_is_wrong_with_xenserver(connection: Connection) -> None:
    driver = XenServerDriver(Connection(connection.url, "root", "wrong"), AgentsInMemory())
    with pytest.raises(Refused):
        driver.init_host("here")
