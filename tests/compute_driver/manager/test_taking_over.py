"""A service that lost its host in the middle of an order, and the next one, that cannot decide everything at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from agent_protocol.outcomes import Failed, Outcome, Unreachable
from compute_driver.context import RequestContext
from compute_driver.db.repository import Repository
from compute_driver.errors import DatabaseUnavailable
from compute_driver.fencing import LeaseLost
from compute_driver.manager.reconciliation import LATER
from compute_driver.states import VmState

from ..bench import CONTEXT, DEADLINE, INTERFACE, UUID, VOLUME, Bench
from ..cases import CASES, Case, every_case
from .services import Service, dying, snapshot

BY_ACTION = {case.name: case for case in CASES}
ENDLESS = 1000


def interrupted(service: Service, action: str, moment: int = 2) -> Service:
    """The next service, after one that ended in the middle of this: if not said otherwise, when it had its turn."""
    BY_ACTION[action].begin(service)
    with dying(service, moment):
        BY_ACTION[action].carry_out(service)
    return service.next()


class Abandoned:
    """A service whose driver is held up in the middle of an order, and which then loses its host."""

    def __init__(self, service: Service, case: Case, verb: str) -> None:
        self.service = service
        self.error: BaseException | None = None
        self._case = case
        self._held = service.driver.steering.blocked(verb)
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self._case.carry_out(self.service)
        except BaseException as error:
            self.error = error

    def begin(self) -> None:
        self._gate = self._held.__enter__()
        self._thread.start()
        self._gate.await_arrival(DEADLINE)
        self.service.keeping.closed_now = True

    def go_on(self) -> BaseException | None:
        """Everything that held it up is over; gives how its order ended."""
        self._held.__exit__(None, None, None)
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()
        return self.error


@every_case
def test_one_that_goes_on_after_the_takeover_changes_nothing(repository: Repository, case: Case) -> None:
    service = Service.first(repository)
    case.begin(service)
    abandoned = Abandoned(service, case, case.verb)
    abandoned.begin()
    try:
        service = service.next()
        assert LATER not in service.manager.reconcile()
        before = snapshot(service)
    finally:
        error = abandoned.go_on()
    assert isinstance(error, LeaseLost)
    assert snapshot(service) == before
    assert repository.unfinished_actions("here") == []
    assert service.manager.reconcile() == {}
    assert snapshot(service) == before


@pytest.mark.parametrize("step", ["create_vm", "boot", "set_admin_password", "inject_file"])
def test_neither_does_one_that_was_in_a_step_of_it(repository: Repository, step: str) -> None:
    service = Service.first(repository)
    abandoned = Abandoned(service, BY_ACTION["create"], step)
    abandoned.begin()
    try:
        service = service.next()
        assert service.manager.reconcile() == {"interrupted": 1}
        before = snapshot(service)
    finally:
        error = abandoned.go_on()
    assert isinstance(error, LeaseLost)
    after = snapshot(service)
    assert after[1:] == before[1:]
    assert service.driver.guests == []
    assert [(row.id, row.outcome) for row in after[0]][: len(before[0])] == [(r.id, r.outcome) for r in before[0]]


def test_what_the_hypervisor_did_last_is_not_recorded_after_a_takeover(repository: Repository) -> None:
    service = Service.first(repository)
    case = BY_ACTION["attach_volume"]
    case.begin(service)
    first, taken_over = service, threading.Event()

    class Held:
        """Lets the call pass, and its answer only when the other service is done."""

        def __call__(self, instance: Any, volume: Any) -> str:
            device = attach(instance, volume)
            first.keeping.closed_now = True
            service = first.next()
            assert service.manager.reconcile() == {"interrupted": 1}
            taken_over.set()
            return device

    attach = first.driver.attach_volume
    first.driver.attach_volume = Held()  # type: ignore[method-assign]
    with pytest.raises(LeaseLost):
        case.carry_out(first)
    assert taken_over.is_set()
    assert repository.list_volumes(UUID) == []
    assert first.guest.volumes == {}


# What cannot be decided now


@every_case
def test_nothing_is_decided_while_the_hypervisor_cannot_be_reached(repository: Repository, case: Case) -> None:
    service = interrupted(Service.first(repository), case.name)
    before = snapshot(service)
    service.driver.steering.fail("await_quiet", Unreachable("xenserver_unreachable", "no route"))
    assert service.manager.reconcile() == {LATER: 1}
    after = snapshot(service)
    # But for steps, of which nobody waits for more.
    orders = [[row for row in it[0] if row.step is None] for it in (before, after)]
    assert orders[0] == orders[1]
    assert after[1:] == before[1:]
    assert LATER not in service.manager.reconcile()
    assert repository.unfinished_actions("here") == []


@pytest.mark.parametrize("action", ["create", "delete", "stop", "confirm_resize", "revert_resize", "attach_volume"])
def test_one_that_goes_away_in_the_middle_of_it_is_asked_again(repository: Repository, action: str) -> None:
    service = interrupted(Service.first(repository), action, moment=6 if action == "attach_volume" else 3)
    verb = {"create": "destroy", "delete": "destroy", "attach_volume": "detach_volume"}.get(action, "get_info")
    for after in (False, True):
        service.driver.steering.fail(verb, Unreachable("xenserver_unreachable", "no route"), after=after)
        assert service.manager.reconcile() == {LATER: 1}
        assert repository.unfinished_actions("here") != []
    assert LATER not in service.manager.reconcile()
    assert repository.unfinished_actions("here") == []
    instances = repository.list_instances()
    assert all(it.task_state is None for it in instances)
    assert repository.open_migration(UUID) is None


def test_a_guest_that_is_busy_is_waited_for(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    from compute_driver.manager import reconciliation

    monkeypatch.setattr(reconciliation, "QUIET_TIMEOUT", 0.01)
    service = interrupted(Service.first(repository), "stop")
    with service.driver.busy(service.instance, "clean_shutdown"):
        assert service.manager.reconcile() == {LATER: 1}
    assert service.manager.reconcile() == {"interrupted": 1}


def test_what_cannot_be_put_right_is_an_error_that_is_told(repository: Repository) -> None:
    service = interrupted(Service.first(repository), "delete")
    service.driver.steering.fail("destroy", Failed("left_behind", "a disk is still there"))
    assert service.manager.reconcile() == {"left_behind": 1}
    row = repository.list_actions()[-1]
    assert (row.outcome, row.code) == (Outcome.UNKNOWN, "left_behind")
    assert "a disk is still there" in row.message
    assert (service.instance.vm_state, service.instance.task_state) == ("error", None)
    assert [fault.code for fault in repository.list_faults(UUID)] == ["left_behind"]


def test_one_that_fails_in_an_unforeseen_way_keeps_no_other_waiting(
    repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service.first(repository)
    for name in ("web", "db"):
        service.have(name=name, uuid=name)
    for name in ("web", "db"):
        row = _row(repository, service, "stop", name)
        repository.begin_task(name, "powering-off", action=row)
    service = service.next()
    service.driver.steering.fail("await_quiet", ValueError("a secret"))
    codes = service.manager.reconcile()
    assert codes == {LATER: 1, "interrupted": 1}
    assert "ValueError" in caplog.text
    assert "a secret" not in caplog.text
    assert service.manager.reconcile() == {"interrupted": 1}


def test_without_a_database_nothing_is_decided(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    service = interrupted(Service.first(repository), "stop")

    def unavailable(*_: object, **__: object) -> Any:
        raise DatabaseUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(repository, "conclude", unavailable)
        assert service.manager.reconcile() == {LATER: 1}
    with monkeypatch.context() as patch:
        patch.setattr(repository, "unfinished_actions", unavailable)
        with pytest.raises(DatabaseUnavailable):
            service.manager.reconcile()
    assert service.manager.reconcile() == {"interrupted": 1}


def test_an_outcome_that_was_recorded_without_an_answer_is_not_decided_again(repository: Repository) -> None:
    service = interrupted(Service.first(repository), "stop")
    row = repository.unfinished_actions("here")[0]
    decide: Callable[..., Any] = service.manager._decide

    def too_late(action: Any) -> Any:
        decision = decide(action)
        repository.conclude(row.id, outcome=Outcome.SUCCEEDED, seconds=1.0, instance_uuid=UUID)
        return decision

    service.manager._decide = too_late  # type: ignore[method-assign]
    assert service.manager.reconcile() == {LATER: 1}
    assert repository.list_actions()[-1].outcome is Outcome.SUCCEEDED


# What belongs to an interrupted order, and what does not


def _row(repository: Repository, service: Service, action: str, uuid: str = UUID, request_id: str = "req-9") -> int:
    lease = service.keeping.lease
    given = {"target": "web", "request_id": request_id, "user": "ada", "host": "here", "instance_uuid": uuid}
    return repository.start_action(action=action, lease=lease, **given)


@pytest.mark.parametrize("action", ["attach_volume", "detach_volume", "attach_interface", "detach_interface"])
def test_devices_of_earlier_orders_stay(repository: Repository, action: str) -> None:
    service = Service.first(repository)
    service.have()
    service.manager.attach_volume(CONTEXT, "web", VOLUME)
    service.manager.attach_interface(CONTEXT, "web", INTERFACE)
    with dying(service, 2):
        # It had its turn, and no more.
        BY_ACTION[action].carry_out(service)
    service = service.next()
    assert service.manager.reconcile() == {"interrupted": 1}
    assert set(service.guest.volumes) == {VOLUME.id}
    assert [it.id for it in service.guest.interfaces] == [INTERFACE.id]
    assert [it.volume.id for it in repository.list_volumes(UUID)] == [VOLUME.id]
    assert repository.list_interfaces(UUID) == [INTERFACE]


@pytest.mark.parametrize("action", ["attach_volume", "attach_interface"])
def test_what_was_attached_before_is_not_undone(repository: Repository, action: str) -> None:
    service = Service.first(repository)
    service.attach(service.have())
    for moment in range(2, 5):
        with dying(service, moment):
            BY_ACTION[action].carry_out(service)
        service = service.next()
        service.manager.reconcile()
        assert (list(service.guest.volumes), service.guest.interfaces) == ([VOLUME.id], [INTERFACE])


def test_a_move_of_an_earlier_order_is_not_undone(repository: Repository) -> None:
    service = Service.first(repository)
    instance = service.have()
    sizes = {f"{age}_{name}": 7 for age in ("old", "new") for name in ("memory_mb", "vcpus", "root_gb")}
    repository.create_migration(
        instance_uuid=UUID, kind="live", status="migrating", source_node="node-1", request_id="req-old", **sizes
    )
    with dying(service, 2):
        BY_ACTION["resize"].carry_out(service)
    service = service.next()
    assert service.manager.reconcile() == {"interrupted": 1}
    assert (service.instance.memory_mb, service.instance.vcpus) == (instance.memory_mb, instance.vcpus)


@pytest.mark.parametrize("moment", [3, ENDLESS])
def test_a_guest_that_was_off_before_its_resize_is_off_after_its_revert(repository: Repository, moment: int) -> None:
    service = Service.first(repository)
    service.have("stopped")
    BY_ACTION["resize"].carry_out(service)
    assert (service.instance.vm_state, service.instance.power_state) == ("resized", 4)
    with dying(service, moment):
        BY_ACTION["revert_resize"].carry_out(service)
    service.life.moments = moment
    service = service.next()
    service.manager.reconcile()
    assert (service.instance.vm_state, service.instance.memory_mb) == (VmState.STOPPED, 64)
    assert service.guest.boots == 1


def test_a_frozen_guest_whose_agent_is_gone_does_not_keep_its_turn(repository: Repository) -> None:
    service = interrupted(Service.first(repository), "quiesce")
    service.driver.steering.fail("unquiesce", Unreachable("agent_silent", "the guest has no agent"))
    assert service.manager.reconcile() == {"interrupted": 1}
    assert (service.instance.vm_state, service.instance.task_state) == ("active", None)


def test_steps_of_an_interrupted_order_end_as_unknown(repository: Repository) -> None:
    service = interrupted(Service.first(repository), "create", moment=7)
    assert [row.step for row in repository.unfinished_actions("here")] == [None, "create_vm"]
    service.manager.reconcile()
    (step,) = [row for row in repository.list_actions() if row.step]
    assert (step.outcome, step.code) == (Outcome.UNKNOWN, "service_ended")


def test_an_action_of_a_newer_version_is_unknown(repository: Repository) -> None:
    service = Service.first(repository)
    service.have()
    row = _row(repository, service, "fold_and_post")
    repository.begin_task(UUID, "folding", action=row)
    service = service.next()
    assert service.manager.reconcile() == {"service_ended": 1}
    assert (repository.list_actions()[-1].outcome, service.instance.vm_state) == (Outcome.UNKNOWN, "active")


def test_other_hosts_are_left_alone(repository: Repository) -> None:
    service = Service.first(repository)
    service.record(host="there")
    given = {"target": "web", "request_id": "req-9", "user": "ada", "host": "there", "instance_uuid": UUID}
    row = repository.start_action(action="stop", **given)
    repository.begin_task(UUID, "powering-off", action=row)
    service = service.next()
    before = snapshot(service)
    for _ in range(2):
        assert service.manager.reconcile() == {}
    assert snapshot(service) == before


# What this very service has begun


def test_an_order_of_ones_own_is_ended_when_it_was_found_twice(repository: Repository) -> None:
    service = Service.first(repository)
    service.have()
    row = _row(repository, service, "stop")
    repository.begin_task(UUID, "powering-off", action=row)
    assert service.manager.reconcile() == {}
    assert service.manager.reconcile() == {"interrupted": 1}


def test_an_order_that_is_being_carried_out_is_left_alone(repository: Repository) -> None:
    service = Service.first(repository)
    case = BY_ACTION["create"]
    with service.driver.steering.blocked("boot") as gate:
        thread = threading.Thread(target=lambda: case.carry_out(service))
        thread.start()
        try:
            gate.await_arrival(DEADLINE)
            for _ in range(3):
                assert service.manager.reconcile() == {}
        finally:
            gate.release()
            thread.join(DEADLINE)
    assert {row.outcome for row in repository.list_actions()} == {Outcome.SUCCEEDED}


def test_a_turn_without_an_order_is_given_back(repository: Repository) -> None:
    service = Service.first(repository)
    service.have("stopped")
    repository.begin_task(UUID, "rebooting")
    service.record("building", name="db", uuid="db")
    ended = _row(repository, service, "stop", "db")
    repository.begin_task("db", "spawning", action=ended)
    repository.finish_action(ended, outcome=Outcome.FAILED, seconds=1.0)
    service.driver.steering.fail("get_info", Unreachable("xenserver_unreachable", "no route"))
    service.manager.reconcile()
    assert {it.uuid: it.task_state for it in repository.list_instances()} == {UUID: "rebooting", "db": "spawning"}
    service.manager.reconcile()
    states = {it.uuid: (it.vm_state, it.task_state) for it in repository.list_instances()}
    assert states == {UUID: ("stopped", None), "db": ("error", None)}


def test_one_that_is_alone_needs_no_lease(bench: Bench) -> None:
    bench.have()
    given = {"target": "web", "request_id": "req-9", "user": "ada", "host": "here", "instance_uuid": UUID}
    row = bench.repository.start_action(action="stop", **given)
    bench.repository.begin_task(UUID, "powering-off", action=row)
    assert bench.manager.reconcile() == {}
    assert bench.manager.reconcile() == {"interrupted": 1}


def test_without_the_host_nothing_is_reconciled(repository: Repository) -> None:
    service = interrupted(Service.first(repository), "stop")
    service.keeping.closed_now = True
    with pytest.raises(Unreachable) as caught:
        service.manager.reconcile()
    assert caught.value.code == "lease_lost"
    assert repository.unfinished_actions("here") != []
    with pytest.raises(Unreachable):
        service.manager.stop_instance(RequestContext("req-2", "ada"), "web")
    assert len(repository.list_actions()) == 1
