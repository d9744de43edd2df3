"""Rescue and rebuild, with the real agent in the guest. One fault at each call: tests/contract/test_faults.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_protocol.messages import Password
from agent_protocol.outcomes import Failed, Refused, Unreachable, Unsuccessful
from compute_driver.errors import XenServerFailure
from compute_driver.files import InjectedFile
from compute_driver.states import PowerState
from compute_driver.xenapi.agents.agent import GuestAgents
from compute_driver.xenapi.guests import power, rescue
from compute_driver.xenapi.guests.rescue import RESCUE_KEY, WayBack
from compute_driver.xenapi.storage import disks, repositories, root_disks, transfer_tasks
from tests.contract import faults
from tests.contract.faults import AGENTLESS, WITH_AGENT, Bench, Steps, Wanted
from tools.commands import proof

OLD, NEW = Password("first Pass-word 1"), Password("second Pass-word 2")


@pytest.fixture(scope="module")
def shared() -> Iterator[Bench]:
    with faults.bench() as it:
        yield it


@pytest.fixture
def bench(shared: Bench) -> Iterator[Bench]:
    """A driver whose pool is empty, before and afterwards."""
    yield shared
    for uuid in shared.driver.list_instance_uuids():
        shared.driver.destroy(Wanted(uuid))
    shared.assert_nothing_left()


@pytest.fixture
def guest(bench: Bench) -> Wanted:
    """One that runs, with an agent that was met."""
    instance = Wanted()
    bench.driver.spawn(instance, image=WITH_AGENT, admin_password=OLD, progress=Steps())
    return instance


def opens(bench: Bench, guest: Wanted, password: Password) -> bool:
    root: Path = bench.simulator.guest_root(bench.vm(guest).uuid)
    return proof.password_opens(root, "root", password.value)


def identity(bench: Bench, guest: Wanted) -> bytes | None:
    agent = bench.memory.recall(guest.uuid)
    return agent.identity if agent else None


def become_another(bench: Bench, guest: Wanted) -> None:
    """The disk that boots next is another one: so is the agent's identity, which the simulator keeps in a directory."""
    root = bench.simulator.guest_root(bench.vm(guest).uuid)
    for path in root.rglob("*identity*"):
        path.unlink()


def before_boot(monkeypatch: pytest.MonkeyPatch, action: Callable[[], None]) -> None:
    real = power.start

    def start(*arguments: Any, **named: Any) -> Any:
        action()
        return real(*arguments, **named)

    monkeypatch.setattr(power, "start", start)


