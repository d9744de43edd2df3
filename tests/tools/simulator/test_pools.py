"""A pool of several hosts: who answers what, where VMs run, and what moves."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import XenAPI

from agent_protocol.xenstore import connect
from tools.simulator import tls
from tools.simulator.process import SimulatorError, SimulatorProcess

from .pools import Pool, Vm, logged_in
from .support import MIB, NULL, failure, lives, plugin, until

GIB = 1024 * MIB


@pytest.fixture(scope="module")
def simulator(arguments: list[str]) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(["--hosts", "3", "--tls", *arguments]) as process:
        yield process


@pytest.fixture
def pool(simulator: SimulatorProcess) -> Iterator[Pool]:
    with logged_in(simulator) as session:
        yield Pool(simulator, session)


@pytest.fixture
def vm(pool: Pool) -> Iterator[Vm]:
    """A halted VM with a disk that all hosts see, and an interface."""
    vm = pool.make()
    pool.disk(vm, pool.shared)
    pool.interface(vm)
    yield vm
    vm.destroy()


def test_what_each_host_has(simulator: SimulatorProcess, pool: Pool) -> None:
    api = pool.api
    assert [host.name for host in simulator.hosts] == ["simulated-1", "simulated-2", "simulated-3"]
    assert simulator.hosts[0].url == simulator.url
    assert len({host.url for host in simulator.hosts} | {host.plain_url for host in simulator.hosts}) == 6
    assert len({host.fingerprint for host in simulator.hosts}) == 3
    for number, host in enumerate(simulator.hosts):
        record = api.host.get_record(pool.refs[number])
        assert record["address"] == host.url.removeprefix("https://")
        assert record["hostname"] == host.name
        assert [api.PIF.get_device(pif) for pif in record["PIFs"]] == ["eth0"]
        assert sorted(api.SR.get_type(api.PBD.get_SR(pbd)) for pbd in record["PBDs"]) == ["ext", "nfs"]
        dom0 = api.VM.get_record(record["control_domain"])
        assert (dom0["domid"], dom0["resident_on"]) == ("0", pool.refs[number])
        with connect(str(host.xenstore_socket), timeout=5.0) as store:
            assert store.read("/local/domain/0/vm").decode() == f"/vm/{dom0['uuid']}"
    assert api.SR.get_shared(pool.shared)
    assert len(api.network.get_all()) == 1
    assert api.pool.get_master(pool.pool) == pool.refs[0]
    assert [api.pool.is_slave(host) for host in pool.refs] == [False, True, True]
    assert api.session.get_this_host(pool.session.handle) == pool.refs[0]


@pytest.mark.parametrize(
    "bad", [["--hosts", "0"], ["--hosts", "17"], ["--hosts", "x"], ["--hosts", "2", "--hypervisor", "xen"]]
)
def test_bad_numbers_of_hosts(bad: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SimulatorError):
        SimulatorProcess(bad).start()
    assert "xenward-simulator: " in capfd.readouterr().err


# Supporters


def post(url: str, path: str, body: bytes, **headers: str) -> http.client.HTTPResponse:
    address = url.partition("://")[2]
    if url.startswith("https:"):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(address, context=context, timeout=10)
    else:
        connection = http.client.HTTPConnection(address, timeout=10)
    connection.request("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    response.body = response.read()  # type: ignore[attr-defined]
    connection.close()
    return response


def test_supporters_say_who_the_coordinator_is(simulator: SimulatorProcess, pool: Pool) -> None:
    address = pool.api.host.get_address(pool.refs[0])
    expected = ["HOST_IS_SLAVE", address]
    for url in (simulator.hosts[1].url, simulator.hosts[2].plain_url):
        session = XenAPI.Session(url, ignore_ssl=True)
        # Before any password is looked at.
        assert failure(session.login_with_password, "x", "wrong", "1.0", "tests") == expected
        session._session = pool.session.handle
        assert failure(session.xenapi.VM.get_all) == expected
        assert failure(session.xenapi.host.is_in_emergency_mode) == expected
        assert failure(session.xenapi.Async.VM.start, NULL, False, False) == expected
        session("close")()


def test_thumbprint_of_the_coordinator(simulator: SimulatorProcess, pool: Pool) -> None:
    pem = ssl.get_server_certificate(("127.0.0.1", int(simulator.url.rpartition(":")[2])))
    header = "x-xenapi-response-host-certificate-thumbprint"
    call = json.dumps({"jsonrpc": "2.0", "method": "host.get_all", "params": ["x"], "id": 1}).encode()
    xml = b"<methodCall><methodName>host.get_all</methodName><params/></methodCall>"
    for name, algorithm in (("sha-256:master", "sha256"), ("sha-1:master", "sha1")):
        for path, body in (("/jsonrpc", call), ("/", xml)):
            asked: Any = {"x_xenapi_request_host_certificate_thumbprint": name}
            response: Any = post(simulator.hosts[1].url, path, body, **asked)
            assert response.headers[header] == tls.fingerprint(pem, algorithm)
            assert b"HOST_IS_SLAVE" in response.body
            assert header not in post(simulator.hosts[1].url, path, body).headers
            assert header not in post(simulator.url, path, body, **asked).headers
    unknown: Any = {"x_xenapi_request_host_certificate_thumbprint": "md5:master"}
    assert header not in post(simulator.hosts[1].url, "/", xml, **unknown).headers


def test_local_sessions_of_a_supporter(simulator: SimulatorProcess, pool: Pool) -> None:
    session = XenAPI.Session(simulator.hosts[1].url, ignore_ssl=True)
    session.slave_local_login_with_password(simulator.username, simulator.password)
    assert session.xenapi.host.is_in_emergency_mode() is False
    assert failure(session.xenapi.VM.get_all)[0] == "HOST_IS_SLAVE"
    other = XenAPI.Session(simulator.hosts[2].url, ignore_ssl=True)
    other._session = session.handle
    assert failure(other.xenapi.host.is_in_emergency_mode)[0] == "HOST_IS_SLAVE"
    session.xenapi.session.local_logout()
    assert failure(session.xenapi.host.is_in_emergency_mode)[0] == "HOST_IS_SLAVE"
    session("close")()
    other("close")()


def test_streams_are_where_their_objects_are(simulator: SimulatorProcess, pool: Pool, vm: Vm) -> None:
    vm.start_on(pool.refs[1], False, False)

    def get(number: int, place: str, **parameters: str) -> tuple[int, str | None]:
        address = simulator.hosts[number].plain_url.partition("://")[2]
        connection = http.client.HTTPConnection(address, timeout=10)
        connection.request("GET", f"{place}?{urlencode({'session_id': pool.session.handle, **parameters})}")
        response = connection.getresponse()
        result = response.status, response.headers["location"]
        connection.close()
        return result

    status, location = get(0, "/vm_rrd", uuid=vm.uuid)
    assert status == 302
    assert str(location).startswith(f"{simulator.hosts[1].url}/vm_rrd?")
    assert get(1, "/vm_rrd", uuid=vm.uuid) == (200, None)
    local = pool.local(2)
    other = pool.make()
    disk = pool.disk(other, local)
    status, location = get(0, "/export_raw_vdi", vdi=disk)
    assert (status, str(location).partition("?")[0]) == (302, f"{simulator.hosts[2].url}/export_raw_vdi")
    assert get(2, "/export_raw_vdi", vdi=disk) == (200, None)
    # What everybody sees, everybody gives.
    vm.hard_shutdown()
    shared = pool.api.VBD.get_VDI(vm.get_VBDs()[0])
    assert [get(number, "/export_raw_vdi", vdi=shared)[0] for number in range(3)] == [200] * 3
    other.destroy()


# Placement


def test_where_a_vm_starts(pool: Pool, vm: Vm) -> None:
    api = pool.api
    assert set(vm.get_possible_hosts()) == set(pool.refs)
    vm.set_affinity(pool.refs[2])
    vm.start(False, False)
    assert vm.get_resident_on() == pool.refs[2]
    vm.clean_reboot()
    assert vm.get_resident_on() == pool.refs[2]
    vm.hard_shutdown()
    api.host.disable(pool.refs[2])
    try:
        assert failure(vm.start_on, pool.refs[2], False, False) == ["HOST_DISABLED", pool.refs[2]]
        assert set(vm.get_possible_hosts()) == set(pool.refs[:2])
        vm.start(False, False)
        assert vm.get_resident_on() in pool.refs[:2]
    finally:
        api.host.enable(pool.refs[2])
    assert api.VM.get_scheduled_to_be_resident_on(vm.ref) == NULL


def test_vms_spread_and_local_disks_bind(pool: Pool) -> None:
    made = [
        pool.make(memory_dynamic_min=str(GIB), memory_dynamic_max=str(GIB), memory_static_max=str(GIB)) for _ in "abc"
    ]
    try:
        for vm in made:
            vm.start(False, False)
        assert {vm.get_resident_on() for vm in made} == set(pool.refs)
        bound = pool.make()
        made.append(bound)
        pool.disk(bound, pool.local(1))
        assert bound.get_possible_hosts() == [pool.refs[1]]
        sr = pool.local(1)
        assert failure(bound.assert_can_boot_here, pool.refs[0]) == ["VM_REQUIRES_SR", bound.ref, sr]
        bound.start(False, False)
        assert bound.get_resident_on() == pool.refs[1]
    finally:
        for vm in made:
            vm.destroy()


def test_memory_is_that_of_each_host(pool: Pool) -> None:
    api = pool.api
    before = [int(api.host.compute_free_memory(host)) for host in pool.refs]
    big = str(40 * GIB)
    made = [pool.make(memory_dynamic_min=big, memory_dynamic_max=big, memory_static_max=big) for _ in range(4)]
    try:
        for vm in made[:3]:
            vm.start(False, False)
        free = [int(api.host.compute_free_memory(host)) for host in pool.refs]
        assert all(now < was - 40 * GIB for now, was in zip(free, before))
        assert failure(made[3].start, False, False)[0] == "HOST_NOT_ENOUGH_FREE_MEMORY"
        made[0].hard_shutdown()
        assert failure(made[1].pool_migrate, made[2].get_resident_on(), {})[0] == "HOST_NOT_ENOUGH_FREE_MEMORY"
        made[3].start(False, False)
    finally:
        for vm in made:
            vm.destroy()
    assert [int(api.host.compute_free_memory(host)) for host in pool.refs] == before


def test_plugins_see_the_xenstore_of_their_host(simulator: SimulatorProcess, pool: Pool, vm: Vm) -> None:
    plugin(simulator.plugins, "where", "print(answer(os.environ['XENSTORED_PATH']))")
    for ref, host in zip(pool.refs, simulator.hosts):
        assert pool.api.host.call_plugin(ref, "where", "f", {}) == str(host.xenstore_socket)
    vm.start_on(pool.refs[2], False, False)
    assert vm.call_host_plugin("where", "f", {}) == str(simulator.hosts[2].xenstore_socket)
    vm.pool_migrate(pool.refs[1], {})
    assert vm.call_host_plugin("where", "f", {}) == str(simulator.hosts[1].xenstore_socket)


# Migration


def test_migration(simulator: SimulatorProcess, pool: Pool, vm: Vm) -> None:
    api = pool.api
    vm.start_on(pool.refs[0], False, False)
    pid = simulator.agent_pid(vm.uuid)
    old = f"/local/domain/{vm.get_domid()}"
    first, second = (connect(str(host.xenstore_socket), timeout=5.0) for host in simulator.hosts[:2])
    with first, second:
        first.write(f"{old}/vm-data/said", b"by the guest")
        unique = first.read(f"{old}/unique-domain-id")
        metrics = vm.get_guest_metrics()
        vm.pool_migrate(pool.refs[1], {})
        assert (vm.get_resident_on(), vm.get_power_state()) == (pool.refs[1], "Running")
        assert "local" in first.directory("/")
        assert old.rpartition("/")[2] not in first.directory("/local/domain")
        new = f"/local/domain/{vm.get_domid()}"
        assert second.read(f"{new}/data/updated") == b"1"
        assert second.read(f"{new}/vm-data/said") == b"by the guest"
        assert second.read(f"{new}/unique-domain-id") != unique
        assert vm.get_xenstore_data()["vm-data/said"] == "by the guest"
        assert second.read(f"{new}/device/vif/0/mac").decode() == api.VIF.get_MAC(vm.get_VIFs()[0])
    assert vm.get_guest_metrics() == metrics
    assert api.VIF.get_currently_attached(vm.get_VIFs()[0])
    address = api.host.get_address(pool.refs[1])
    assert all(f"//{address}/console" in api.console.get_location(console) for console in vm.get_consoles())
    assert simulator.agent_pid(vm.uuid) == pid
    until(lambda: "pool_migrate" in vm.get_allowed_operations())
    vm.clean_shutdown()
    until(lambda: not lives(pid))


def test_devices_that_are_unplugged_stay_so(simulator: SimulatorProcess, pool: Pool, vm: Vm) -> None:
    vm.start_on(pool.refs[0], False, False)
    (vif,) = vm.get_VIFs()
    (vbd,) = vm.get_VBDs()
    pool.api.VIF.unplug(vif)
    pool.api.VBD.unplug(vbd)
    vm.pool_migrate(pool.refs[1], {})
    vm.suspend()
    vm.resume(False, False)
    assert not pool.api.VIF.get_currently_attached(vif)
    assert not pool.api.VBD.get_currently_attached(vbd)
    host = simulator.hosts[pool.refs.index(vm.get_resident_on())]
    with connect(str(host.xenstore_socket), timeout=5.0) as store:
        assert store.directory(f"/local/domain/{vm.get_domid()}/device/vif") == []
        assert store.directory(f"/local/domain/{vm.get_domid()}/device/vbd") == []


def test_refused_migrations(simulator: SimulatorProcess, pool: Pool, vm: Vm) -> None:
    api = pool.api
    assert failure(vm.pool_migrate, pool.refs[1], {}) == ["VM_BAD_POWER_STATE", vm.ref, "running", "halted"]
    vm.start_on(pool.refs[0], False, False)
    assert failure(vm.pool_migrate, NULL, {}) == ["HANDLE_INVALID", "host", NULL]
    api.host.disable(pool.refs[1])
    try:
        assert failure(vm.pool_migrate, pool.refs[1], {}) == ["HOST_DISABLED", pool.refs[1]]
    finally:
        api.host.enable(pool.refs[1])
    with connect(str(simulator.hosts[0].xenstore_socket), timeout=5.0) as store:
        store.remove(f"/local/domain/{vm.get_domid()}/control/feature-suspend")
        until(lambda: "pool_migrate" not in vm.get_allowed_operations())
        assert failure(vm.pool_migrate, pool.refs[1], {}) == ["VM_LACKS_FEATURE", vm.ref]
        store.write(f"/local/domain/{vm.get_domid()}/control/feature-suspend", b"1")
        until(lambda: "pool_migrate" in vm.get_allowed_operations())
    assert vm.get_resident_on() == pool.refs[0]
    bound = pool.make()
    pool.disk(bound, pool.local(0))
    bound.start(False, False)
    assert failure(bound.pool_migrate, pool.refs[1], {}) == ["VM_REQUIRES_SR", bound.ref, pool.local(0)]
    bound.destroy()


def test_suspended_guests(simulator: SimulatorProcess, pool: Pool, vm: Vm) -> None:
    vm.start_on(pool.refs[0], False, False)
    pid = simulator.agent_pid(vm.uuid)
    vm.suspend()
    assert lives(pid)
    (vif,) = vm.get_VIFs()
    assert pool.api.VIF.get_currently_attached(vif)
    vm.resume_on(pool.refs[1], True, False)
    assert vm.get_power_state() == "Paused"
    until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    vm.unpause()
    until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S")
    vm.suspend()
    vm.hard_shutdown()
    # What was kept is dropped: the next start is a boot.
    until(lambda: not lives(pid))
    vm.start(False, False)
    assert until(lambda: simulator.agent_pid(vm.uuid)) != pid
    vm.suspend()
    kept = simulator.agent_pid(vm.uuid)
    vm.session.xenapi.VM.destroy(vm.ref)
    until(lambda: not lives(kept))


def content(pool: Pool, vdi: str, number: int) -> bytes:
    """The first bytes of a disk."""
    address = pool.hosts[number].plain_url.partition("://")[2]
    connection = http.client.HTTPConnection(address, timeout=20)
    connection.request("GET", f"/export_raw_vdi?{urlencode({'session_id': pool.session.handle, 'vdi': vdi})}")
    body = connection.getresponse().read()
    connection.close()
    return body[:16]


def fill(pool: Pool, vdi: str, number: int, data: bytes) -> None:
    address = pool.hosts[number].plain_url.partition("://")[2]
    connection = http.client.HTTPConnection(address, timeout=20)
    task = pool.api.task.create("import", "")
    query = urlencode({"session_id": pool.session.handle, "vdi": vdi, "task_id": task})
    connection.request("PUT", f"/import_raw_vdi?{query}", data.ljust(1024 * 1024, b"."))
    connection.getresponse().read()
    connection.close()
    until(lambda: pool.api.task.get_status(task) == "success")


@pytest.mark.parametrize("state", ["Running", "Suspended", "Halted"])
def test_storage_migration(simulator: SimulatorProcess, pool: Pool, vm: Vm, state: str) -> None:
    api = pool.api
    old = api.VBD.get_VDI(vm.get_VBDs()[0])
    fill(pool, old, 0, b"sixteen bytes...")
    uuid, pid = api.VDI.get_uuid(old), None
    if state != "Halted":
        vm.start_on(pool.refs[0], False, False)
        pid = simulator.agent_pid(vm.uuid)
    if state == "Suspended":
        vm.suspend()
    sr = pool.local(1)
    image = {vm.get_suspend_VDI(): pool.shared} if state == "Suspended" else {}
    destination = pool.receive(1)
    assert vm.assert_can_migrate(destination, True, {old: sr, **image}, {}, {}) == ""
    assert vm.migrate_send(destination, True, {old: sr, **image}, {}, {}) == vm.ref
    new = api.VBD.get_VDI(vm.get_VBDs()[0])
    assert (api.VDI.get_SR(new), api.VDI.get_name_label(new)) == (sr, "disk")
    assert api.VDI.get_uuid(new) != uuid
    assert failure(api.VDI.get_record, old)[0] == "HANDLE_INVALID"
    assert vm.get_power_state() == state
    if state == "Running":
        assert vm.get_resident_on() == pool.refs[1]
        assert simulator.agent_pid(vm.uuid) == pid
    if state != "Halted":
        vm.hard_shutdown()
    assert content(pool, new, 1) == b"sixteen bytes..."
    api.VDI.destroy(new)


def test_copies_by_migration(pool: Pool, vm: Vm) -> None:
    api = pool.api
    old = api.VBD.get_VDI(vm.get_VBDs()[0])
    fill(pool, old, 0, b"sixteen bytes...")
    destination = pool.receive(1)
    ref = vm.migrate_send(destination, False, {old: pool.local(1)}, {}, {"copy": "true"})
    copied = Vm(pool.session, ref)
    assert copied.uuid != vm.uuid
    disk = api.VBD.get_VDI(copied.get_VBDs()[0])
    assert api.VDI.get_SR(disk) == pool.local(1)
    assert content(pool, disk, 1) == b"sixteen bytes..."
    assert api.VBD.get_VDI(vm.get_VBDs()[0]) == old
    copied.destroy()
    api.VDI.destroy(disk)
    vm.start(False, False)
    error = failure(vm.migrate_send, destination, True, {}, {}, {"copy": "true"})
    assert error == ["VM_BAD_POWER_STATE", vm.ref, "halted", "running"]


def test_refused_storage_migrations(pool: Pool, vm: Vm) -> None:
    api = pool.api
    vm.start_on(pool.refs[0], False, False)
    disk = api.VBD.get_VDI(vm.get_VBDs()[0])
    destination = pool.receive(1)

    def refused(dest: dict[str, str], vdi_map: dict[str, str], live: bool = True) -> list[str]:
        error = failure(vm.assert_can_migrate, dest, live, vdi_map, {}, {})
        assert failure(vm.migrate_send, dest, live, vdi_map, {}, {}) == error
        return error

    assert refused(destination, {disk: pool.local(2)}) == ["VM_REQUIRES_SR", vm.ref, pool.local(2)]
    assert refused({**destination, "session_id": NULL}, {}) == ["VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED"]
    assert refused({}, {})[0] == "INTERNAL_ERROR"
    assert refused({**destination, "master": "http://192.0.2.1/"}, {}) == ["VDI_NOT_IN_MAP", disk]
    assert refused(destination, {}, live=False) == ["VM_BAD_POWER_STATE", vm.ref, "halted, suspended", "running"]
    assert refused(destination, {disk: NULL})[0] == "HANDLE_INVALID"
    before = set(api.VDI.get_all())
    huge = api.SR.create(pool.refs[1], {"device": "/dev/sdb"}, str(4 * MIB), "small", "", "ext", "user", False, {})
    error = failure(vm.migrate_send, destination, True, {disk: huge}, {}, {})
    assert error[0] == "SR_BACKEND_FAILURE_44"
    # As it was, and nothing is left.
    assert (vm.get_resident_on(), api.VBD.get_VDI(vm.get_VBDs()[0])) == (pool.refs[0], disk)
    assert set(api.VDI.get_all()) == before
    assert vm.get_current_operations() == api.VDI.get_current_operations(disk) == {}
    bound = pool.make()
    stuck = pool.disk(bound, pool.local(0))
    assert failure(bound.migrate_send, destination, True, {}, {}, {}) == ["VDI_NOT_IN_MAP", stuck]
    bound.destroy()


# Evacuation


def test_evacuation(simulator: SimulatorProcess, pool: Pool, vm: Vm) -> None:
    api = pool.api
    vm.start_on(pool.refs[2], False, False)
    bound = pool.make()
    pool.disk(bound, pool.local(2))
    bound.start(False, False)
    assert api.host.get_vms_which_prevent_evacuation(pool.refs[2]) == {
        bound.ref: ["VM_REQUIRES_SR", bound.ref, pool.local(2)]
    }
    assert failure(api.host.evacuate, pool.refs[2])[0] == "CANNOT_EVACUATE_HOST"
    assert vm.get_resident_on() == pool.refs[2]
    bound.destroy()
    api.host.disable(pool.refs[2])
    try:
        pid = simulator.agent_pid(vm.uuid)
        assert failure(api.host.shutdown, pool.refs[2]) == ["HOST_IN_USE", pool.refs[2], "VM", vm.ref]
        api.host.evacuate(pool.refs[2])
        assert vm.get_resident_on() in pool.refs[:2]
        assert simulator.agent_pid(vm.uuid) == pid
    finally:
        api.host.enable(pool.refs[2])
