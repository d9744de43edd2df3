from __future__ import annotations

import re
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from agent_protocol.outcomes import Outcome
from compute_driver.observing import metrics
from compute_driver.observing.metrics import LeaseState, Metrics
from compute_driver.states import VmState
from tools.commands.environment import CHECKOUT

ACTIONS = ("create", "stop")
DECISIONS = ("undone", "completed")

NAMES = {
    "xenward_operations_total",
    "xenward_operation_seconds_bucket",
    "xenward_operation_seconds_count",
    "xenward_operation_seconds_sum",
    "xenward_operations_in_flight",
    "xenward_steps_total",
    "xenward_lease_held",
    "xenward_lease_epoch",
    "xenward_lease_seconds_left",
    "xenward_reconciliations_total",
    "xenward_reconciliation_last_success_timestamp_seconds",
    "xenward_database_errors_total",
    "xenward_hypervisor_up",
    "xenward_instances",
    "xenward_unrecorded_outcomes",
    "xenward_build_info",
}


def new() -> Metrics:
    return Metrics(actions=ACTIONS, decisions=DECISIONS)


def samples(of: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """Each sample by its name and the values of its labels."""
    families = text_string_to_metric_families(of.exposition().decode("utf-8"))
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_an_operation_counts_from_its_start_to_its_end() -> None:
    tried = new()
    tried.operation_started("create")
    tried.operation_started("create")
    assert samples(tried)["xenward_operations_in_flight", ("create",)] == 2
    tried.operation_ended("create", Outcome.SUCCEEDED, 42.5)
    tried.operation_ended("create", "refused", 0.01)
    found = samples(tried)
    assert found["xenward_operations_in_flight", ("create",)] == 0
    assert found["xenward_operations_total", ("create", "succeeded")] == 1
    assert found["xenward_operations_total", ("create", "refused")] == 1
    assert found["xenward_operation_seconds_sum", ("create",)] == 42.51
    buckets = {
        labels[1]: count for (name, labels), count in found.items() if name == "xenward_operation_seconds_bucket"
    }
    assert (buckets["0.05"], buckets["30.0"], buckets["60.0"], buckets["+Inf"]) == (1, 1, 2, 2)
    assert (min(metrics.BUCKETS), max(metrics.BUCKETS)) == (0.05, 1800.0)


def test_everything_that_happens_is_told() -> None:
    tried = new()
    tried.step_ended("create", "boot", Outcome.FAILED)
    tried.reconciled("undone")
    tried.reconciliation_succeeded()
    tried.database_failed()
    tried.hypervisor_asked(answered=True)
    tried.instances_counted({VmState.ACTIVE: 3, "stopped": 1})
    tried.watch_lease(lambda: LeaseState(True, 7, 12.5))
    tried.watch_unrecorded(lambda: 2)
    found = samples(tried)
    assert found["xenward_steps_total", ("create", "failed", "boot")] == 1
    assert found["xenward_reconciliations_total", ("undone",)] == 1
    assert found["xenward_reconciliation_last_success_timestamp_seconds", ()] > 1.7e9
    assert found["xenward_database_errors_total", ()] == 1
    assert found["xenward_hypervisor_up", ()] == 1
    assert found["xenward_instances", ("active",)] == 3
    assert found["xenward_instances", ("paused",)] == 0
    assert [found[f"xenward_lease_{name}", ()] for name in ("held", "epoch", "seconds_left")] == [1, 7, 12.5]
    assert found["xenward_unrecorded_outcomes", ()] == 2
    # The process's own, for its memory and open files.
    assert found["process_open_fds", ()] > 0
    tried.hypervisor_asked(answered=False)
    tried.instances_counted({"stopped": 4})
    found = samples(tried)
    assert found["xenward_hypervisor_up", ()] == 0
    assert (found["xenward_instances", ("active",)], found["xenward_instances", ("stopped",)]) == (0, 4)


def test_names_follow_the_conventions() -> None:
    tried = new()
    tried.operation_started("create")
    tried.operation_ended("create", "failed", 1)
    tried.step_ended("create", "boot", "failed")
    tried.reconciled("undone")
    tried.database_failed()
    tried.instances_counted({})
    tried.watch_lease(lambda: LeaseState(False, 0, -1.0))
    tried.watch_unrecorded(lambda: 0)
    names = {name for name, _ in samples(tried) if not name.startswith("process_")}
    assert names == NAMES
    text = tried.exposition().decode()
    for family in re.findall(r"^# TYPE (\S+) counter$", text, re.MULTILINE):
        assert family.endswith("_total")
    assert text.count("# HELP") == text.count("# TYPE")


TEXTS = st.text() | st.sampled_from(["create", "boot", "failed", "undone", "active", "other"])


@settings(deadline=None)
@given(one=TEXTS, two=TEXTS, three=TEXTS)
def test_no_text_of_others_becomes_a_label(one: str, two: str, three: str) -> None:
    tried = new()
    tried.operation_started(one)
    tried.operation_ended(one, two, 1.0)
    tried.step_ended(one, two, three)
    tried.reconciled(one)
    tried.instances_counted({three: 1})
    allowed = {*ACTIONS, *metrics.STEPS, *DECISIONS, *map(str, Outcome), "other"}
    allowed |= {str(state) for state in VmState}
    for (name, labels), _ in samples(tried).items():
        if name not in ("xenward_build_info", "xenward_operation_seconds_bucket"):
            assert set(labels) <= allowed
    found = samples(tried)
    assert found["xenward_operations_in_flight", (one if one in ACTIONS else "other",)] == 0


def test_what_cannot_be_read_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> int:
        raise RuntimeError("hunter22")

    tried = new()
    tried.watch_lease(fail)  # type: ignore[arg-type]
    tried.watch_unrecorded(fail)
    tried.hypervisor_asked(answered=True)
    names = {name for name, _ in samples(tried)}
    assert "xenward_hypervisor_up" in names
    assert not {name for name in names if name.startswith(("xenward_lease", "xenward_unrecorded"))}
    assert caplog.text.count("RuntimeError") == 2
    assert "hunter22" not in caplog.text


def test_many_threads_count_right() -> None:
    tried = new()

    def work() -> None:
        for _ in range(500):
            tried.operation_started("stop")
            tried.operation_ended("stop", "succeeded", 0.1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = samples(tried)
    assert found["xenward_operations_total", ("stop", "succeeded")] == 2000
    assert found["xenward_operations_in_flight", ("stop",)] == 0


def test_two_of_them_do_not_meet() -> None:
    one, two = new(), new()
    one.reconciled("undone")
    assert ("xenward_reconciliations_total", ("undone",)) not in samples(two)


def test_every_step_of_the_drivers_is_known() -> None:
    source = "\n".join(
        path.read_text()
        for package in ("fake", "xenapi")
        for path in (CHECKOUT / "compute_driver" / package).rglob("*.py")
    )
    steps = set(re.findall(r"\bstep\((?:\w+, )?\"([a-z_]+)\"", source))
    assert len(steps) > 20
    assert steps <= metrics.STEPS
