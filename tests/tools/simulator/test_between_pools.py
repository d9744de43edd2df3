"""VMs that go to another pool: what goes along, and what is refused before anything moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_protocol.xenstore import connect
from tools.simulator.process import SimulatorProcess

from .pools import Pool, logged_in
from .support import MIB, NULL, Vm, failure, lives, until
from .ways import UNREACHABLE, Way, content, digest, empty, filled, nothing_left, runs_here


@pytest.fixture(scope="module")
def simulators(arguments: list[str]) -> Iterator[tuple[SimulatorProcess, SimulatorProcess]]:
    """A source over plain HTTP, and a destination of two hosts over HTTPS."""
    with SimulatorProcess(arguments) as source, SimulatorProcess(["--hosts", "2", "--tls", *arguments]) as destination:
        yield source, destination


@pytest.fixture
def here(simulators: tuple[SimulatorProcess, SimulatorProcess]) -> Iterator[Pool]:
    with logged_in(simulators[0]) as session:
        simulators[0].control.mark()
        yield Pool(simulators[0], session)
        simulators[0].control.clear_rules()


@pytest.fixture
def there(simulators: tuple[SimulatorProcess, SimulatorProcess]) -> Iterator[Pool]:
    with logged_in(simulators[1]) as session:
        simulators[1].control.mark()
        yield Pool(simulators[1], session)
        simulators[1].control.clear_rules()


@pytest.fixture
def vm(here: Pool, there: Pool) -> Iterator[Vm]:
    yield filled(here)
    for pool in (here, there):
        empty(pool)
        nothing_left(pool)


def test_a_running_vm(here: Pool, there: Pool, vm: Vm) -> None:
    vm.start(False, False)
    record, vif = vm.get_record(), here.api.VIF.get_record(vm.get_VIFs()[0])
    pid = here.simulator.agent_pid(vm.uuid)
    root = here.simulator.guest_root(vm.uuid)
    (root / "etc/hostname").write_text("moved\n")
    (root / "etc/hostname").chmod(0o640)
    (root / "etc/name").symlink_to("/etc/hostname")
    with connect(str(here.simulator.xenstore_socket), timeout=5.0) as store:
        store.write(f"/local/domain/{record['domid']}/vm-data/said", b"by the guest")
    way = Way(here, there, vm)
    assert vm.assert_can_migrate(*way.arguments()) == ""
    task = here.api.Async.VM.migrate_send(vm.ref, *way.arguments())
    until(lambda: here.api.task.get_status(task) == "success")
    ref = there.api.VM.get_by_uuid(vm.uuid)
    assert here.api.task.get_result(task) == f"<value>{ref}</value>"
    # There it is another domain of the same VM.
    moved = Vm(there.session, ref)
    now = moved.get_record()
    assert (now["power_state"], now["resident_on"], now["current_operations"]) == ("Running", there.refs[1], {})
    for name in ("name_label", "memory_static_max", "VCPUs_max", "other_config", "platform"):
        assert now[name] == record[name]
    assert now["xenstore_data"] == {**record["xenstore_data"], "vm-data/said": "by the guest"}
    interface = there.api.VIF.get_record(now["VIFs"][0])
    assert (interface["MAC"], interface["network"], interface["currently_attached"]) == (vif["MAC"], way.network, True)
    root = there.simulator.guest_root(vm.uuid)
    assert (root / "etc/hostname").read_text() == "moved\n"
    assert (root / "etc/hostname").stat().st_mode & 0o777 == 0o640
    assert (root / "etc/name").readlink() == Path("/etc/hostname")
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    # Its agent was started anew.
    until(lambda: len((root / "var/log/boots").read_text().splitlines()) == 2)
    assert lives(there.simulator.agent_pid(vm.uuid))
    with connect(str(there.hosts[1].xenstore_socket), timeout=5.0) as store:
        domain = f"/local/domain/{now['domid']}"
        assert store.read(f"{domain}/data/updated") == b"1"
        assert store.read(f"{domain}/vm") == f"/vm/{vm.uuid}".encode()
        assert store.read(f"{domain}/device/vif/0/mac").decode() == vif["MAC"]
    # Here it is gone, with its disk.
    assert not here.api.VM.get_by_name_label("test")
    assert not here.simulator.guest_root(vm.uuid).exists()
    nothing_left(here)
    until(lambda: not lives(pid))
    disk = there.api.VBD.get_VDI(now["VBDs"][0])
    assert there.api.VDI.get_SR(disk) == way.repository
    assert there.api.VDI.get_name_label(disk) == "disk"
    assert "base_mirror" not in there.api.VDI.get_sm_config(disk)
    moved.hard_shutdown()
    assert digest(there, disk) == content(there, disk)
    moved.start(False, False)


@pytest.mark.parametrize("state", ["Halted", "Suspended"])
def test_vms_that_do_not_run(here: Pool, there: Pool, vm: Vm, state: str) -> None:
    disks: dict[str, str] = {}
    if state == "Suspended":
        vm.start(False, False)
        (here.simulator.guest_root(vm.uuid) / "etc/hostname").write_text("moved\n")
        vm.suspend()
        way = Way(here, there, vm)
        assert failure(vm.migrate_send, *way.arguments()) == ["VDI_NOT_IN_MAP", vm.get_suspend_VDI()]
        disks = {vm.get_suspend_VDI(): there.shared}
    way = Way(here, there, vm)
    ref = vm.migrate_send(*way.arguments(live=False, disks={way.disk: way.repository, **disks}))
    assert (there.api.VM.get_uuid(ref), there.api.VM.get_power_state(ref)) == (vm.uuid, state)
    nothing_left(here)
    moved = Vm(there.session, ref)
    if state == "Suspended":
        assert there.api.VDI.get_type(moved.get_suspend_VDI()) == "suspend"
        moved.resume(False, False)
        assert (there.simulator.guest_root(vm.uuid) / "etc/hostname").read_text() == "moved\n"
        assert lives(there.simulator.agent_pid(vm.uuid))
        # Back again.
        back = Way(there, here, moved, host=0)
        assert here.api.VM.get_power_state(moved.migrate_send(*back.arguments())) == "Running"
        nothing_left(there)


def test_a_copy(here: Pool, there: Pool, vm: Vm) -> None:
    way = Way(here, there, vm)
    ref = vm.migrate_send(*way.arguments(live=False, options={"copy": "true"}))
    uuid, (vif,), (vbd,) = (getattr(there.api.VM, f"get_{name}")(ref) for name in ("uuid", "VIFs", "VBDs"))
    assert uuid != vm.uuid
    assert there.api.VIF.get_MAC(vif) != here.api.VIF.get_MAC(way.vif)
    assert digest(there, there.api.VBD.get_VDI(vbd)) == digest(here, way.disk)
    assert vm.get_power_state() == "Halted"
    vm.start(False, False)


def test_discs_stay_behind(here: Pool, there: Pool, vm: Vm) -> None:
    other = here.make()
    disc = here.disk(other, here.shared)
    other.destroy()
    record = {"VM": vm.ref, "VDI": disc, "userdevice": "3", "bootable": False, "mode": "RO", "type": "CD"}
    rest = {"unpluggable": True, "empty": False, "other_config": {}, "qos_algorithm_type": ""}
    here.api.VBD.create({**record, **rest, "qos_algorithm_params": {}})
    way = Way(here, there, vm)
    ref = vm.migrate_send(*way.arguments(live=False))
    devices = [there.api.VBD.get_record(vbd) for vbd in there.api.VM.get_VBDs(ref)]
    assert {it["userdevice"]: (it["type"], it["empty"]) for it in devices} == {"0": ("Disk", False), "3": ("CD", True)}
    here.api.VDI.destroy(disc)


# Refused


def test_what_is_refused_before_anything_moves(here: Pool, there: Pool, vm: Vm) -> None:
    vm.start(False, False)
    way = Way(here, there, vm)

    def refused(**changes: Any) -> list[str]:
        error = failure(vm.assert_can_migrate, *way.arguments(**changes))
        assert failure(vm.migrate_send, *way.arguments(**changes)) == error
        return error

    assert refused(disks={}) == ["VDI_NOT_IN_MAP", way.disk]
    assert refused(networks={}) == ["VIF_NOT_IN_MAP", way.vif]
    assert refused(disks={way.disk: NULL}) == ["HANDLE_INVALID", "SR", NULL]
    assert refused(networks={way.vif: NULL}) == ["HANDLE_INVALID", "network", NULL]
    assert refused(disks={way.disk: there.local(0)}) == ["VM_REQUIRES_SR", vm.ref, there.local(0)]
    assert refused(live=False)[0] == "VM_BAD_POWER_STATE"
    assert refused(destination={**way.destination, "host": NULL}) == ["HANDLE_INVALID", "host", NULL]
    assert refused(destination={**way.destination, "session_id": NULL}) == UNREACHABLE
    nowhere = {**way.destination, "xenops": "http://127.0.0.1:1/services/xenops", "master": "http://127.0.0.1:1/"}
    assert refused(destination=nowhere) == UNREACHABLE
    there.api.host.disable(there.refs[1])
    assert refused() == ["HOST_DISABLED", there.refs[1]]
    there.api.host.enable(there.refs[1])
    snapshot = vm.snapshot("before", [])
    assert refused() == ["VM_HAS_TOO_MANY_SNAPSHOTS", vm.ref]
    for vbd in here.api.VM.get_VBDs(snapshot):
        here.api.VDI.destroy(here.api.VBD.get_VDI(vbd))
    here.api.VM.destroy(snapshot)
    there.simulator.control.expire_sessions("migration")
    assert refused() == UNREACHABLE
    runs_here(here, there, vm, way.disk)


def test_a_destination_without_room(here: Pool, there: Pool, vm: Vm) -> None:
    vm.start(False, False)
    way = Way(here, there, vm)
    config = {"device": "/dev/sdb"}
    small = there.api.SR.create(there.refs[1], config, str(4 * MIB), "small", "", "ext", "user", False, {})
    there.simulator.control.mark()
    assert failure(vm.migrate_send, *way.arguments(disks={way.disk: small}))[0] == "SR_BACKEND_FAILURE_44"
    runs_here(here, there, vm, way.disk)


def test_there_and_back_and_there(here: Pool, there: Pool, vm: Vm) -> None:
    first = Vm(there.session, vm.migrate_send(*Way(here, there, vm).arguments(live=False)))
    back = Vm(here.session, first.migrate_send(*Way(there, here, first, host=0).arguments(live=False)))
    again = Way(here, there, back)
    last = Vm(there.session, back.migrate_send(*again.arguments(live=False)))
    assert vm.uuid == first.uuid == back.uuid == last.uuid
    disk = there.api.VBD.get_VDI(last.get_VBDs()[0])
    assert digest(there, disk) == content(there, disk)
