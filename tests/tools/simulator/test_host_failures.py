"""Hosts that lose their power, come back, or change their roles."""

from __future__ import annotations

import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import XenAPI

from agent_protocol.xenstore import XenStoreError, connect
from tools.simulator import hosts, lifecycle
from tools.simulator.errors import ApiError
from tools.simulator.server import Simulator

from .pools import in_this_process
from .support import Vm, failure, lives, make_vm, until
from .test_devices import vbd_record


@pytest.fixture
def simulator(tmp_path: Path, own_plugin: Path) -> Iterator[Simulator]:
    """Three hosts in this process, so that their power can be cut."""
    with in_this_process(tmp_path, own_plugin) as simulator:
        yield simulator


def login(simulator: Simulator, number: int = 0) -> XenAPI.Session:
    session = XenAPI.Session(simulator.hosts[number].plain_url)
    session.login_with_password("root", simulator.settings.password, "1.0", "tests")
    return session


def local_login(simulator: Simulator, number: int) -> Any:
    session = XenAPI.Session(simulator.hosts[number].plain_url)
    session.slave_local_login_with_password("root", simulator.settings.password)
    return session.xenapi


def error_with(simulator: Simulator, number: int, handle: str) -> list[str]:
    """What a call ends in that is made with an old session. (The SDK would try to log in again.)"""
    with xmlrpc.client.ServerProxy(simulator.hosts[number].plain_url) as server:
        answer: Any = server.pool.get_all(handle)
    return list(answer["ErrorDescription"])


def pid_of(simulator: Simulator, vm: Vm) -> int:
    return int((simulator.settings.state / "guests" / vm.uuid / "agent.pid").read_text())


@pytest.fixture
def refs(simulator: Simulator) -> list[str]:
    return [host.ref for host in simulator.hosts]


def test_a_supporter_that_crashes_and_comes_back(simulator: Simulator, refs: list[str]) -> None:
    session = login(simulator)
    api = session.xenapi
    vm, safe = make_vm(session), make_vm(session)
    vm.start_on(refs[1], False, False)
    safe.start_on(refs[0], False, False)
    pid, url = pid_of(simulator, vm), simulator.hosts[1].url
    socket = simulator.hosts[1].hypervisor.socket
    hosts.crash_host(simulator.state, refs[1])
    until(lambda: not lives(pid))
    with pytest.raises(OSError):
        login(simulator, 1)
    with pytest.raises(XenStoreError):
        connect(str(socket), timeout=1.0)
    # The database says what it said.
    assert (vm.get_power_state(), vm.get_resident_on()) == ("Running", refs[1])
    assert api.host_metrics.get_live(api.host.get_metrics(refs[1])) is False
    assert api.host.get_allowed_operations(refs[1]) == ["power_on"]
    assert failure(api.host.call_plugin, refs[1], "xenward", "f", {}) == ["HOST_OFFLINE", refs[1]]
    assert failure(vm.hard_shutdown) == ["HOST_OFFLINE", refs[1]]
    assert failure(vm.call_host_plugin, "xenward", "f", {}) == ["HOST_OFFLINE", refs[1]]
    assert failure(safe.pool_migrate, refs[1], {}) == ["HOST_NOT_LIVE"]
    assert set(safe.get_possible_hosts()) == {refs[0], refs[2]}
    with pytest.raises(ApiError, match="HOST_OFFLINE"):
        hosts.crash_host(simulator.state, refs[1])
    assert lives(pid_of(simulator, safe))
    hosts.start_host(simulator.state, refs[1])
    assert simulator.hosts[1].url == url
    assert failure(login, simulator, 1)[0] == "HOST_IS_SLAVE"
    assert api.host_metrics.get_live(api.host.get_metrics(refs[1])) is True
    assert (vm.get_power_state(), vm.get_domid()) == ("Halted", "-1")
    assert safe.get_power_state() == "Running"
    assert failure(api.host.power_on, refs[1]) == ["HOST_IS_LIVE", refs[1]]
    vm.start_on(refs[1], False, False)
    with connect(str(socket), timeout=5.0) as store:
        assert store.read(f"/local/domain/{vm.get_domid()}/vm").decode() == f"/vm/{vm.uuid}"
        assert store.read("/local/domain/0/name") == b"Domain-0"
    assert lives(pid_of(simulator, vm))


