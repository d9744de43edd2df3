"""Interfaces of VMs: attached once, whole or not at all, locked to their addresses, and given back when asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from typing import Any

import pytest

from agent_protocol.outcomes import Busy, Outcome, Refused, Unknown, Unsuccessful
from compute_driver.errors import DetachRejected, HotplugUnsupported, LockingUnlicensed, ObjectGone, XenServerFailure
from compute_driver.network import Interface, NetworkName
from compute_driver.xenapi.guests.vms import VM
from compute_driver.xenapi.network.interfaces import PORT_KEY, Interfaces
from compute_driver.xenapi.network.networks import Networks, find

from ..faults import WAYS, Faulty, each_call
from ..pool import Pool

TRUNK = NetworkName("bridge", "xenbr0")
MAC = "00:16:3e:00:00:01"
PLAIN = Interface("port-1", MAC, TRUNK)
TAGGED = replace(PLAIN, vlan=42)
LOCKED = replace(
    PLAIN,
    locked=True,
    addresses=(ip_interface("192.0.2.5/24"), ip_interface("2001:db8::5/64")),
    allowed_addresses=(ip_address("192.0.2.9"),),
)


@pytest.fixture(params=[False, True], ids=["halted", "running"])
def vm(request: pytest.FixtureRequest, pool: Pool) -> Iterator[VM]:
    with pool.nothing_left():
        it = pool.vm(running=request.param)
        yield it
        pool.destroy(it)


@pytest.fixture
def running(pool: Pool) -> Iterator[VM]:
    with pool.nothing_left():
        it = pool.vm(running=True)
        yield it
        pool.destroy(it)


def interfaces(server: Any, **more: Any) -> Interfaces:
    return Interfaces(server, Networks(server), **more)


def records(pool: Pool, vm: VM) -> list[dict[str, Any]]:
    return [pool.server.call("VIF.get_record", vif) for vif in pool.server.call("VM.get_VIFs", vm.ref)]


def is_running(pool: Pool, vm: VM) -> bool:
    return bool(pool.server.call("VM.get_power_state", vm.ref) == "Running")


def test_an_interface_is_as_it_was_asked_for(pool: Pool, vm: VM) -> None:
    interfaces(pool.server).attach(vm, replace(PLAIN, mtu=1400))
    (record,) = records(pool, vm)
    assert record["MAC"] == MAC
    assert record["MTU"] == "1400"
    assert record["device"] == "0"
    assert record["network"] == find(pool.server, TRUNK)
    assert record["other_config"] == {PORT_KEY: "port-1"}
    assert record["locking_mode"] == "network_default"
    assert record["currently_attached"] is is_running(pool, vm)


def test_its_mtu_is_that_of_its_network_unless_it_has_its_own(pool: Pool, vm: VM) -> None:
    network = find(pool.server, TRUNK)
    before = pool.server.call("network.get_MTU", network)
    pool.server.call("network.set_MTU", network, "9000")
    interfaces(pool.server).attach(vm, PLAIN)
    pool.server.call("network.set_MTU", network, before)
    assert records(pool, vm)[0]["MTU"] == "9000"


def test_attaching_again_does_nothing(pool: Pool, vm: VM) -> None:
    it = interfaces(pool.server)
    it.attach(vm, PLAIN)
    before = records(pool, vm)
    it.attach(vm, PLAIN)
    assert records(pool, vm) == before


def test_attaching_again_plugs_what_was_not_plugged(pool: Pool, running: VM) -> None:
    it = interfaces(pool.server)
    it.attach(running, PLAIN)
    pool.server.call("VIF.unplug", pool.server.call("VM.get_VIFs", running.ref)[0])
    it.attach(running, PLAIN)
    assert records(pool, running)[0]["currently_attached"]


def test_a_port_is_attached_with_one_mac_address_only(pool: Pool, vm: VM) -> None:
    it = interfaces(pool.server)
    it.attach(vm, PLAIN)
    with pytest.raises(Refused) as caught:
        it.attach(vm, replace(PLAIN, mac="00:16:3e:00:00:09"))
    assert caught.value.code == "port_attached"


def test_each_has_a_device_number_of_its_own_as_long_as_there_are_any(pool: Pool, vm: VM) -> None:
    it = interfaces(pool.server)
    count = len(pool.server.call("VM.get_allowed_VIF_devices", vm.ref))
    for number in range(count):
        it.attach(vm, replace(PLAIN, id=f"extra-{number}", mac=f"00:16:3e:00:01:{number:02x}"))
    assert [found.device for found in it.of_vm(vm)] == [str(number) for number in range(count)]
    with pytest.raises(Refused) as caught:
        it.attach(vm, PLAIN)
    assert caught.value.code == "no_free_device"


def test_a_device_number_that_somebody_takes_just_then(pool: Pool, vm: VM) -> None:
    faulty: Any = Faulty(pool.server)

    def take(method: str) -> None:
        if method == "VIF.create" and faulty.methods.count(method) == 1:
            interfaces(pool.server).attach(vm, replace(PLAIN, id="port-2", mac="00:16:3e:00:00:02"))

    faulty.before = take
    interfaces(faulty).attach(vm, PLAIN)
    assert [(it.port, it.device) for it in interfaces(pool.server).of_vm(vm)] == [("port-2", "0"), ("port-1", "1")]


def test_a_locked_interface_may_use_its_addresses_only(pool: Pool, vm: VM) -> None:
    interfaces(pool.server).attach(vm, LOCKED)
    (record,) = records(pool, vm)
    assert record["locking_mode"] == "locked"
    assert sorted(record["ipv4_allowed"]) == ["192.0.2.5", "192.0.2.9"]
    assert record["ipv6_allowed"] == ["2001:db8::5"]


class Unlicensed(Faulty):
    """A XenServer without locking."""

    def call(self, method: str, *arguments: Any, timeout: float | None = None) -> Any:
        if method == "VIF.create" and arguments[0]["locking_mode"] == "locked":
            raise XenServerFailure(["LICENCE_RESTRICTION", "VIF_locking"])
        if method in ("VIF.set_ipv4_allowed", "VIF.set_ipv6_allowed", "VIF.set_locking_mode"):
            raise XenServerFailure(["LICENCE_RESTRICTION", "VIF_locking"])
        return super().call(method, *arguments, timeout=timeout)


def test_without_a_licence_nothing_is_attached_that_should_be_locked(pool: Pool, vm: VM) -> None:
    it: Any = Unlicensed(pool.server)
    with pytest.raises(LockingUnlicensed) as caught:
        interfaces(it).attach(vm, LOCKED)
    assert (caught.value.outcome, caught.value.code) == (Outcome.UNSUPPORTED, "vif_locking_unlicensed")
    assert records(pool, vm) == []


def test_without_a_licence_it_is_attached_unlocked_where_that_is_allowed(
    pool: Pool, vm: VM, caplog: pytest.LogCaptureFixture
) -> None:
    it: Any = Unlicensed(pool.server)
    with caplog.at_level(logging.WARNING):
        interfaces(it, allow_unlocked=True).attach(vm, LOCKED)
    (record,) = records(pool, vm)
    assert record["locking_mode"] == "network_default"
    assert f"interface {MAC} is not locked" in caplog.text


def lock_of(pool: Pool, vm: VM) -> tuple[str, list[str], list[str]]:
    (record,) = records(pool, vm)
    return record["locking_mode"], sorted(record["ipv4_allowed"]), sorted(record["ipv6_allowed"])


def test_what_is_allowed_can_be_set_and_lifted_later(pool: Pool, vm: VM) -> None:
    it = interfaces(pool.server)
    it.attach(vm, PLAIN)
    it.set_allowed_addresses(vm, "port-1", [ip_address("192.0.2.7"), ip_address("2001:db8::7")])
    assert lock_of(pool, vm) == ("locked", ["192.0.2.7"], ["2001:db8::7"])
    it.set_allowed_addresses(vm, MAC.upper(), [])
    assert lock_of(pool, vm) == ("locked", [], [])
    it.set_allowed_addresses(vm, "port-1", None)
    assert lock_of(pool, vm) == ("network_default", [], [])
    with pytest.raises(Refused) as caught:
        it.set_allowed_addresses(vm, "port-2", None)
    assert caught.value.code == "interface_not_found"
    unlicensed: Any = Unlicensed(pool.server)
    with pytest.raises(LockingUnlicensed):
        interfaces(unlicensed).set_allowed_addresses(vm, "port-1", [])


@pytest.mark.parametrize("way", ["refused", "lost"])
@pytest.mark.parametrize("addresses", [None, [ip_address("192.0.2.7"), ip_address("2001:db8::7")]])
def test_what_is_allowed_is_as_before_when_setting_it_goes_wrong(
    pool: Pool, running: VM, way: str, addresses: Any
) -> None:
    interfaces(pool.server).attach(running, LOCKED)
    before = lock_of(pool, running)

    def operation(server: Any) -> None:
        interfaces(server).set_allowed_addresses(running, "port-1", addresses)

    for faulty in each_call(pool.server, operation, way):
        assert lock_of(pool, running) == before, faulty.methods


def test_the_lock_is_closed_last_and_opened_first(pool: Pool, running: VM) -> None:
    """Else the guest would lose addresses that it may use."""
    interfaces(pool.server).attach(running, LOCKED)
    faulty: Any = Faulty(pool.server)
    interfaces(faulty).set_allowed_addresses(running, "port-1", [])
    assert faulty.methods[-1] == "VIF.set_locking_mode"
    faulty.methods.clear()
    interfaces(faulty).set_allowed_addresses(running, "port-1", None)
    assert next(method for method in faulty.methods if ".set_" in method) == "VIF.set_locking_mode"


@pytest.mark.parametrize("named", [TAGGED, replace(TAGGED, id="port-9"), replace(TAGGED, mac="00:16:3e:00:00:09")])
def test_detaching_leaves_nothing_and_again_does_nothing(pool: Pool, vm: VM, named: Interface) -> None:
    it = interfaces(pool.server)
    with pool.nothing_left():
        it.attach(vm, TAGGED)
        it.detach(vm, named)
        it.detach(vm, named)


def test_only_the_interface_that_is_named_is_detached(pool: Pool, vm: VM) -> None:
    it = interfaces(pool.server)
    it.attach(vm, PLAIN)
    it.attach(vm, replace(PLAIN, id="port-2", mac="00:16:3e:00:00:02"))
    it.detach(vm, replace(TAGGED, id="port-2", mac="00:16:3e:00:00:02"))
    assert [found.port for found in it.of_vm(vm)] == ["port-1"]


def test_the_network_of_a_vlan_stays_until_its_last_interface(pool: Pool, vm: VM) -> None:
    it = interfaces(pool.server)
    with pool.nothing_left():
        it.attach(vm, TAGGED)
        it.attach(vm, replace(TAGGED, id="port-2", mac="00:16:3e:00:00:02"))
        it.detach(vm, TAGGED)
        (record,) = records(pool, vm)
        assert pool.server.call("network.get_PIFs", record["network"])
        it.detach(vm, replace(TAGGED, id="port-2", mac="00:16:3e:00:00:02"))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("interface", [LOCKED, TAGGED], ids=["locked", "vlan"])
def test_nothing_is_left_whichever_call_of_attaching_goes_wrong(
    pool: Pool, running: VM, way: str, interface: Interface
) -> None:
    before = pool.inventory()
    for faulty in each_call(pool.server, lambda server: interfaces(server).attach(running, interface), way):
        assert pool.inventory() == before, faulty.methods
    interfaces(pool.server).detach(running, TAGGED)


@pytest.mark.parametrize("way", WAYS)
def test_detaching_can_be_asked_for_again_whichever_call_goes_wrong(pool: Pool, running: VM, way: str) -> None:
    before = pool.inventory()
    it = interfaces(pool.server)
    it.attach(running, TAGGED)
    for faulty in each_call(pool.server, lambda server: interfaces(server).detach(running, TAGGED), way):
        it.detach(running, TAGGED)
        assert pool.inventory() == before, faulty.methods
        it.attach(running, TAGGED)
    assert pool.inventory() == before


def test_undoing_that_fails_is_logged_and_the_first_error_told(
    pool: Pool, running: VM, caplog: pytest.LogCaptureFixture
) -> None:
    faulty: Any = Faulty(pool.server)
    faulty.replies = {
        "VIF.plug": XenServerFailure(["FIRST_FAILURE"]),
        "VIF.destroy": XenServerFailure(["SECOND_FAILURE"]),
    }
    with pytest.raises(XenServerFailure) as caught, caplog.at_level(logging.ERROR):
        interfaces(faulty).attach(running, PLAIN)
    assert caught.value.code == "xenserver_first_failure"
    assert "xenserver_second_failure" in caplog.text
    interfaces(pool.server).detach(running, PLAIN)


@pytest.mark.parametrize(
    "details, error, code",
    [
        (["DEVICE_DETACH_REJECTED", "VIF", "OpaqueRef:x", "in use by me"], DetachRejected, "detach_rejected"),
        (["DEVICE_DETACH_TIMEOUT", "VIF", "OpaqueRef:x"], Unknown, "detach_timeout"),
        (["VM_MISSING_PV_DRIVERS", "OpaqueRef:x"], HotplugUnsupported, "hotplug_unsupported"),
    ],
)
def test_a_guest_that_does_not_let_go_is_not_forced(
    pool: Pool, running: VM, details: list[str], error: type[Unsuccessful], code: str
) -> None:
    interfaces(pool.server).attach(running, PLAIN)
    faulty: Any = Faulty(pool.server)
    faulty.replies["VIF.unplug"] = XenServerFailure(details)
    with pytest.raises(error) as caught:
        interfaces(faulty).detach(running, PLAIN)
    assert caught.value.code == code
    assert records(pool, running)[0]["currently_attached"]
    assert not {"VIF.unplug_force", "VIF.destroy"} & set(faulty.methods)
    if code == "detach_rejected":
        assert "in use by me" in str(caught.value)


def test_a_guest_without_drivers_keeps_what_it_has(pool: Pool) -> None:
    with pool.nothing_left():
        vm = pool.vm(running=True, drivers=False)
        with pytest.raises(HotplugUnsupported):
            interfaces(pool.server).attach(vm, PLAIN)
        assert records(pool, vm) == []
        pool.destroy(vm)


@pytest.mark.parametrize("step", ["attach", "detach"])
def test_a_guest_that_is_paused_is_left_alone(pool: Pool, running: VM, step: str) -> None:
    it = interfaces(pool.server)
    if step == "detach":
        it.attach(running, PLAIN)
    pool.server.call("VM.pause", running.ref)
    with pytest.raises(Refused) as caught:
        it.attach(running, PLAIN) if step == "attach" else it.detach(running, PLAIN)
    assert caught.value.code == "instance_not_settled"
    assert len(records(pool, running)) == (step == "detach")
    pool.server.call("VM.unpause", running.ref)


def test_a_guest_that_goes_down_meanwhile_has_its_interface_at_the_next_boot(pool: Pool, running: VM) -> None:
    faulty: Any = Faulty(pool.server)

    def shut_down(method: str) -> None:
        if method == "VIF.plug":
            pool.server.call("VM.hard_shutdown", running.ref)

    faulty.before = shut_down
    interfaces(faulty).attach(running, PLAIN)
    assert [it.port for it in interfaces(pool.server).of_vm(running)] == ["port-1"]


def test_a_network_that_is_removed_just_then_is_busy(pool: Pool, vm: VM) -> None:
    faulty: Any = Faulty(pool.server)
    network = find(pool.server, TRUNK)
    faulty.replies["VIF.create"] = ObjectGone(["HANDLE_INVALID", "network", network])
    with pytest.raises(Busy) as caught:
        interfaces(faulty).attach(vm, PLAIN)
    assert caught.value.code == "network_gone"
    faulty.replies["VIF.create"] = ObjectGone(["HANDLE_INVALID", "VM", vm.ref])
    with pytest.raises(ObjectGone):
        interfaces(faulty).attach(vm, PLAIN)
