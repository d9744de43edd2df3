"""Live migration: the guest and its agent go on elsewhere, or where they were, and nothing is left behind."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from agent_protocol.messages import Password
from agent_protocol.outcomes import Busy, Failed, Refused, Unsuccessful
from compute_driver.errors import InstanceNotFound, StorageNotFound, XenServerFailure
from compute_driver.resources import MigrationTarget
from compute_driver.volumes import IscsiConnection, Volume
from compute_driver.xenapi.guests.vms import NULL
from compute_driver.xenapi.moving import disks as moves
from compute_driver.xenapi.moving import sending
from compute_driver.xenapi.moving.disks import MOVE_KEY
from compute_driver.xenapi.storage.volume_repositories import of_iscsi
from tests.contract.faults import WITH_AGENT, Steps, Wanted
from tools.commands import proof

from ..waiting import eventually
from .support import Pair, each_fault, pair, running_at, wrong

OLD, NEW = Password("first Pass-word 1"), Password("second Pass-word 2")


@pytest.fixture(scope="module")
def shared() -> Iterator[Pair]:
    with pair("--no-agent") as it:
        yield it


@pytest.fixture
def it(shared: Pair) -> Iterator[Pair]:
    """A pool that is empty, before and afterwards."""
    yield shared
    shared.empty()


def migrate(it: Pair, guest: Wanted, node: str, steps: Steps | None = None) -> None:
    target = it.driver.check_can_live_migrate_destination(guest, node=node)
    # As it comes from another process.
    it.driver.live_migration(guest, MigrationTarget.from_dict(target.to_dict()), progress=steps or Steps())


def methods(it: Pair, action: Any) -> list[str]:
    it.control.clear_calls()
    it.control.log_calls()
    action()
    it.control.log_calls(False)
    return [call.name for call in it.control.read_calls()]


def sessions(it: Pair) -> int:
    return len([left for left in it.control.leftovers() if left.cls == "session" and left.name == "migration"])


def test_the_agent_goes_along() -> None:
    with pair() as it:
        for local in (False, True):
            guest = it.guest(local=local, image=WITH_AGENT, admin_password=OLD)
            before = it.bench.vm(guest)
            migrate(it, guest, it.there)
            after = it.bench.vm(guest)
            assert (after.uuid, after.ref) == (before.uuid, before.ref)
            assert after.host != before.host
            it.driver.set_admin_password(guest, NEW)
            root = it.bench.simulator.guest_root(after.uuid)
            assert proof.password_opens(root, "root", NEW.value)
            migrate(it, guest, it.here)
            it.driver.set_admin_password(guest, OLD)
            assert proof.password_opens(root, "root", OLD.value)
            it.driver.destroy(guest)


def test_shared_disks_stay(it: Pair) -> None:
    guest = it.guest()
    disks = it.bench.disks(guest)
    steps = Steps()
    called = methods(it, lambda: migrate(it, guest, it.there, steps))
    assert "VM.pool_migrate" in called
    assert "VM.migrate_send" not in called
    assert steps.names == ["check", "migrate"]
    running_at(it, guest, it.there)
    assert it.bench.disks(guest) == disks


def test_other_disks_go_along_with_the_config_drive(it: Pair) -> None:
    guest = it.guest(local=True)
    assert it.places(guest) == {"0": it.here, "3": it.here}
    called = methods(it, lambda: migrate(it, guest, it.there))
    assert called.index("VM.assert_can_migrate") < called.index("VM.migrate_send")
    running_at(it, guest, it.there)
    assert it.places(guest) == {"0": "shared", "3": "shared"}
    assert it.notes(guest) == set()
    assert sessions(it) == 0
    it.driver.destroy(guest)
    it.bench.assert_nothing_left()


def test_nothing_happens_when_it_is_there(it: Pair) -> None:
    guest = it.guest()
    domid = it.bench.vm(guest).domid
    migrate(it, guest, it.here)
    assert it.bench.vm(guest).domid == domid


def test_what_a_target_says(it: Pair) -> None:
    guest = it.guest()
    target = it.driver.check_can_live_migrate_destination(guest, node=it.there)
    assert target.node == it.there
    assert it.server.call("host.get_hostname", target.host) == it.there
    assert target.repositories[0] == it.shared
    assert set(target.repositories) == {it.shared, it.local[it.there]}
    assert it.server.call("network.get_bridge", target.networks["xenbr0"]) == "xenbr0"
    assert target.receive == {}


def test_a_node_that_takes_no_guests(it: Pair) -> None:
    guest = it.guest()
    (host,) = it.server.call("host.get_by_name_label", it.there)
    it.server.call("host.disable", host)
    try:
        with pytest.raises(Refused) as caught:
            migrate(it, guest, it.there)
    finally:
        it.server.call("host.enable", host)
    assert caught.value.code == "node_disabled"
    with pytest.raises(Refused):
        migrate(it, guest, "nowhere")
    running_at(it, guest, it.here)


def test_a_guest_that_does_not_run(it: Pair) -> None:
    guest = it.guest(running=False)
    with pytest.raises(Refused) as caught:
        migrate(it, guest, it.there)
    assert caught.value.code == "instance_not_running"


def test_a_node_without_storage(it: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = it.guest(local=True)
    monkeypatch.setattr(moves, "repositories_at", lambda parts, host: [])
    with pytest.raises(StorageNotFound):
        migrate(it, guest, it.there)
    running_at(it, guest, it.here)


def test_disks_of_others_stay_and_so_does_the_guest(it: Pair) -> None:
    guest = it.guest(local=True)
    vdi = it.bench.disks(guest)["0"]
    marks = it.server.call("VDI.get_other_config", vdi)
    it.server.call("VDI.set_other_config", vdi, {})
    with pytest.raises(Refused) as caught:
        migrate(it, guest, it.there)
    it.server.call("VDI.set_other_config", vdi, marks)
    assert caught.value.code == "disk_not_at_node"
    running_at(it, guest, it.here)


# Volumes


CHAP = "hunter2-Chap"


@pytest.fixture
def volume(it: Pair) -> Volume:
    """A logical unit whose target asks for a password."""
    iscsi = IscsiConnection(f"san-{uuid.uuid4()}.example", "iqn.2004-10.example:vol", 0, 3260, "ada", Password(CHAP))
    server, host = it.server, it.server.call("host.get_all")[0]
    config = {"server": "filer.example", "serverpath": "/volumes"}
    sr = server.call("SR.introduce", of_iscsi(iscsi).uuid, "", "", "nfs", "user", True, {})
    pbd = server.call("PBD.create", {"host": host, "SR": sr, "device_config": config, "other_config": {}})
    server.call("PBD.plug", pbd)
    record = {"name_label": "", "SR": sr, "virtual_size": str(4 * 1024**2), "type": "user", "sharable": False}
    server.call("VDI.create", {**record, "read_only": False, "other_config": {}})
    server.call("PBD.unplug", pbd)
    server.call("SR.forget", sr)
    return Volume("vol-1", iscsi)


def connected(it: Pair, volume: Volume) -> set[str]:
    sr = it.server.call("SR.get_by_uuid", of_iscsi(volume.connection).uuid)  # type: ignore[arg-type]
    pbds = [it.server.call("PBD.get_record", pbd) for pbd in it.server.call("SR.get_PBDs", sr)]
    return {it.server.call("host.get_hostname", pbd["host"]) for pbd in pbds if pbd["currently_attached"]}


def with_volume(it: Pair, volume: Volume, *, local: bool) -> Wanted:
    guest = it.guest(local=local, running=False)
    it.driver.attach_volume(guest, volume)
    # As if the other node had joined the pool later.
    sr = it.server.call("SR.get_by_uuid", of_iscsi(volume.connection).uuid)  # type: ignore[arg-type]
    (host,) = it.server.call("host.get_by_name_label", it.there)
    for pbd in it.server.call("SR.get_PBDs", sr):
        if it.server.call("PBD.get_host", pbd) == host:
            it.server.call("PBD.unplug", pbd)
            it.server.call("PBD.destroy", pbd)
    it.driver.power_on(guest)
    running_at(it, guest, it.here)
    return guest


@pytest.mark.parametrize("local", [False, True])
def test_volumes_are_connected_and_never_copied(it: Pair, volume: Volume, local: bool) -> None:
    guest = with_volume(it, volume, local=local)
    (vdi,) = [vdi for device, vdi in it.bench.disks(guest).items() if device not in ("0", "3")]
    assert connected(it, volume) == {it.here}
    migrate(it, guest, it.there)
    running_at(it, guest, it.there)
    assert connected(it, volume) == {it.here, it.there}
    assert vdi in it.bench.disks(guest).values()
    secrets = [it.server.call("secret.get_value", secret) for secret in it.server.call("secret.get_all")]
    assert set(secrets) == {CHAP}
    it.driver.destroy(guest, volumes=[volume])
    assert it.server.call("secret.get_all") == []
    it.bench.assert_nothing_left()


def test_a_migration_that_fails_connects_nothing(it: Pair, volume: Volume) -> None:
    guest = with_volume(it, volume, local=False)
    it.control.add_rule("VM.pool_migrate", "fail", error=["VM_MIGRATE_FAILED", "x"])
    with pytest.raises(XenServerFailure):
        migrate(it, guest, it.there)
    it.control.clear_rules()
    assert connected(it, volume) == {it.here}
    assert len(it.server.call("secret.get_all")) == 1
    running_at(it, guest, it.here)
    it.driver.destroy(guest, volumes=[volume])


# What goes wrong


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("fault", ["fails", "loses its answer"])
def test_one_fault_at_each_call(it: Pair, fault: str, local: bool) -> None:
    devices = ("0", "3") if local else ("0",)

    def check(guest: Wanted, error: Unsuccessful | None) -> None:
        if error is not None and it.node(guest) == it.here:
            assert it.notes(guest) == set()
            assert it.places(guest) == dict.fromkeys(devices, it.here if local else "shared")
            running_at(it, guest, it.here)
        migrate(it, guest, it.there)
        running_at(it, guest, it.there)
        assert it.notes(guest) == set()
        assert it.places(guest) == dict.fromkeys(devices, "shared")

    rows = each_fault(it, lambda: it.guest(local=local), lambda guest: migrate(it, guest, it.there), check, fault=fault)
    assert wrong(rows) == []
    (moved,) = [row for row in rows if "migrate_send" in row.call or "VM.pool_migrate" in row.call]
    # Where the guest is tells what the answer was.
    assert (moved.outcome == "succeeded") is (fault == "loses its answer")


def test_without_progress_it_is_given_up(it: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = it.guest(local=True)
    monkeypatch.setattr(sending, "STALL_TIMEOUT", 0.2)

    def stuck(server: Any, method: str, *arguments: Any, cancelled: Any, **more: Any) -> None:
        assert method == "VM.migrate_send"
        eventually(cancelled.is_set)
        raise XenServerFailure(["TASK_CANCELLED", "OpaqueRef:task"])

    with monkeypatch.context() as patch:
        patch.setattr(it.server, "run", lambda *a, **k: _run_or(stuck, it, *a, **k))
        with pytest.raises(Failed) as caught:
            migrate(it, guest, it.there)
    assert caught.value.code == "migration_stalled"
    assert it.notes(guest) == set()
    assert it.places(guest) == {"0": it.here, "3": it.here}
    running_at(it, guest, it.here)


def _run_or(stuck: Any, it: Pair, method: str, *arguments: Any, **more: Any) -> Any:
    if method == "VM.migrate_send":
        return stuck(it.server, method, *arguments, **more)
    return type(it.server).run(it.server, method, *arguments, **more)


def test_progress_keeps_it_going(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    stall = sending.Stall(10.0)
    for moment in (9.0, 18.0, 27.0):
        clock[0] = moment
        assert not stall.is_set()
        stall.report(0.5)
    clock[0] = 38.0
    assert stall.is_set()


def test_while_it_is_moved_nothing_is_put_right(it: Pair) -> None:
    guest = it.guest()
    vm = it.bench.vm(guest)
    moving = replace(vm, other_config={MOVE_KEY: "{}"}, operations=("migrate_send",))
    with pytest.raises(Busy):
        moves.settle(it.driver._parts, moving)
    with pytest.raises(Failed) as caught:
        moves.settle(it.driver._parts, replace(moving, operations=()))
    assert caught.value.code == "bad_move_note"


# To another pool


@pytest.fixture(scope="module")
def other_pool() -> Iterator[Pair]:
    with pair("--no-agent") as it:
        yield it


@pytest.fixture
def elsewhere(it: Pair, other_pool: Pair) -> Iterator[Pair]:
    yield other_pool
    other_pool.guests += it.guests
    other_pool.empty()


def leave(it: Pair, elsewhere: Pair, guest: Wanted) -> None:
    target = elsewhere.driver.check_can_live_migrate_destination(guest, node=elsewhere.there)
    assert "session_id" in target.receive
    assert target.receive["session_id"] not in repr(target)
    it.driver.live_migration(guest, MigrationTarget.from_dict(target.to_dict()), progress=Steps())


@pytest.mark.parametrize("lost", [False, True])
def test_to_another_pool(it: Pair, elsewhere: Pair, lost: bool) -> None:
    guest = it.guest(local=True)
    if lost:
        it.control.add_rule("Async.VM.migrate_send", "drop_after")
    leave(it, elsewhere, guest)
    with pytest.raises(InstanceNotFound):
        it.driver.get_info(guest)
    it.bench.assert_nothing_left()
    # As of a host that gives copies no names and no marks.
    (vdi,) = (disk for disk in elsewhere.bench.disks(guest).values() if disk != NULL)
    elsewhere.server.call("VDI.set_other_config", vdi, {})
    elsewhere.server.call("VDI.set_name_label", vdi, "")
    elsewhere.driver.post_live_migration_at_destination(guest)
    running_at(elsewhere, guest, elsewhere.there)
    assert elsewhere.notes(guest) == set()
    # Its drive is empty: a disc does not go along.
    assert elsewhere.places(guest) == {"0": "shared"}
    assert sessions(elsewhere) == 0
    elsewhere.driver.destroy(guest)
    elsewhere.bench.assert_nothing_left()


def test_destroyed_there_before_it_was_put_right(it: Pair, elsewhere: Pair) -> None:
    guest = it.guest(local=True)
    leave(it, elsewhere, guest)
    elsewhere.driver.destroy(guest)
    elsewhere.bench.assert_nothing_left()


def stays(it: Pair, elsewhere: Pair, guest: Wanted) -> None:
    """It runs where it was, with all that it had, and nothing of it is in the other pool."""
    running_at(it, guest, it.here)
    assert it.places(guest) == {"0": it.here, "3": it.here}
    assert it.notes(guest) == set()
    with pytest.raises(InstanceNotFound):
        elsewhere.driver.get_info(guest)
    elsewhere.bench.assert_nothing_left()
    assert sessions(elsewhere) == 0


@pytest.mark.parametrize("size", [0, 20_000])
def test_a_way_that_breaks(it: Pair, elsewhere: Pair, size: int) -> None:
    """Before anything moved, and in the middle."""
    guest = it.guest(local=True)
    if size:
        # Of the check, of the way.
        elsewhere.control.add_rule("services.xenops", "cut", size=size, nth=2)
    else:
        elsewhere.control.add_rule("services.xenops", "drop_before")
    with pytest.raises(XenServerFailure) as caught:
        leave(it, elsewhere, guest)
    elsewhere.control.clear_rules()
    assert caught.value.details[0] == "VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED"
    stays(it, elsewhere, guest)


def test_a_move_that_fails(it: Pair, elsewhere: Pair) -> None:
    guest = it.guest(local=True)
    it.control.add_rule("VM.migrate_send", "fail", error=["VM_MIGRATE_FAILED", "x"])
    with pytest.raises(XenServerFailure):
        leave(it, elsewhere, guest)
    it.control.clear_rules()
    stays(it, elsewhere, guest)


def test_a_session_is_told_over_tls_or_on_this_machine(it: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, vm = [], it.bench.vm(it.guest())
    monkeypatch.setattr(sending, "_log_out", lambda server, url, session: asked.append((url.geturl(), session)))
    for master in ("http://xen.example/", "https://xen.example/", "http://127.0.0.1:8080/", "http://[/"):
        with sending.lent(it.server, lambda: vm, {"master": master, "session_id": "a"}):
            pass
    with sending.lent(it.server, lambda: vm, {}):
        pass
    wanted = ("https://xen.example/", "https://xen.example/", "http://127.0.0.1:8080/")
    assert asked == [(url, "a") for url in wanted]


def test_what_cannot_leave_its_pool(it: Pair, elsewhere: Pair, volume: Volume) -> None:
    guest = with_volume(it, volume, local=False)
    with pytest.raises(Refused) as caught:
        leave(it, elsewhere, guest)
    assert caught.value.code == "volume_in_pool"
    target = elsewhere.driver.check_can_live_migrate_destination(guest, node=elsewhere.there)
    it.driver.power_off(guest, timeout=0)
    it.driver.detach_volume(guest, volume)
    it.driver.power_on(guest)
    for bad, code in (
        (replace(target, networks={}), "network_not_at_destination"),
        (replace(target, receive={}), "bad_migration_target"),
    ):
        with pytest.raises(Refused) as caught:
            it.driver.live_migration(guest, bad, progress=Steps())
        assert caught.value.code == code
    assert it.notes(guest) == set()