@pytest.mark.parametrize("comes_back", [True, False])
@pytest.mark.parametrize("operation", ["start", "resume", "migrate"])
def test_power_that_is_cut_while_a_domain_is_built(
    simulator: Simulator, refs: list[str], monkeypatch: pytest.MonkeyPatch, operation: str, comes_back: bool
) -> None:
    session = login(simulator)
    vm = make_vm(session)
    session.xenapi.VBD.create(vbd_record(vm, "OpaqueRef:NULL", type="CD", empty=True, mode="RO", userdevice="3"))
    if operation != "start":
        vm.start_on(refs[0], False, False)
    if operation == "resume":
        vm.suspend()
    enter = lifecycle._enter

    def lose_power(*arguments: Any) -> None:
        hosts.crash_host(simulator.state, refs[1])
        if comes_back:
            hosts.start_host(simulator.state, refs[1])
        enter(*arguments)

    monkeypatch.setattr(lifecycle, "_enter", lose_power)
    order = {
        "start": lambda: vm.start_on(refs[1], False, False),
        "resume": lambda: vm.resume_on(refs[1], False, False),
        "migrate": lambda: vm.pool_migrate(refs[1], {}),
    }
    assert failure(order[operation])[0] == "INTERNAL_ERROR"
    monkeypatch.undo()
    assert (vm.get_power_state(), vm.get_domid(), vm.get_resident_on()) == ("Halted", "-1", "OpaqueRef:NULL")
    assert not any(session.xenapi.VBD.get_currently_attached(vbd) for vbd in vm.get_VBDs())
    vm.start_on(refs[0], False, False)
    assert lives(pid_of(simulator, vm))


def test_declaring_a_host_dead(simulator: Simulator, refs: list[str]) -> None:
    session = login(simulator)
    api = session.xenapi
    declared, reset, kept = make_vm(session), make_vm(session), make_vm(session)
    for vm in (declared, reset, kept):
        vm.start_on(refs[2], False, False)
    kept.suspend()
    assert failure(api.host.declare_dead, refs[2]) == ["HOST_IS_LIVE", refs[2]]
    assert failure(api.host.destroy, refs[2]) == ["HOST_IS_LIVE", refs[2]]
    pid = pid_of(simulator, kept)
    hosts.crash_host(simulator.state, refs[2])
    reset.power_state_reset()
    assert reset.get_power_state() == "Halted"
    assert declared.get_power_state() == "Running"
    assert failure(api.host.destroy, refs[2]) == ["HOST_HAS_RESIDENT_VMS", refs[2]]
    api.host.declare_dead(refs[2])
    assert declared.get_power_state() == "Halted"
    declared.start(False, False)
    # Its memory image is on the shared repository.
    kept.resume(False, False)
    assert pid_of(simulator, kept) == pid
    assert failure(api.host.power_on, refs[2]) == ["HOST_POWER_ON_MODE_DISABLED"]
    api.host.set_power_on_mode(refs[2], "wake-on-lan", {})
    api.host.power_on(refs[2])
    assert api.host.get_allowed_operations(refs[2]) != ["power_on"]


def test_a_coordinator_that_crashes(simulator: Simulator, refs: list[str]) -> None:
    session = login(simulator)
    vm = make_vm(session)
    vm.start_on(refs[1], False, False)
    pid = pid_of(simulator, vm)
    hosts.crash_host(simulator.state, refs[0])
    assert failure(login, simulator, 1) == ["HOST_IN_EMERGENCY_MODE"]
    local = local_login(simulator, 1)
    assert local.host.is_in_emergency_mode() is True
    assert failure(local.VM.get_all) == ["HOST_IN_EMERGENCY_MODE"]
    local.pool.emergency_transition_to_master()
    api = login(simulator, 1).xenapi
    assert api.pool.get_master(api.pool.get_all()[0]) == refs[1]
    # The VM never noticed.
    assert (api.VM.get_power_state(vm.ref), lives(pid)) == ("Running", True)
    assert failure(login, simulator, 2) == ["HOST_IN_EMERGENCY_MODE"]
    assert api.pool.recover_slaves() == [refs[2]]
    assert failure(login, simulator, 2) == ["HOST_IS_SLAVE", simulator.hosts[1].address]
    # The old one comes back as a supporter of the new one.
    hosts.start_host(simulator.state, refs[0])
    assert failure(login, simulator, 0) == ["HOST_IS_SLAVE", simulator.hosts[1].address]


