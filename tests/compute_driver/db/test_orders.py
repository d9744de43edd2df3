from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent_protocol.outcomes import Outcome
from compute_driver import errors
from compute_driver.db.repository import Repository
from compute_driver.states import PowerState, TaskState, VmState

from .making import count, make, make_idle, start


def test_an_order_is_taken_once(repository: Repository, database_url: str) -> None:
    number = start(repository, order_id="order-1")
    with pytest.raises(errors.OrderKnown) as caught:
        start(repository, order_id="order-1", action="delete")
    assert caught.value.code == "order_known"
    assert caught.value.action == repository.get_action("order-1")
    assert (caught.value.action.id, caught.value.action.action) == (number, "reboot")
    repository.finish_action(number, outcome=Outcome.FAILED, seconds=1)
    with pytest.raises(errors.OrderKnown) as again:
        start(repository, order_id="order-1")
    assert again.value.action.outcome is Outcome.FAILED
    # Steps, and orders without a name, are as many as there are.
    assert len({start(repository), start(repository), start(repository, order_id="order-2")}) == 3
    assert count(database_url, "instance_actions") == 4


def test_an_order_is_found_by_its_exact_id(repository: Repository) -> None:
    start(repository, order_id="order-1")
    for other in ("ORDER-1", "order-1 ", "order", "", "\0"):
        assert repository.get_action(other) is None
    with pytest.raises(ValueError, match="order_id"):
        start(repository, order_id="x" * 65)


def test_an_order_that_comes_twice_at_the_same_time_is_taken_once(repository: Repository, database_url: str) -> None:
    for number in range(3):
        barrier = threading.Barrier(6)

        def order(_which: int, number: int = number, barrier: threading.Barrier = barrier) -> tuple[bool, int]:
            barrier.wait(30)
            try:
                return True, start(repository, order_id=f"order-{number}")
            except errors.OrderKnown as known:
                return False, known.action.id

        with ThreadPoolExecutor(6) as pool:
            said = list(pool.map(order, range(6)))
        assert sum(is_new for is_new, _ in said) == 1
        assert len({which for _, which in said}) == 1
        assert count(database_url, "instance_actions") == number + 1


def test_an_error_that_is_none_of_a_known_order_is_not_called_one(repository: Repository) -> None:
    with pytest.raises(Exception, match=r"(?i)null") as caught:
        start(repository, host=None, order_id="order-1")
    assert not isinstance(caught.value, errors.OrderKnown)


def test_a_turn_belongs_to_its_action(repository: Repository) -> None:
    made = make(repository, action=7, node="node-1")
    assert (made.task_action, made.node) == (7, "node-1")
    assert repository.end_task(made.uuid, action=7, vm_state=VmState.ACTIVE).task_action is None
    begun = repository.begin_task(made.uuid, TaskState.REBOOTING, action=8)
    assert (begun.task_action, begun.task_state) == (8, "rebooting")
    # Another word for the task leaves the turn with it.
    assert repository.update_instance(made.uuid, task_state=TaskState.REBOOTING_HARD).task_action == 8
    ended = repository.end_task(made.uuid, action=8, node="node-2", power_state=PowerState.RUNNING)
    assert (ended.task_action, ended.task_state, ended.node) == (None, None, "node-2")
    assert repository.begin_task(made.uuid, TaskState.DELETING).task_action is None
    with pytest.raises(TypeError, match="task_action"):
        repository.update_instance(made.uuid, task_action=9)


def test_who_lost_its_turn_changes_nothing(repository: Repository) -> None:
    made = make_idle(repository)
    repository.begin_task(made.uuid, TaskState.REBOOTING, action=7)
    repository.end_task(made.uuid)
    taken = repository.begin_task(made.uuid, TaskState.POWERING_OFF, action=8)
    attempts = [
        lambda: repository.end_task(made.uuid, action=7, vm_state=VmState.ERROR),
        lambda: repository.update_instance(made.uuid, action=7, vm_state=VmState.ERROR),
        lambda: repository.delete_instance(made.uuid, action=7),
    ]
    for attempt in attempts:
        with pytest.raises(errors.TurnLost) as caught:
            attempt()
        assert (caught.value.code, caught.value.uuid, caught.value.action) == ("turn_lost", made.uuid, 7)
        assert repository.get_instance(made.uuid) == taken
    repository.end_task(made.uuid, action=8)
    # Nobody has it now, and that is not 7's turn either.
    for attempt in attempts:
        with pytest.raises(errors.TurnLost):
            attempt()
    repository.begin_task(made.uuid, TaskState.DELETING, action=9)
    repository.delete_instance(made.uuid, action=9)
    assert repository.get_instance(made.uuid, include_deleted=True).task_action is None
    with pytest.raises(errors.InstanceNotFound):
        repository.end_task(made.uuid, action=9)


def test_what_is_seen_from_outside_waits_for_a_free_turn(repository: Repository) -> None:
    made = make_idle(repository)
    assert repository.set_states(made.uuid, power_state=PowerState.RUNNING, node="node-1")
    seen = repository.get_instance(made.uuid)
    assert (seen.power_state, seen.node, seen.vm_state) == (PowerState.RUNNING, "node-1", "active")
    assert seen.updated_at > made.updated_at
    # Once more the same is done as well.
    assert repository.set_states(made.uuid, power_state=PowerState.RUNNING, node="node-1")

    running = repository.begin_task(made.uuid, TaskState.POWERING_OFF, action=7)
    assert not repository.set_states(made.uuid, power_state=PowerState.SHUTDOWN, vm_state=VmState.STOPPED)
    assert repository.get_instance(made.uuid) == running
    assert repository.set_states(made.uuid, when_idle=False, power_state=PowerState.SHUTDOWN)
    after = repository.get_instance(made.uuid)
    assert (after.power_state, after.task_state, after.task_action) == (PowerState.SHUTDOWN, "powering-off", 7)

    for name in ("task_state", "task_action", "uuid"):
        with pytest.raises(TypeError, match=name):
            repository.set_states(made.uuid, when_idle=False, **{name: None})
    repository.delete_instance(made.uuid)
    assert not repository.set_states(made.uuid, when_idle=False, power_state=PowerState.RUNNING)
    assert not repository.set_states("nobody \0", power_state=PowerState.RUNNING)


def test_a_task_that_begins_at_the_same_time_is_never_overwritten(repository: Repository) -> None:
    made = make_idle(repository)
    for number in range(10):
        barrier = threading.Barrier(2)

        def follow(number: int = number, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait(30)
            return repository.set_states(made.uuid, node=f"seen-{number}")

        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(follow)
            barrier.wait(30)
            begun = repository.begin_task(made.uuid, TaskState.REBOOTING, action=number)
            is_set = following.result(30)
        # What is said to be set was there before the task began; what came later is not set.
        assert repository.get_instance(made.uuid) == begun
        assert (begun.node == f"seen-{number}") is is_set
        repository.end_task(made.uuid, action=number)
