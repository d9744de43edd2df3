"""What is seen of a migration while it lasts, and what is left of one that does not end well."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import XenAPI

from tools.simulator import placement
from tools.simulator.server import Simulator

from .pools import in_this_process
from .support import MIB, NULL, Vm, failure, lives, make_vm, until


@pytest.fixture
def simulator(tmp_path: Path, own_plugin: Path) -> Iterator[Simulator]:
    with in_this_process(tmp_path, own_plugin) as simulator:
        yield simulator


@pytest.fixture
def session(simulator: Simulator) -> XenAPI.Session:
    session = XenAPI.Session(simulator.coordinator.plain_url)
    session.login_with_password("root", simulator.settings.password, "1.0", "tests")
    return session


class Gate:
    """Holds whoever reads a disk's second block, until it is opened."""

    def __init__(self, read: Any, disk: str) -> None:
        self._read = read
        self._disk = disk
        self.reached, self.opened = threading.Event(), threading.Event()
        self._calls = 0

    def __call__(self, *arguments: Any) -> Any:
        self._calls += arguments[0] == self._disk
        if self._calls == 2:
            self.reached.set()
            assert self.opened.wait(30)
        return self._read(*arguments)


@pytest.fixture
def moving(simulator: Simulator, session: XenAPI.Session, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A running VM in the middle of its way to the second host: the VM, its disk, the task and the gate."""
    api = session.xenapi
    vm = make_vm(session)
    shared = api.pool.get_default_SR(api.pool.get_all()[0])
    disk = {"SR": shared, "virtual_size": str(8 * MIB), "type": "user", "sharable": False, "read_only": False}
    vdi = api.VDI.create({**disk, "name_label": "disk", "other_config": {}})
    device = {"VM": vm.ref, "VDI": vdi, "userdevice": "0", "bootable": True, "mode": "RW", "type": "Disk"}
    rest = {"unpluggable": True, "empty": False, "other_config": {}, "qos_algorithm_type": ""}
    api.VBD.create({**device, **rest, "qos_algorithm_params": {}})
    disks = simulator.state.disks
    for block in range(4):
        disks.write(api.VDI.get_uuid(vdi), block * MIB, b"content")
    refs = [host.ref for host in simulator.hosts]
    vm.start_on(refs[0], False, False)
    destination = api.host.migrate_receive(refs[1], api.network.get_all()[0], {})
    sr = next(sr for sr in api.SR.get_all() if refs[1] in hosts_of(api, sr) and sr != shared)
    gate = Gate(disks.read, api.VDI.get_uuid(vdi))
    monkeypatch.setattr(disks, "read", gate)
    task = api.Async.VM.migrate_send(vm.ref, destination, True, {vdi: sr}, {}, {})
    assert gate.reached.wait(30)
    yield vm, vdi, task, gate
    gate.opened.set()


def hosts_of(api: Any, sr: str) -> list[str]:
    return [api.PBD.get_host(pbd) for pbd in api.SR.get_PBDs(sr)]


def test_while_it_lasts(simulator: Simulator, session: XenAPI.Session, moving: Any) -> None:
    vm, vdi, task, gate = moving
    api = session.xenapi
    assert vm.get_current_operations() == {task: "migrate_send"}
    assert set(vm.get_allowed_operations()) == {"clean_shutdown", "clean_reboot", "hard_shutdown", "hard_reboot"}
    assert api.VDI.get_current_operations(vdi) == {task: "mirror"}
    assert (api.task.get_status(task), api.task.get_progress(task)) == ("pending", 0.25)
    assert api.task.get_allowed_operations(task) == ["cancel"]
    assert (vm.get_resident_on(), vm.get_power_state()) == (simulator.hosts[0].ref, "Running")
    gate.opened.set()
    until(lambda: api.task.get_status(task) == "success")
    assert api.task.get_result(task) == f"<value>{vm.ref}</value>"
    assert vm.get_resident_on() == simulator.hosts[1].ref
    assert vm.get_current_operations() == {}


def test_memory_is_set_aside(simulator: Simulator, session: XenAPI.Session) -> None:
    api, host = session.xenapi, simulator.hosts[1].ref
    vm = make_vm(session)
    free, needed = int(api.host.compute_free_memory(host)), 128 * MIB + int(vm.compute_memory_overhead())
    with placement.reserved(simulator.state.database, vm.ref, host):
        assert vm.get_scheduled_to_be_resident_on() == host
        assert int(api.host.compute_free_memory(host)) == free - needed
    assert int(api.host.compute_free_memory(host)) == free


def test_cancelled(simulator: Simulator, session: XenAPI.Session, moving: Any) -> None:
    vm, vdi, task, gate = moving
    api = session.xenapi
    api.task.cancel(task)
    gate.opened.set()
    until(lambda: api.task.get_status(task) == "cancelled")
    unchanged(simulator, api, vm, vdi)


def unchanged(simulator: Simulator, api: Any, vm: Vm, vdi: str) -> None:
    """The VM is as it was, and nothing is left where it was to go."""
    assert (vm.get_resident_on(), vm.get_power_state()) == (simulator.hosts[0].ref, "Running")
    assert api.VBD.get_VDI(vm.get_VBDs()[0]) == vdi
    assert api.VDI.get_all() == [vdi]
    assert vm.get_current_operations() == api.VDI.get_current_operations(vdi) == {}
    assert vm.get_scheduled_to_be_resident_on() == NULL
    assert "pool_migrate" in vm.get_allowed_operations()
    assert simulator.hosts[1].hypervisor.domains._store.directory("/local/domain") == ["0"]
    directory = simulator.settings.state / "guests" / vm.uuid
    pid = int((directory / "agent.pid").read_text())
    assert lives(pid)
    until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S")
    # Its XenStore is that of the host where it is.
    (xenbus,) = (simulator.settings.state / "xenbus").iterdir()
    assert xenbus.readlink().parent == simulator.hosts[0].hypervisor.socket.parent
    # What the guest says is still followed.
    store = simulator.hosts[0].hypervisor.domains._store
    store.write(f"/local/domain/{vm.get_domid()}/vm-data/word", b"heard")
    until(lambda: vm.get_xenstore_data().get("vm-data/word") == "heard")


def test_a_destination_that_refuses(
    simulator: Simulator, session: XenAPI.Session, moving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm, vdi, task, gate = moving
    api = session.xenapi

    def refuse(domid: int) -> Path:
        raise OSError("no socket for", domid)

    with monkeypatch.context() as patch:
        there: Any = simulator.hosts[1].hypervisor
        patch.setattr(there._xenstore, "introduce", refuse)
        gate.opened.set()
        until(lambda: api.task.get_status(task) == "failure")
        refs = [host.ref for host in simulator.hosts]
        assert api.task.get_error_info(task) == ["VM_MIGRATE_FAILED", vm.ref, *refs[:2], "OSError"]
        unchanged(simulator, api, vm, vdi)
        assert failure(vm.pool_migrate, refs[1], {})[0] == "VM_MIGRATE_FAILED"
        vm.suspend()
        assert failure(vm.resume_on, refs[1], False, False)[0] == "INTERNAL_ERROR"
        assert vm.get_power_state() == "Suspended"
    pid = int((simulator.settings.state / "guests" / vm.uuid / "agent.pid").read_text())
    vm.resume_on(refs[1], False, False)
    assert (simulator.settings.state / "guests" / vm.uuid / "agent.pid").read_text() == f"{pid}\n"
