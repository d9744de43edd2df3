"""Each operation of the table: its row and its turn before the driver, the states, and what is recorded at the end."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from agent_protocol.outcomes import (
    Busy,
    Failed,
    Outcome,
    Refused,
    Unknown,
    Unreachable,
    Unsuccessful,
    Unsupported,
)
from compute_driver.errors import (
    HalfDone,
    InstanceBusy,
    InstanceNameAmbiguous,
    InstanceNotFound,
    InstanceStateRefused,
)
from compute_driver.manager.operations import ACTIONS, OPERATIONS, Interrupted
from compute_driver.states import VmState

from ..bench import CONTEXT, DEADLINE, FILE, PASSWORD, SEALED_VALUE, SECRET, UUID, Bench
from ..cases import CASES, ON_INSTANCES, Case, every_case, every_case_on_an_instance

KINDS = [Refused, Unsupported, Busy, Failed, Unreachable, Unknown]


def test_every_operation_of_the_table_is_tried() -> None:
    assert [case.operation for case in CASES] == list(OPERATIONS)
    assert set(ACTIONS) == {operation.action for operation in OPERATIONS}


@every_case
def test_the_row_and_the_turn_come_before_the_driver(bench: Bench, case: Case) -> None:
    case.begin(bench)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            case.carry_out(bench)
        except BaseException as error:
            errors.append(error)

    with bench.driver.steering.blocked(case.verb) as gate:
        thread = threading.Thread(target=run)
        thread.start()
        try:
            gate.await_arrival(DEADLINE)
            row = next(it for it in bench.repository.unfinished_actions("here") if it.step is None)
            instance = bench.instance
            assert (row.action, row.step, row.user, row.request_id) == (case.operation.action, None, "ada", "req-1")
            assert (row.instance_uuid, row.target) == (instance.uuid, "web")
            assert (instance.task_state, instance.task_action) == (case.operation.task_state, row.id)
        finally:
            gate.release()
            thread.join(DEADLINE)
    assert errors == []


@every_case
def test_a_success_is_recorded_and_gives_the_turn_back(bench: Bench, case: Case) -> None:
    case.begin(bench)
    case.carry_out(bench)
    assert case.verb in bench.asked
    row = bench.action()
    assert (row.action, row.outcome, row.code, row.message) == (case.operation.action, Outcome.SUCCEEDED, "", "")
    assert row.seconds is not None
    assert row.instance_uuid == UUID
    instance = bench.repository.get_instance(UUID, include_deleted=True)
    assert {name: getattr(instance, name) for name in case.after} == dict(case.after)
    assert (instance.task_state, instance.task_action) == (None, None)
    assert bench.repository.unfinished_actions("here") == []
    assert bench.repository.list_faults(UUID) == []
    if not instance.deleted:
        info = bench.driver.get_info(instance)
        assert (instance.power_state, instance.node) == (info.state, info.node)


@pytest.mark.parametrize(
    ("case", "kind"),
    [(CASES[0], kind) for kind in KINDS] + [(case, KINDS[at % len(KINDS)]) for at, case in enumerate(ON_INSTANCES)],
    ids=lambda value: value.name if isinstance(value, Case) else value.__name__,
)
def test_each_error_is_recorded_as_it_is_and_gives_the_turn_back(
    bench: Bench, case: Case, kind: type[Unsuccessful]
) -> None:
    if _is_put_right(case, kind.outcome):
        # It has another test.
        kind = Failed
    case.begin(bench)
    error = kind("some_code", "some words")
    # Putting it back is tried once more without the start.
    for _ in range(2 if case.operation.action == "revert_resize" else 1):
        bench.driver.steering.fail(case.verb, error)
    with pytest.raises(kind) as caught:
        case.carry_out(bench)
    assert caught.value is error
    row = bench.action()
    assert (row.outcome, row.code, row.message) == (kind.outcome, "some_code", "some words")
    assert row.seconds is not None
    instance = bench.instance
    assert (instance.task_state, instance.task_action) == (None, None)
    # Neither of them is as it was before.
    fails = case.before is None or case.operation.action == "rebuild"
    assert instance.vm_state == ("error" if fails else case.before)
    assert [fault.code for fault in bench.repository.list_faults(UUID)][:1] == (["some_code"] if fails else [])


def _is_put_right(case: Case, outcome: Outcome) -> bool:
    """Whether reconciliation completes what ended so, or looks what became of it."""
    repeatable = case.operation.interrupted in (Interrupted.COMPLETE, Interrupted.COMPARE_NODE)
    return repeatable and outcome in (Outcome.UNKNOWN, Outcome.UNREACHABLE)


@pytest.mark.parametrize("kind", [Unknown, Unreachable])
@pytest.mark.parametrize(
    "case", [it for it in ON_INSTANCES if _is_put_right(it, Outcome.UNKNOWN)], ids=lambda it: it.name
)
def test_what_may_be_half_done_is_brought_to_its_end_by_reconciliation(
    bench: Bench, case: Case, kind: type[Unsuccessful]
) -> None:
    case.begin(bench)
    bench.driver.steering.fail(case.verb, kind("some_code", "some words"))
    with pytest.raises(HalfDone):
        case.carry_out(bench)
    assert bench.action().outcome is None
    assert bench.instance.task_state == case.operation.task_state
    # What this very process began is looked at twice.
    assert bench.manager.reconcile() == {}
    codes = bench.manager.reconcile()
    moved = case.operation.interrupted is Interrupted.COMPARE_NODE
    assert codes == {"interrupted" if moved else "found_done": 1}
    assert bench.action().outcome is (Outcome.FAILED if moved else Outcome.SUCCEEDED)
    instance = bench.repository.get_instance(UUID, include_deleted=True)
    assert (instance.task_state, instance.task_action) == (None, None)


@every_case
def test_an_unforeseen_error_is_unknown_and_its_text_is_nowhere(
    bench: Bench, case: Case, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    case.begin(bench)
    bench.driver.steering.fail(case.verb, ValueError(SECRET))
    with pytest.raises(Unknown) as caught:
        case.carry_out(bench)
    assert caught.value.code == "internal_error"
    assert (bench.action().outcome, bench.action().code) == (Outcome.UNKNOWN, "internal_error")
    assert bench.instance.task_state is None
    assert SECRET not in caplog.text + str(caught.value)
    files = list(tmp_path.iterdir())
    assert files
    assert not any(SECRET.encode() in path.read_bytes() for path in files)


def test_secrets_are_in_neither_database_nor_log(
    bench: Bench, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    for case in CASES:
        if case.operation.action in ("create", "set_admin_password", "inject_file", "rebuild"):
            if case.before is None:
                case.begin(bench)
            case.carry_out(bench)
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (PASSWORD.value, FILE.content.decode()):
        assert secret not in caplog.text
        assert secret.encode() not in stored


# Which instance, and in which state


def ask(bench: Bench, case: Case) -> None:
    """Give the order to an instance of which nothing is known, so that nothing can be sealed to its agent either."""
    if case.verb == "send_sealed":
        sealed = {"request_id": "id", "value": SEALED_VALUE, "box": ""}
        bench.manager.send_sealed(CONTEXT, "web", case.operation.action, **sealed)
    else:
        case.carry_out(bench)


@every_case_on_an_instance
def test_a_missing_instance_is_refused_and_recorded(bench: Bench, case: Case) -> None:
    with pytest.raises(InstanceNotFound):
        ask(bench, case)
    row = bench.action()
    assert (row.instance_uuid, row.outcome, row.code) == (None, Outcome.REFUSED, "instance_not_found")
    assert bench.driver.steering.calls == []


def test_a_name_that_two_bear_is_refused_and_recorded(bench: Bench) -> None:
    bench.record(uuid="one")
    bench.record(uuid="two")
    for case in ON_INSTANCES:
        with pytest.raises(InstanceNameAmbiguous):
            ask(bench, case)
        assert (bench.action().action, bench.action().code) == (case.operation.action, "instance_name_ambiguous")
    assert bench.driver.steering.calls == []


@every_case_on_an_instance
def test_a_busy_instance_is_busy_and_keeps_its_task(bench: Bench, case: Case) -> None:
    case.begin(bench)
    bench.repository.begin_task(UUID, "rebooting")
    with pytest.raises(InstanceBusy):
        case.carry_out(bench)
    assert bench.action().outcome is Outcome.BUSY
    assert bench.instance.task_state == "rebooting"
    assert bench.asked == []


@every_case_on_an_instance
def test_states_that_the_table_does_not_name_are_refused(bench: Bench, case: Case) -> None:
    case.begin(bench)
    allowed = set(VmState) if case.operation.vm_states is None else case.operation.vm_states
    for vm_state in VmState:
        if vm_state in allowed or vm_state is VmState.DELETED:
            continue
        bench.repository.update_instance(UUID, vm_state=vm_state)
        with pytest.raises(InstanceStateRefused):
            case.carry_out(bench)
        assert (bench.action().outcome, bench.action().code) == (Outcome.REFUSED, "instance_state")
        assert (bench.instance.task_state, bench.instance.vm_state) == (None, vm_state)
    assert bench.asked == []


@every_case_on_an_instance
def test_states_that_the_table_names_are_allowed(bench: Bench, case: Case) -> None:
    case.begin(bench)
    for vm_state in case.operation.vm_states or set(VmState) - {VmState.DELETED}:
        bench.repository.update_instance(UUID, vm_state=vm_state)
        bench.driver.steering.clear_calls()
        error = Failed("asked", "the driver was asked")
        bench.driver.steering.fail(case.verb, error)
        with pytest.raises(Failed) as caught:
            case.carry_out(bench)
        assert caught.value is error
        assert case.verb in bench.asked
