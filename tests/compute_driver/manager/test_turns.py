"""How any order runs: once, for whom it is wanted, under the lease, told to observers, and to its end."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timezone
from typing import Any

import pytest

from agent_protocol.outcomes import Failed, Outcome, Refused, Unknown, Unreachable
from compute_driver.context import RequestContext
from compute_driver.db.records import Instance
from compute_driver.db.repository import Repository
from compute_driver.errors import InstanceBusy, InstanceExists, OrderKnown
from compute_driver.fencing import LeaseLost
from compute_driver.manager.reports import Report
from compute_driver.states import PowerState

from ..bench import CONTEXT, DEADLINE, PASSWORD, SECRET, UUID, Bench
from ..cases import CASES, Case
from .services import Service

STOP = next(case for case in CASES if case.name == "stop")


class Running:
    """An order in a thread of its own, which is held up in the driver until it is released."""

    def __init__(self, bench: Bench, verb: str, order: Any) -> None:
        self.error: BaseException | None = None
        self._held = bench.driver.steering.blocked(verb)
        self._thread = threading.Thread(target=self._run, args=(order,))

    def _run(self, order: Any) -> None:
        try:
            order()
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Running:
        gate = self._held.__enter__()
        self._thread.start()
        gate.await_arrival(DEADLINE)
        return self

    def release(self) -> None:
        self._held.__exit__(None, None, None)
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self.release()


# Once


def test_a_repeated_order_is_carried_out_once(bench: Bench) -> None:
    bench.have()
    order = CONTEXT.for_order("order-1")
    bench.manager.stop_instance(order, "web")
    for again in (order, RequestContext("req-2", "bob", "order-1")):
        with pytest.raises(OrderKnown) as caught:
            bench.manager.start_instance(again, "web")
        assert (caught.value.action.action, caught.value.action.outcome) == ("stop", Outcome.SUCCEEDED)
    assert bench.asked == ["power_off"]
    assert [(row.action, row.order_id) for row in bench.repository.list_actions()] == [("stop", "order-1")]
    assert bench.manager.get_order("order-1").outcome is Outcome.SUCCEEDED


def test_two_that_arrive_at_the_same_time_are_carried_out_once(bench: Bench) -> None:
    bench.have()
    together = threading.Barrier(4)
    ends: list[str] = []

    def send() -> None:
        together.wait(DEADLINE)
        try:
            bench.manager.stop_instance(CONTEXT.for_order("order-1"), "web")
            ends.append("carried out")
        except OrderKnown:
            ends.append("known")

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert sorted(ends) == ["carried out", *["known"] * 3]
    assert bench.asked == ["power_off"]


def test_a_repetition_finds_the_first_one_in_flight(bench: Bench) -> None:
    bench.have()
    order = CONTEXT.for_order("order-1")
    with Running(bench, "power_off", lambda: bench.manager.stop_instance(order, "web")):
        with pytest.raises(OrderKnown) as caught:
            bench.manager.stop_instance(order, "web")
        assert caught.value.action.outcome is None
    assert bench.asked == ["power_off"]


def test_an_expired_order_is_refused_and_recorded_nowhere(bench: Bench) -> None:
    bench.have()
    late = RequestContext("req-1", "ada", "order-1", time.time() - 1.0)
    with pytest.raises(Refused) as caught:
        bench.manager.stop_instance(late, "web")
    assert caught.value.code == "order_expired"
    assert (bench.repository.list_actions(), bench.asked) == ([], [])
    bench.manager.stop_instance(CONTEXT.for_order("order-1", seconds=60.0), "web")
    assert bench.asked == ["power_off"]


def test_of_two_orders_one_is_busy(bench: Bench) -> None:
    bench.have()
    with Running(bench, "power_off", lambda: bench.manager.stop_instance(CONTEXT, "web")), pytest.raises(InstanceBusy):
        bench.manager.set_admin_password(RequestContext("req-2", "bob"), "web", PASSWORD)
    assert bench.asked == ["power_off"]
    outcomes = {row.request_id: row.outcome for row in bench.repository.list_actions()}
    assert outcomes == {"req-1": Outcome.SUCCEEDED, "req-2": Outcome.BUSY}
    assert bench.instance.vm_state == "stopped"


# The lease


@pytest.mark.parametrize("moment", ["before", "row", "turn"])
def test_without_the_lease_nothing_is_done(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    service = Service.first(repository)
    service.have()
    if moment == "before":
        service.keeping.closed_now = True
    else:
        name = "start_action" if moment == "row" else "begin_task"
        write = getattr(repository, name)

        def too_late(*arguments: Any, **named: Any) -> Any:
            service.next()
            return write(*arguments, **named)

        monkeypatch.setattr(repository, name, too_late)
    with pytest.raises((Unreachable, LeaseLost)) as caught:
        STOP.carry_out(service)
    assert caught.value.code == "lease_lost"
    if moment != "turn":
        assert isinstance(caught.value, Unreachable)
        assert repository.list_actions() == []
    assert service.asked == []
    assert service.instance.task_state is None


@pytest.mark.parametrize("after", [False, True])
def test_a_lease_that_is_lost_in_the_middle_leaves_row_and_turn_to_the_next(
    repository: Repository, after: bool
) -> None:
    service = Service.first(repository)
    service.have()
    service.driver.steering.fail("power_off", LeaseLost("here"), after=after)
    told: list[str] = []
    service.manager.when_idle(told.append)
    with pytest.raises(LeaseLost):
        STOP.carry_out(service)
    (row,) = repository.unfinished_actions("here")
    assert (service.instance.task_action, service.instance.vm_state) == (row.id, "active")
    assert told == []
    service.next().manager.reconcile()
    (row,) = repository.list_actions()
    assert (row.outcome, row.code) == ((Outcome.SUCCEEDED, "found_done") if after else (Outcome.FAILED, "interrupted"))
    assert service.instance.vm_state == ("stopped" if after else "active")


def test_an_end_that_another_service_recorded_counts(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service.first(repository)
    service.have()
    conclude = repository.conclude

    def too_late(row: int, **named: Any) -> Any:
        conclude(row, outcome=Outcome.FAILED, code="interrupted", seconds=9.0)
        return conclude(row, **named)

    monkeypatch.setattr(repository, "conclude", too_late)
    with pytest.raises(LeaseLost):
        STOP.carry_out(service)
    (row,) = repository.list_actions()
    assert (row.outcome, row.code) == (Outcome.FAILED, "interrupted")


@pytest.mark.parametrize("action", ["resize", "migrate"])
def test_a_lease_that_is_lost_while_it_is_put_back_is_no_failure(repository: Repository, action: str) -> None:
    service = Service.first(repository)
    service.have()
    case = next(case for case in CASES if case.name == action)
    service.driver.steering.fail("finish_migration", Failed("broken", "it broke"))
    service.driver.steering.fail("finish_revert_migration", LeaseLost("here"))
    with pytest.raises(LeaseLost):
        case.carry_out(service)
    assert repository.unfinished_actions("here") != []
    assert service.next().manager.reconcile() == {"interrupted": 1}
    assert (service.instance.vm_state, service.instance.memory_mb) == ("active", 64)


# The end


def test_the_end_is_one_transaction(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.have()
    conclude = bench.repository.conclude
    seen: list[tuple[Any, ...]] = []

    def look() -> tuple[Any, ...]:
        (row,) = bench.repository.list_actions()
        it = bench.instance
        return row.outcome, it.vm_state, it.power_state, it.task_state, it.task_action == row.id

    def watched(*arguments: Any, **named: Any) -> Instance | None:
        seen.append(look())
        ended = conclude(*arguments, **named)
        seen.append(look())
        return ended

    monkeypatch.setattr(bench.repository, "conclude", watched)
    for name in ("end_task", "finish_action", "update_instance"):
        monkeypatch.setattr(bench.repository, name, None)
    STOP.carry_out(bench)
    assert seen == [
        (None, "active", PowerState.RUNNING, "powering-off", True),
        (Outcome.SUCCEEDED, "stopped", PowerState.SHUTDOWN, None, False),
    ]


def test_an_order_that_never_had_the_turn_leaves_it_alone(bench: Bench) -> None:
    bench.have()
    other = bench.repository.start_action(
        action="reboot", target="web", request_id="req-0", user="ada", host="here", instance_uuid=UUID
    )
    bench.repository.begin_task(UUID, "rebooting", action=other)
    with pytest.raises(InstanceBusy):
        STOP.carry_out(bench)
    assert (bench.instance.task_state, bench.instance.task_action) == ("rebooting", other)


def test_a_create_under_a_uuid_that_is_taken_leaves_its_instance_alone(bench: Bench) -> None:
    before = bench.have()
    with pytest.raises(InstanceExists):
        bench.create(instance_uuid=UUID)
    assert bench.instance == before
    assert (bench.action().outcome, bench.action().code) == (Outcome.REFUSED, "instance_exists")
    assert bench.repository.list_faults(UUID) == []


def test_an_interrupt_is_recorded_as_unknown_and_goes_on(bench: Bench) -> None:
    bench.have()
    bench.driver.steering.fail("power_off", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        STOP.carry_out(bench)
    assert (bench.action().outcome, bench.action().code) == (Outcome.UNKNOWN, "internal_error")
    assert bench.instance.task_state is None


def test_what_goes_wrong_after_the_work_is_not_its_end(bench: Bench) -> None:
    for case in CASES:
        if case.operation.action in ("start", "resume", "rescue", "unrescue", "rebuild", "reboot", "create"):
            _ends_well_although_its_place_is_unknown(bench, case)


def _ends_well_although_its_place_is_unknown(bench: Bench, case: Case) -> None:
    case.begin(bench)
    bench.driver.steering.fail("get_info", Unreachable("xenserver_unreachable", "no route"))
    case.carry_out(bench)
    assert bench.action().outcome is Outcome.SUCCEEDED
    assert bench.instance.vm_state == case.after["vm_state"]
    instance = bench.instance
    bench.driver.destroy(instance)
    bench.repository.delete_instance(UUID)
    bench.repository.purge(_LATER)


_LATER = datetime(2100, 1, 1, tzinfo=timezone.utc)


# Observers


class Observer:
    def __init__(self) -> None:
        self.reports: list[Report] = []

    def __call__(self, report: Report) -> None:
        self.reports.append(report)


def broken(report: Report) -> None:
    raise ValueError(SECRET)


def test_observers_are_told_and_do_no_harm(repository: Repository, caplog: pytest.LogCaptureFixture) -> None:
    observer = Observer()
    bench = Bench.of(repository, observers=[broken, observer])
    bench.have()
    STOP.carry_out(bench)
    bench.driver.steering.fail("power_on", Failed("broken", "it broke"))
    with pytest.raises(Failed):
        bench.manager.start_instance(CONTEXT, "web")
    told = [(it.action, it.outcome, it.code, it.step, it.instance and it.instance.vm_state) for it in observer.reports]
    assert told == [
        ("stop", None, "", None, None),
        ("stop", Outcome.SUCCEEDED, "", None, "stopped"),
        ("start", None, "", None, None),
        ("start", Outcome.FAILED, "broken", None, "stopped"),
    ]
    assert {(it.request_id, it.user, it.host, it.target) for it in observer.reports} == {("req-1", "ada", "here", UUID)}
    assert "ValueError" in caplog.text
    assert SECRET not in caplog.text
    assert bench.instance.task_state is None


def test_steps_are_told_at_their_end(repository: Repository) -> None:
    observer = Observer()
    bench = Bench.of(repository, observers=[broken, observer])
    bench.create()
    steps = [(it.step, it.outcome) for it in observer.reports if it.step]
    rows = [(it.step, it.outcome) for it in repository.list_actions() if it.step]
    assert steps == rows
    assert ("boot", Outcome.SUCCEEDED) in steps


# The end of the service


def test_draining_refuses_new_orders_and_waits_for_those_that_run(bench: Bench) -> None:
    bench.have()
    bench.have(name="db", uuid="db")
    with Running(bench, "power_off", lambda: STOP.carry_out(bench)) as running:
        assert bench.manager.drain(0.0) is False
        assert len(bench.manager.in_flight) == 1
        with pytest.raises(Unreachable) as caught:
            bench.manager.stop_instance(CONTEXT, "db")
        assert caught.value.code == "service_stopping"
        drained: list[bool] = []
        waiting = threading.Thread(target=lambda: drained.append(bench.manager.drain(DEADLINE)))
        waiting.start()
        running.release()
        waiting.join(DEADLINE)
        assert drained == [True]
        assert running.error is None
    assert len(bench.manager.in_flight) == 0
    assert bench.asked == ["power_off"]
    assert [(row.action, row.outcome) for row in bench.repository.list_actions()] == [("stop", Outcome.SUCCEEDED)]
    with pytest.raises(Unreachable):
        bench.manager.get_vnc_console("db")
    with pytest.raises(Unreachable):
        bench.manager.set_host_enabled("node-1", False)


def test_an_order_that_was_taken_is_waited_for_before_it_has_a_row(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.have()
    start = bench.repository.start_action
    drained: list[bool] = []

    def start_action(**described: Any) -> int:
        drained.append(bench.manager.drain(0.0))
        return start(**described)

    monkeypatch.setattr(bench.repository, "start_action", start_action)
    STOP.carry_out(bench)
    assert drained == [False]
    assert bench.manager.drain(0.0) is True


def test_an_unknown_order_is_said_to_be_so(bench: Bench) -> None:
    with pytest.raises(Refused) as caught:
        bench.manager.get_order("order-1")
    assert caught.value.code == "order_not_found"
    bench.have()
    bench.driver.steering.fail("power_off", Unknown("answer_lost", "nobody knows"), after=True)
    with pytest.raises(Unknown):
        bench.manager.stop_instance(CONTEXT.for_order("order-1"), "web")
    assert bench.manager.get_order("order-1").code == "answer_lost"