def test_a_coordinator_that_comes_back(simulator: Simulator, refs: list[str]) -> None:
    old = login(simulator)
    hosts.crash_host(simulator.state, refs[0])
    local = local_login(simulator, 2)
    local.pool.emergency_reset_master(simulator.hosts[0].address)
    assert local.host.is_in_emergency_mode() is True
    hosts.start_host(simulator.state, refs[0])
    assert local.host.is_in_emergency_mode() is False
    assert failure(login, simulator, 1) == ["HOST_IS_SLAVE", simulator.hosts[0].address]
    assert error_with(simulator, 0, old.handle) == ["SESSION_INVALID", old.handle]
    local.pool.emergency_reset_master("192.0.2.1")
    assert failure(login, simulator, 2) == ["HOST_IN_EMERGENCY_MODE"]
    local.pool.emergency_reset_master(simulator.hosts[0].address)
    assert failure(login, simulator, 2)[0] == "HOST_IS_SLAVE"
    login(simulator)


def test_another_coordinator(simulator: Simulator, refs: list[str]) -> None:
    session = login(simulator)
    session.xenapi.pool.designate_new_master(refs[0])
    assert session.xenapi.pool.get_all()
    session.xenapi.pool.designate_new_master(refs[2])
    assert failure(session.xenapi.pool.get_all) == ["HOST_IS_SLAVE", simulator.hosts[2].address]
    assert error_with(simulator, 2, session.handle) == ["SESSION_INVALID", session.handle]
    new = login(simulator, 2)
    assert new.xenapi.session.get_this_host(new.handle) == refs[2]
    hosts.crash_host(simulator.state, refs[1])
    assert failure(new.xenapi.pool.designate_new_master, refs[1]) == ["HOST_OFFLINE", refs[1]]
    hosts.change_coordinator(simulator.state, refs[0])
    login(simulator)


def test_hosts_that_go_in_order(simulator: Simulator, refs: list[str]) -> None:
    session = login(simulator)
    api = session.xenapi
    vm = make_vm(session)
    vm.start_on(refs[1], False, False)
    assert failure(api.pool.eject, refs[0])[0] == failure(api.pool.eject, refs[1])[0] == "OPERATION_NOT_ALLOWED"
    api.host.disable(refs[1])
    api.host.evacuate(refs[1])
    api.host.reboot(refs[1])
    assert api.host.get_enabled(refs[1]) is True
    vm.pool_migrate(refs[1], {})
    api.host.disable(refs[2])
    api.host.shutdown(refs[2])
    assert simulator.hosts[2].is_up is False
    hosts.start_host(simulator.state, refs[2])
    before = {name: len(getattr(api, name).get_all()) for name in ("SR", "PIF", "host_cpu", "host_metrics")}
    api.pool.eject(refs[2])
    assert api.host.get_all() == refs[:2]
    after = {name: len(getattr(api, name).get_all()) for name in ("SR", "PIF", "host_cpu", "host_metrics")}
    assert after == {"SR": before["SR"] - 1, "PIF": 2, "host_cpu": 32, "host_metrics": 2}
    with pytest.raises(OSError):
        login(simulator, 2)
    # The call that ejects is the last that anybody sees of it.
    hosts.crash_host(simulator.state, refs[1])
    api.host.declare_dead(refs[1])
    api.host.destroy(refs[1])
    assert api.host.get_all() == refs[:1]


def test_a_guest_that_has_ended_is_forgotten(simulator: Simulator, refs: list[str]) -> None:
    session = login(simulator)
    vm = make_vm(session)
    for end in (vm.hard_shutdown, vm.suspend):
        vm.start_on(refs[0], False, False)
        domid, told = int(vm.get_domid()), vm.get_xenstore_data()
        assert told["vm-data/site"] == "here"
        end()
        # As the watch does when the domain's nodes vanish, at whatever moment it comes to that.
        simulator.hosts[0].guests.refresh(domid)
        assert vm.get_xenstore_data() == told
    vm.resume(False, False)
    told = vm.get_xenstore_data()
    here = next(host for host in simulator.hosts if host.ref == vm.get_resident_on())
    other = next(host for host in simulator.hosts if host is not here)
    domid = int(vm.get_domid())
    vm.pool_migrate(other.ref, {})
    here.guests.refresh(domid)
    assert vm.get_xenstore_data() == told