def test_a_rescued_guest_boots_another_disk_and_is_itself_again(
    bench: Bench, guest: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, pinned, steps = bench.disks(guest), identity(bench, guest), Steps()
    kept = bench.memory.recall(guest.uuid)
    before_boot(monkeypatch, lambda: become_another(bench, guest))
    bench.driver.rescue(guest, image=WITH_AGENT, rescue_password=NEW, progress=steps)
    monkeypatch.undo()
    wanted = ["power_off", "create_rescue_disk", "boot", "wait_for_agent", "set_rescue_password"]
    assert steps.names == wanted
    now = bench.disks(guest)
    assert now["1"] == before["0"] and now["0"] != before["0"] and len(now) == 2
    vbds = [bench.server.call("VBD.get_record", vbd) for vbd in bench.vm(guest).vbds]
    assert {it["userdevice"]: it["bootable"] for it in vbds} == {"0": True, "1": False}
    assert opens(bench, guest, NEW)
    assert bench.state(guest) is PowerState.RUNNING
    assert identity(bench, guest) not in (None, pinned)
    assert "Pass-word" not in str(bench.vm(guest).other_config)

    bench.driver.unrescue(guest)
    assert bench.disks(guest) == before
    assert bench.state(guest) is PowerState.RUNNING
    assert bench.memory.recall(guest.uuid) == kept
    assert RESCUE_KEY not in bench.vm(guest).other_config


def test_unrescue_of_a_guest_that_is_not_rescued_does_nothing(bench: Bench, guest: Wanted) -> None:
    vm = bench.vm(guest)
    bench.driver.unrescue(guest)
    assert bench.vm(guest) == vm


def test_a_rescued_guest_is_neither_rescued_again_nor_rebuilt(bench: Bench) -> None:
    guest = bench.guest()
    bench.driver.rescue(guest, image=AGENTLESS, rescue_password=None, progress=Steps())
    vm = bench.vm(guest)
    operations: list[Callable[[], None]] = [
        lambda: bench.driver.rescue(guest, image=AGENTLESS, rescue_password=None, progress=Steps()),
        lambda: bench.driver.rebuild(guest, image=AGENTLESS, progress=Steps()),
    ]
    for operation in operations:
        with pytest.raises(Refused) as caught:
            operation()
        assert caught.value.code == "instance_rescued"
    assert bench.vm(guest) == vm


def test_a_rescued_guest_can_be_destroyed(bench: Bench) -> None:
    guest = bench.guest()
    bench.driver.rescue(guest, image=AGENTLESS, rescue_password=None, progress=Steps())
    bench.driver.destroy(guest)
    bench.assert_nothing_left()


def test_a_rescue_password_needs_an_agent(bench: Bench, guest: Wanted) -> None:
    vm = bench.vm(guest)
    with pytest.raises(Refused) as caught:
        bench.driver.rescue(guest, image=AGENTLESS, rescue_password=NEW, progress=Steps())
    assert caught.value.code == "agent_not_in_image"
    assert bench.vm(guest) == vm


def test_a_rescue_password_that_cannot_be_set_leaves_the_guest_as_it_was_powered_off(
    bench: Bench, guest: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, kept, steps = bench.disks(guest), bench.memory.recall(guest.uuid), Steps()
    error = Unreachable("agent_silent", "the agent did not answer")

    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(GuestAgents, "set_password", fail)
    with pytest.raises(Unsuccessful) as caught:
        bench.driver.rescue(guest, image=WITH_AGENT, rescue_password=NEW, progress=steps)
    assert caught.value is error
    assert steps.names[-1] == "undo"
    assert bench.state(guest) is PowerState.SHUTDOWN
    assert bench.disks(guest) == before
    assert bench.memory.recall(guest.uuid) == kept
    assert RESCUE_KEY not in bench.vm(guest).other_config


class Dead(BaseException):
    """The process ends: nothing is undone."""


@pytest.mark.parametrize("call", ["VBD.set_userdevice", "VBD.set_bootable", "VBD.create", "Async.VM.start"])
def test_unrescue_finds_the_way_back_from_wherever_a_rescue_was_interrupted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    guest = bench.guest()
    before = bench.disks(guest)
    real = type(bench.server).call

    def dying(server: Any, name: str, *arguments: Any, timeout: float | None = None) -> Any:
        answer = real(server, name, *arguments, timeout=timeout)
        if name == call:
            raise Dead
        return answer

    monkeypatch.setattr(type(bench.server), "call", dying)
    monkeypatch.setattr(rescue, "undo_in_step", lambda *arguments: None)
    monkeypatch.setattr(disks.Undo, "__exit__", lambda *arguments: None)
    with pytest.raises(Dead):
        bench.driver.rescue(guest, image=AGENTLESS, rescue_password=None, progress=Steps())
    monkeypatch.undo()
    assert RESCUE_KEY in bench.vm(guest).other_config
    bench.driver.unrescue(guest)
    assert bench.disks(guest) == before
    assert bench.state(guest) is PowerState.RUNNING


@pytest.mark.parametrize("text", ["", "[]", "{}", "7", '{"root": 1, "device": "0", "bootable": true, "agent": 7}'])
def test_a_note_that_somebody_spoilt_is_an_error(text: str) -> None:
    with pytest.raises(Failed) as caught:
        WayBack.from_text(text)
    assert caught.value.code == "bad_rescue_note"


def test_a_note_says_where_the_way_leads() -> None:
    way = WayBack("uuid", "0", True, None)
    assert WayBack.from_text(way.to_text()) == way
    assert set(json.loads(way.to_text())) == {"root", "device", "bootable", "agent"}


# Rebuild


def test_a_rebuilt_guest_has_a_new_disk_and_a_new_agent(
    bench: Bench, guest: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm, before, pinned, steps = bench.vm(guest), bench.disks(guest), identity(bench, guest), Steps()
    vifs = bench.server.call("VM.get_VIFs", vm.ref)
    before_boot(monkeypatch, lambda: become_another(bench, guest))
    uefi = faults.image("with-agent", hw_firmware_type="uefi", os_type="windows")
    file = InjectedFile("/etc/motd", b"new")
    bench.driver.rebuild(guest, image=uefi, admin_password=NEW, injected_files=[file], progress=steps)
    told = ["wait_for_agent", "set_admin_password", "inject_file"]
    assert steps.names == ["power_off", "replace_root_disk", "remove_old_disk", "boot", *told]
    assert list(bench.disks(guest)) == ["0"] and bench.disks(guest) != before
    assert before["0"] not in bench.server.call("VDI.get_all")
    assert bench.vm(guest).ref == vm.ref
    assert bench.server.call("VM.get_VIFs", vm.ref) == vifs
    assert opens(bench, guest, NEW)
    assert identity(bench, guest) not in (None, pinned)
    record = bench.server.call("VM.get_record", vm.ref)
    assert (record["HVM_boot_params"]["firmware"], record["platform"]["viridian"]) == ("uefi", "true")


def test_a_disk_that_does_not_come_to_be_leaves_the_old_one(bench: Bench, guest: Wanted) -> None:
    before = bench.disks(guest)
    bench.control.add_rule("VDI.clone", "fail", error=["SR_BACKEND_FAILURE_44", "", "no room", ""])
    try:
        with pytest.raises(Unsuccessful) as caught:
            bench.driver.rebuild(guest, image=WITH_AGENT, progress=Steps())
    finally:
        bench.control.clear_rules()
    assert caught.value.code == "storage_full"
    assert bench.disks(guest) == before
    assert bench.state(guest) is PowerState.SHUTDOWN
    bench.driver.power_on(guest)


@pytest.mark.parametrize("call", ["VBD.set_userdevice", "VBD.create", "VM.set_platform"])
def test_a_rebuild_that_was_interrupted_can_be_done_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    guest = bench.guest()
    real = type(bench.server).call

    def dying(server: Any, name: str, *arguments: Any, timeout: float | None = None) -> Any:
        answer = real(server, name, *arguments, timeout=timeout)
        if name == call:
            raise Dead
        return answer

    monkeypatch.setattr(type(bench.server), "call", dying)
    monkeypatch.setattr(disks.Undo, "__exit__", lambda *arguments: None)
    with pytest.raises(Dead):
        bench.driver.rebuild(guest, image=AGENTLESS, progress=Steps())
    monkeypatch.undo()
    bench.driver.rebuild(guest, image=AGENTLESS, progress=Steps())
    assert list(bench.disks(guest)) == ["0"]
    assert bench.state(guest) is PowerState.RUNNING
    bench.driver.cleanup(guest)
    assert bench.state(guest) is PowerState.RUNNING


# Removal


def test_cleanup_takes_what_no_vm_has_and_nothing_else(bench: Bench) -> None:
    guest, other = bench.guest(), bench.guest()
    before = bench.leftovers()
    repository = repositories.choose(bench.server)
    left = disks.create(bench.server, repository, root_disks.wanted(guest))
    task = bench.server.call("task.create", transfer_tasks.import_label(left.ref), "of a process that died")
    theirs = disks.create(bench.server, repository, root_disks.wanted(Wanted()))
    bench.driver.cleanup(guest)
    assert task not in bench.server.call("task.get_all")
    assert bench.leftovers() == {**before, "VDI": before["VDI"] + 1}
    assert bench.state(guest) is bench.state(other) is PowerState.RUNNING
    disks.destroy(bench.server, theirs.ref)


def test_destroy_takes_the_disks_of_a_vm_that_is_gone(bench: Bench) -> None:
    guest = bench.guest()
    bench.driver.power_off(guest)
    disk = bench.disks(guest)["0"]
    bench.server.call("VM.destroy", bench.vm(guest).ref)
    assert bench.server.call("VDI.get_VBDs", disk) == []
    bench.driver.destroy(guest)
    bench.driver.destroy(guest)
    bench.assert_nothing_left()


@pytest.mark.parametrize("state", ["power_off", "pause", "suspend"])
def test_destroy_takes_a_guest_in_any_state(bench: Bench, state: str) -> None:
    guest = bench.guest()
    getattr(bench.driver, state)(guest)
    bench.driver.destroy(guest)
    bench.assert_nothing_left()


def test_destroy_says_what_it_cannot_reach(bench: Bench) -> None:
    guest = bench.guest()
    bench.control.add_rule("VM.destroy", "fail", error=["OTHER_OPERATION_IN_PROGRESS", "VM", "x"])
    try:
        with pytest.raises(Failed) as caught:
            bench.driver.destroy(guest)
    finally:
        bench.control.clear_rules()
    assert caught.value.code == "left_behind"
    assert f"VM {bench.vm(guest).uuid}" in caught.value.message
    assert not isinstance(caught.value, XenServerFailure)
