"""Instances at rest become what their guests are; nothing is ever done to a guest for that."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from agent_protocol.outcomes import Failed, Outcome, Unreachable
from compute_driver.driver import InstanceInfo
from compute_driver.errors import DatabaseUnavailable
from compute_driver.manager.following import _FOLLOWED, Follower
from compute_driver.states import PowerState, VmState

from ..bench import CONTEXT, DEADLINE, FIRST_NODE, UUID, Bench
from .services import snapshot

AT_REST = {VmState.ACTIVE, VmState.STOPPED, VmState.PAUSED, VmState.SUSPENDED}
STATES = [state for state in VmState if state is not VmState.DELETED]


def says(bench: Bench, monkeypatch: pytest.MonkeyPatch, state: PowerState) -> None:
    """The hypervisor says this of the guest."""
    node = FIRST_NODE if state in (PowerState.RUNNING, PowerState.PAUSED) else ""
    monkeypatch.setattr(bench.driver, "get_info", lambda _: InstanceInfo(state, "vm-uuid", node))


@pytest.mark.parametrize("vm_state", STATES)
@pytest.mark.parametrize("power", list(PowerState))
def test_every_pair(bench: Bench, monkeypatch: pytest.MonkeyPatch, vm_state: VmState, power: PowerState) -> None:
    bench.record(vm_state)
    says(bench, monkeypatch, power)
    follows = vm_state in AT_REST and power in _FOLLOWED
    expected = _FOLLOWED[power][0] if follows else vm_state
    for _ in range(2):
        bench.manager.follow(UUID)
        instance = bench.instance
        assert (instance.vm_state, instance.power_state, instance.task_state) == (expected, power, None)
        assert instance.node == (FIRST_NODE if power in (PowerState.RUNNING, PowerState.PAUSED) else "")
    rows = [(it.action, it.user, it.outcome, it.code) for it in bench.repository.list_actions()]
    told = [("reconcile", "xenward", Outcome.SUCCEEDED, _FOLLOWED[power][1])] if expected != vm_state else []
    assert rows == told
    assert bench.repository.unfinished_actions("here") == []
    assert bench.asked == []


@pytest.mark.parametrize("vm_state", STATES)
def test_a_guest_that_is_missing_is_an_error(bench: Bench, vm_state: VmState) -> None:
    bench.record(vm_state)
    for _ in range(2):
        bench.manager.follow_all()
        assert (bench.instance.vm_state, bench.instance.power_state) == (
            "error",
            PowerState.NOSTATE,
        )
    codes = [row.code for row in bench.repository.list_actions()]
    assert codes == ([] if vm_state is VmState.ERROR else ["guest_missing"])
    assert [it.code for it in bench.repository.list_faults(UUID)] == codes
    assert bench.asked == []


@pytest.mark.parametrize("change", [lambda it: it.follow(UUID), lambda it: it.follow_all()])
def test_never_during_an_order(bench: Bench, change: Callable[[Any], None]) -> None:
    instance = bench.have()
    bench.repository.begin_task(UUID, "rebooting")
    bench.driver.shut_down_inside(instance)
    before = snapshot(bench)
    change(bench.manager)
    assert snapshot(bench) == before


def _while_looking(bench: Bench, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> None:
    """Between the look at the guest and what is made of it, something else happens."""
    look = bench.driver.get_info

    def get_info(instance: Any) -> InstanceInfo:
        info = look(instance)
        monkeypatch.setattr(bench.driver, "get_info", look)
        meanwhile()
        return info

    monkeypatch.setattr(bench.driver, "get_info", get_info)


def test_an_order_that_begins_while_the_guest_is_looked_at_knows_better(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = bench.have()
    bench.driver.shut_down_inside(instance)
    _while_looking(bench, monkeypatch, lambda: bench.repository.begin_task(UUID, "powering-on"))
    bench.manager.follow(UUID)
    assert (bench.instance.vm_state, bench.instance.power_state) == ("active", PowerState.RUNNING)
    assert bench.repository.list_actions() == []


def test_an_older_look_than_an_orders_result_counts_for_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    instance = bench.have()
    bench.driver.shut_down_inside(instance)
    _while_looking(bench, monkeypatch, lambda: bench.manager.start_instance(CONTEXT, "web"))
    bench.manager.follow(UUID)
    assert (bench.instance.vm_state, bench.instance.power_state) == ("active", PowerState.RUNNING)
    assert [row.action for row in bench.repository.list_actions()] == ["start"]


def test_nor_does_it_when_only_the_power_state_differs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.have("rescued")
    bench.driver.shut_down_inside(bench.instance)
    _while_looking(bench, monkeypatch, lambda: bench.manager.unrescue_instance(CONTEXT, "web"))
    bench.manager.follow(UUID)
    assert (bench.instance.vm_state, bench.instance.power_state) == ("active", PowerState.RUNNING)


def test_nobody_and_others_are_left_alone(bench: Bench) -> None:
    bench.record(host="there")
    before = snapshot(bench)
    for uuid in (UUID, "nobody"):
        bench.manager.follow(uuid)
    bench.manager.follow_all()
    assert snapshot(bench) == before


def test_strangers_are_only_told_of(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    instance = bench.have()
    bench.repository.delete_instance(UUID)
    bench.manager.follow_all()
    assert f"nobody knows: {instance.uuid}" in caplog.text
    assert bench.driver.guest(instance).state is PowerState.RUNNING
    assert bench.asked == []
    assert (bench.repository.list_instances(), bench.repository.list_actions()) == ([], [])


def test_a_guest_of_another_host_is_no_stranger(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.have()
    bench.repository.update_instance(UUID, host="there")
    bench.manager.follow_all()
    assert "nobody knows" not in caplog.text


def test_a_hypervisor_that_does_not_answer_changes_nothing(bench: Bench) -> None:
    bench.have()
    before = snapshot(bench)
    bench.driver.steering.fail("get_info", Unreachable("xenserver_unreachable", "no route"))
    with pytest.raises(Unreachable):
        bench.manager.follow(UUID)
    assert snapshot(bench) == before


def test_a_guest_that_cannot_be_looked_at_keeps_no_other_waiting(bench: Bench) -> None:
    bench.have()
    other = bench.have(name="db", uuid="db")
    bench.driver.shut_down_inside(other)
    bench.driver.steering.fail("get_info", Failed("odd", "it is odd"))
    bench.manager.follow_all()
    assert {it.uuid: it.vm_state for it in bench.repository.list_instances()} == {UUID: "active", "db": "stopped"}


def test_nothing_is_recorded_by_one_that_is_being_stopped(bench: Bench) -> None:
    instance = bench.have()
    bench.driver.shut_down_inside(instance)
    assert bench.manager.drain(0.0)
    before = snapshot(bench)
    with pytest.raises(Unreachable):
        bench.manager.follow(UUID)
    assert snapshot(bench) == before


# By what is told


class Told:
    """Follows, and lets a test wait for it."""

    def __init__(self, follow: Callable[[str], None]) -> None:
        self._follow = follow
        self._looks = threading.Semaphore(0)

    def follow(self, uuid: str) -> None:
        try:
            self._follow(uuid)
        finally:
            self._looks.release()

    def await_look(self) -> None:
        assert self._looks.acquire(timeout=DEADLINE)


def test_each_change_is_looked_at(bench: Bench) -> None:
    instance = bench.have()
    told: Any = Told(bench.manager.follow)
    follower = Follower(told)
    follower.start()
    bench.driver.listen(follower.tell)
    try:
        bench.driver.shut_down_inside(instance)
        told.await_look()
        assert bench.instance.vm_state == "stopped"
        bench.driver.power_on(instance)
        told.await_look()
        assert bench.instance.vm_state == "active"
    finally:
        bench.driver.close()
        follower.stop()


@pytest.mark.parametrize("error", [Unreachable("away", "it is away"), DatabaseUnavailable("gone"), ValueError("odd")])
def test_a_look_that_goes_wrong_ends_nothing(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    def follow(uuid: str) -> None:
        seen.append(uuid)
        if len(seen) == 1:
            raise error

    told: Any = Told(follow)
    follower = Follower(told)
    follower.start()
    try:
        follower.tell("one")
        told.await_look()
        follower.tell("two")
        told.await_look()
    finally:
        follower.stop()
    assert seen == ["one", "two"]
    assert "instance one" in caplog.text


def test_what_is_told_many_times_is_looked_at_once_and_again_if_it_is_told_meanwhile() -> None:
    seen: list[str] = []
    began, go_on = threading.Event(), threading.Event()

    def follow(uuid: str) -> None:
        seen.append(uuid)
        began.set()
        assert go_on.wait(DEADLINE)

    told: Any = Told(follow)
    follower = Follower(told)
    for _ in range(3):
        follower.tell("one")
    follower.start()
    try:
        assert began.wait(DEADLINE)
        for _ in range(3):
            follower.tell("one")
        go_on.set()
        told.await_look()
        told.await_look()
    finally:
        go_on.set()
        follower.stop()
    assert seen == ["one", "one"]


def test_a_follower_that_was_never_started_can_be_stopped() -> None:
    Follower(Told(lambda uuid: None)).stop()  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [None, Unreachable("away", "it is away")])
def test_whoever_follows_is_told_of_each_end(bench: Bench, error: Exception | None) -> None:
    told: list[tuple[str, str | None]] = []
    bench.have()
    bench.manager.when_idle(lambda uuid: told.append((uuid, bench.instance.task_state)))
    if error:
        bench.driver.steering.fail("power_off", error, after=True)
        with pytest.raises(Unreachable):
            bench.manager.stop_instance(CONTEXT, "web")
    else:
        bench.manager.stop_instance(CONTEXT, "web")
    assert told == [(UUID, None)]
