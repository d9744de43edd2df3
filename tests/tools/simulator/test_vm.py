"""A VM's life: power states, domains, XenStore, guest and agent."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import XenAPI

from agent_protocol.xenstore import Client, StoreError, connect
from tools.simulator.process import SimulatorProcess

from .support import MIB, NULL, Vm, failure, lives, make_vm, until


@pytest.fixture(scope="module")
def store(simulator: SimulatorProcess) -> Any:
    client = connect(str(simulator.xenstore_socket), timeout=5.0)
    yield client
    client.close()


def read(store: Client, path: str) -> str:
    return store.read(path).decode("utf-8")


def missing(store: Client, path: str) -> bool:
    try:
        store.read(path)
    except StoreError as error:
        return error.code == "ENOENT"
    return False


def boots(simulator: SimulatorProcess, vm: Vm) -> list[dict[str, Any]]:
    log = simulator.guest_root(vm.uuid) / "var/log/boots"
    return [json.loads(line) for line in log.read_text("utf-8").splitlines()] if log.exists() else []


def booted(simulator: SimulatorProcess, vm: Vm, times: int) -> None:
    until(lambda: len(boots(simulator, vm)) == times)


def test_whole_life(session: XenAPI.Session, simulator: SimulatorProcess, store: Client) -> None:
    vm = make_vm(session)
    host = session.xenapi.host.get_all()[0]
    free = int(session.xenapi.host.compute_free_memory(host))
    vm.start(False, False)
    domid = vm.get_domid()
    assert int(domid) > 0
    assert vm.get_power_state() == "Running"
    assert vm.get_resident_on() == host
    assert vm.ref in session.xenapi.host.get_resident_VMs(host)
    assert int(session.xenapi.host.compute_free_memory(host)) < free - 128 * MIB
    (console,) = vm.get_consoles()
    assert session.xenapi.console.get_location(console).endswith(session.xenapi.console.get_uuid(console))
    metrics = vm.get_guest_metrics()
    assert session.xenapi.VM_guest_metrics.get_PV_drivers_detected(metrics)
    booted(simulator, vm, 1)
    pid = simulator.agent_pid(vm.uuid)
    assert lives(pid)
    assert os.getpgid(pid) == pid

    vm.clean_reboot()
    second = vm.get_domid()
    assert int(second) > int(domid)
    assert not lives(pid)
    assert missing(store, f"/local/domain/{domid}")
    booted(simulator, vm, 2)
    assert (simulator.guest_root(vm.uuid) / "var/log/ended").read_text() == "cleanly\n"

    vm.hard_reboot()
    assert int(vm.get_domid()) > int(second)
    booted(simulator, vm, 3)
    assert (simulator.guest_root(vm.uuid) / "var/log/ended").read_text() == "cleanly\n"

    pid, domid = simulator.agent_pid(vm.uuid), vm.get_domid()
    vm.clean_shutdown()
    assert not lives(pid)
    with pytest.raises(FileNotFoundError):
        simulator.agent_pid(vm.uuid)
    record = vm.get_record()
    assert (record["power_state"], record["domid"], record["resident_on"]) == ("Halted", "-1", NULL)
    assert record["consoles"] == []
    assert session.xenapi.VM_guest_metrics.get_uuid(record["guest_metrics"])
    assert missing(store, f"/local/domain/{domid}")
    assert missing(store, f"/vm/{vm.uuid}")
    assert int(session.xenapi.host.compute_free_memory(host)) == free

    assert simulator.guest_root(vm.uuid).is_dir()
    vm.destroy()
    assert not simulator.guest_root(vm.uuid).exists()
    assert failure(session.xenapi.VM.get_record, vm.ref) == ["HANDLE_INVALID", "VM", vm.ref]
    assert failure(session.xenapi.VM_metrics.get_record, record["metrics"])[0] == "HANDLE_INVALID"


def test_agent_knows_no_more_than_it_must(simulator: SimulatorProcess, vm: Vm) -> None:
    vm.start(False, False)
    booted(simulator, vm, 1)
    (boot,) = boots(simulator, vm)
    assert boot["store"] == "unix:" + boot["socket"]
    assert set(boot["environment"]) <= {"PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "LC_CTYPE"}
    assert boot["environment"]["PYTHONDONTWRITEBYTECODE"] == "1"


def test_guest_root(simulator: SimulatorProcess, vm: Vm) -> None:
    vm.start(False, False)
    root = simulator.guest_root(vm.uuid)
    mode = {name: (root / name).stat().st_mode & 0o7777 for name in ("etc/shadow", "root", "tmp", "etc/passwd")}
    assert mode == {"etc/shadow": 0o600, "root": 0o700, "tmp": 0o1777, "etc/passwd": 0o644}
    assert (root / "etc/passwd").read_text().startswith(f"root:x:{os.getuid()}:{os.getgid()}:")
    assert (root / "etc/shadow").read_text().startswith("root:*:")
    assert "PASS_MIN_LEN\t5" in (root / "etc/login.defs").read_text()
    assert (root / "etc/os-release").read_text().startswith("ID=xenward-simulated\n")
    for name in ("etc/group", "etc/hostname", "home/user", "var/log", "var/lib", "run"):
        assert (root / name).exists()


def test_xenstore_of_a_domain(session: XenAPI.Session, simulator: SimulatorProcess, store: Client, vm: Vm) -> None:
    network = session.xenapi.network.get_all()[0]
    vif = session.xenapi.VIF.create(vif_record(vm, network))
    vm.start(False, False)
    domid = vm.get_domid()
    path = f"/local/domain/{domid}"
    assert read(store, f"{path}/vm") == f"/vm/{vm.uuid}"
    assert read(store, f"{path}/name") == "test"
    assert read(store, f"{path}/domid") == domid
    assert read(store, f"{path}/domain-type") == "hvm"
    assert read(store, f"{path}/memory/static-max") == str(256 * 1024)
    assert read(store, f"{path}/platform/nx") == "true"
    assert read(store, f"/vm/{vm.uuid}/uuid") == vm.uuid
    assert read(store, f"/vm/{vm.uuid}/domains/{domid}") == path
    assert store.get_permissions(path) == ["n0", f"r{domid}"]
    assert store.get_permissions(f"{path}/name") == ["n0", f"r{domid}"]
    for name in ("data", "control", "attr", "feature", "xenserver/attr", "vm-data", "device"):
        assert store.get_permissions(f"{path}/{name}") == [f"n{domid}"]
    assert read(store, f"{path}/vm-data/site") == "here"
    assert missing(store, f"{path}/elsewhere")
    assert read(store, f"{path}/device/vif/0/mac") == session.xenapi.VIF.get_MAC(vif)
    assert read(store, read(store, f"{path}/device/vif/0/backend") + "/frontend") == f"{path}/device/vif/0"

    unique = read(store, f"{path}/unique-domain-id")
    booted(simulator, vm, 1)
    with connect(boots(simulator, vm)[0]["socket"], timeout=5.0) as guest:
        guest.write("data/hello", b"world")
        assert guest.read("name") == b"test"
        with pytest.raises(StoreError) as caught:
            guest.write("name", b"other")
        assert caught.value.code == "EACCES"
    assert read(store, f"{path}/data/hello") == "world"

    vm.set_xenstore_data({"vm-data/other": "now", "ignored": "x"})
    assert read(store, f"{path}/vm-data/other") == "now"
    assert missing(store, f"{path}/vm-data/site")
    vm.add_to_xenstore_data("vm-data/later", "y")
    assert missing(store, f"{path}/vm-data/later")
    vm.hard_reboot()
    path = f"/local/domain/{vm.get_domid()}"
    assert read(store, f"{path}/vm-data/later") == "y"
    assert read(store, f"{path}/unique-domain-id") != unique


def vif_record(vm: Vm, network: str, **changes: Any) -> dict[str, Any]:
    record = {
        "VM": vm.ref,
        "network": network,
        "device": "0",
        "MAC": "",
        "MTU": "1500",
        "other_config": {},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
    }
    return {**record, **changes}


def test_a_store_that_refuses_leaves_nothing(session: XenAPI.Session, store: Client, vm: Vm) -> None:
    before = store.directory("/local/domain")
    vm.set_platform({"not a legal name": "x"})
    assert failure(vm.start, False, False)[0] == "INTERNAL_ERROR"
    assert vm.get_power_state() == "Halted"
    assert store.directory("/local/domain") == before
    assert missing(store, f"/vm/{vm.uuid}")
    vm.set_platform({})
    vm.start(False, False)


STATES: dict[str, list[str]] = {
    "start": ["halted"],
    "clean_shutdown": ["running"],
    "clean_reboot": ["running"],
    "hard_reboot": ["paused", "running"],
    "hard_shutdown": ["paused", "suspended", "running"],
    "pause": ["running"],
    "unpause": ["paused"],
    "suspend": ["running"],
    "resume": ["suspended"],
    "destroy": ["halted", "suspended"],
}


def test_power_states(session: XenAPI.Session, simulator: SimulatorProcess, vm: Vm) -> None:
    def refused_in(actual: str) -> None:
        allowed = set(vm.get_allowed_operations())
        for operation, expected in STATES.items():
            if actual in expected:
                assert operation in allowed
                continue
            assert operation not in allowed
            arguments = (False, False) if operation in ("start", "resume") else ()
            method = getattr(session.xenapi.VM, operation)
            assert failure(method, vm.ref, *arguments) == [
                "VM_BAD_POWER_STATE",
                vm.ref,
                ", ".join(expected),
                actual,
            ]
        assert vm.get_power_state().lower() == actual

    refused_in("halted")
    vm.start(True, False)
    refused_in("paused")
    assert boots(simulator, vm) == []
    vm.unpause()
    booted(simulator, vm, 1)
    refused_in("running")
    vm.pause()
    pid = simulator.agent_pid(vm.uuid)
    until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    vm.unpause()
    until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S")
    domid = vm.get_domid()
    vm.suspend()
    refused_in("suspended")
    assert vm.get_domid() == "-1"
    image = vm.get_suspend_VDI()
    assert session.xenapi.VDI.get_type(image) == "suspend"
    until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    vm.resume(False, False)
    assert int(vm.get_domid()) > int(domid)
    assert vm.get_suspend_VDI() == NULL
    assert failure(session.xenapi.VDI.get_record, image)[0] == "HANDLE_INVALID"
    # The same agent goes on.
    until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S")
    booted(simulator, vm, 1)
    vm.pause()
    vm.hard_shutdown()
    refused_in("halted")


def test_checks_before_the_power_state(session: XenAPI.Session, vm: Vm) -> None:
    vm.set_blocked_operations({"start": "because"})
    assert failure(vm.start, False, False) == ["OPERATION_BLOCKED", vm.ref, "because"]
    assert "start" not in vm.get_allowed_operations()
    assert failure(vm.add_to_blocked_operations, "fly", "x")[0] == "INVALID_VALUE"
    vm.remove_from_blocked_operations("start")
    vm.set_is_a_template(True)
    assert failure(vm.start, False, False) == ["VM_IS_TEMPLATE", vm.ref, "start"]
    vm.set_is_a_template(False)
    host = session.xenapi.host.get_all()[0]
    session.xenapi.host.disable(host)
    try:
        assert failure(vm.start, False, False) == ["NO_HOSTS_AVAILABLE"]
        assert failure(vm.start_on, host, False, False) == ["HOST_DISABLED", host]
    finally:
        session.xenapi.host.enable(host)
    vm.start_on(host, False, False)


def test_memory(session: XenAPI.Session, vm: Vm) -> None:
    too_much = 2**40
    vm.set_memory_limits(*[str(too_much)] * 4)
    overhead = int(vm.compute_memory_overhead())
    host = session.xenapi.host.get_all()[0]
    error = failure(vm.start, False, False)
    free = session.xenapi.host.compute_free_memory(host)
    assert error == ["HOST_NOT_ENOUGH_FREE_MEMORY", str(too_much + overhead), free]
    assert failure(vm.set_memory_static_max, "1") == ["MEMORY_CONSTRAINT_VIOLATION_ORDER"]


def test_memory_overhead_is_that_of_xapi(session: XenAPI.Session, vm: Vm) -> None:
    vm.set_memory(str(4096 * MIB))
    vm.set_VCPUs_max(2)
    assert vm.compute_memory_overhead() == str(37 * MIB)


def test_operations_wait_for_each_other(simulator: SimulatorProcess, session: XenAPI.Session, vm: Vm) -> None:
    results: list[str] = []

    def start() -> None:
        own = XenAPI.Session(simulator.url)
        own.login_with_password(simulator.username, simulator.password)
        try:
            own.xenapi.VM.start(vm.ref, False, False)
            results.append("started")
        except XenAPI.Failure as error:
            results.append(error.details[0])
        finally:
            own("close")()

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == ["VM_BAD_POWER_STATE"] * 5 + ["started"]
    booted(simulator, vm, 1)


def test_agent_that_dies_is_reaped(simulator: SimulatorProcess, vm: Vm) -> None:
    vm.start(False, False)
    booted(simulator, vm, 1)
    pid = simulator.agent_pid(vm.uuid)
    os.kill(pid, 9)
    until(lambda: not Path(f"/proc/{pid}").exists())
    until(lambda: not (simulator.state / "guests" / vm.uuid / "agent.pid").exists())
    assert vm.get_power_state() == "Running"
    vm.clean_reboot()
    booted(simulator, vm, 2)
