"""The process's metrics for Prometheus. Methods are named for what happened; any thread may call them.

Labels come from fixed sets only, and whatever is none of them counts as `other`: a caller's text must not make a new
time series, nor be shown to whoever reads the metrics.
"""

from __future__ import annotations

import importlib.metadata
import logging
import platform
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from agent_protocol.outcomes import Outcome

from ..states import VmState

LOG = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""What exposition() gives: Prometheus' text format, which every version of it reads."""

OTHER = "other"

STEPS = frozenset(
    [
        "add_ssh_keys",
        "apply_network",
        "attach_interfaces",
        "attach_volume",
        "boot",
        "check",
        "clean_up",
        "config_drive",
        "create_rescue_disk",
        "create_root_disk",
        "create_vm",
        "inject_file",
        "keep_root_disk",
        "migrate",
        "move",
        "power_off",
        "remove_old_disk",
        "replace_root_disk",
        "resize",
        "set_admin_password",
        "set_rescue_password",
        "snapshot",
        "undo",
        "wait_for_agent",
    ]
)
"""The steps that drivers tell of (driver.Progress)."""

BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""Seconds, from a question to an agent (tens of milliseconds) to the copy of a disk (half an hour)."""

_OUTCOMES = frozenset(map(str, Outcome))
_VM_STATES = frozenset(map(str, VmState))


class LeaseState(NamedTuple):
    """epoch: of the lease that is held, or was held last. seconds_left: until it expires, negative afterwards."""

    held: bool
    epoch: int
    seconds_left: float


class Metrics:
    """One process's metrics, in a registry of their own.

    actions, decisions, steps: the values that these labels may have. decisions: what reconciliation decides about one
    thing that an earlier run left in flight.
    """

    def __init__(
        self,
        *,
        actions: Collection[str],
        decisions: Collection[str],
        steps: Collection[str] = STEPS,
    ) -> None:
        self._actions, self._steps, self._decisions = frozenset(actions), frozenset(steps), frozenset(decisions)
        # When a counter was made is in Prometheus' own text format one more time series for each of them.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        build = Info("xenward_build", "What runs here.", registry=registry)
        build.info({"version": _version(), "python": platform.python_version()})
        self._operations = Counter(
            "xenward_operations", "Operations that ended.", ["action", "outcome"], registry=registry
        )
        self._seconds = Histogram(
            "xenward_operation_seconds", "How long operations took.", ["action"], buckets=BUCKETS, registry=registry
        )
        self._in_flight = Gauge("xenward_operations_in_flight", "Operations that run.", ["action"], registry=registry)
        self._steps_ended = Counter(
            "xenward_steps", "Steps of operations that ended.", ["action", "step", "outcome"], registry=registry
        )
        self._reconciliations = Counter(
            "xenward_reconciliations", "What reconciliation decided.", ["decision"], registry=registry
        )
        self._reconciled = Gauge(
            "xenward_reconciliation_last_success_timestamp_seconds",
            "When a reconciliation last came to its end, in seconds since 1970; 0 for never.",
            registry=registry,
        )
        self._database_errors = Counter(
            "xenward_database_errors", "Times that the database did not answer.", registry=registry
        )
        self._hypervisor = Gauge("xenward_hypervisor_up", "1 when the hypervisor answered last.", registry=registry)
        self._instances = Gauge("xenward_instances", "Instances of this host.", ["vm_state"], registry=registry)
        self._watched = _Watched()
        registry.register(self._watched)

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format, CONTENT_TYPE."""
        return prometheus_client.generate_latest(self._registry)

    # Operations

    def operation_started(self, action: str) -> None:
        """An operation began. operation_ended must follow, however it ends."""
        self._in_flight.labels(_known(action, self._actions)).inc()

    def operation_ended(self, action: str, outcome: str, seconds: float) -> None:
        """It ended. outcome: one of Outcome."""
        name = _known(action, self._actions)
        self._in_flight.labels(name).dec()
        self._operations.labels(name, _known(outcome, _OUTCOMES)).inc()
        self._seconds.labels(name).observe(seconds)

    def step_ended(self, action: str, step: str, outcome: str) -> None:
        """A step of an operation ended. outcome: one of Outcome."""
        self._steps_ended.labels(
            _known(action, self._actions), _known(step, self._steps), _known(outcome, _OUTCOMES)
        ).inc()

    # What the process does by itself

    def reconciled(self, decision: str) -> None:
        """Reconciliation decided about one thing."""
        self._reconciliations.labels(_known(decision, self._decisions)).inc()

    def reconciliation_succeeded(self) -> None:
        """Reconciliation came to its end, and left nothing undecided."""
        self._reconciled.set_to_current_time()

    def database_failed(self) -> None:
        """The database did not answer."""
        self._database_errors.inc()

    def hypervisor_asked(self, *, answered: bool) -> None:
        """The hypervisor was asked for a sign of life."""
        self._hypervisor.set(int(answered))

    def instances_counted(self, counts: Mapping[str, int]) -> None:
        """How many instances this host has, by their vm_state. States that are missing have none."""
        totals = dict.fromkeys(_VM_STATES | {OTHER}, 0)
        for vm_state, count in counts.items():
            totals[_known(vm_state, _VM_STATES)] += count
        for vm_state, count in totals.items():
            self._instances.labels(vm_state).set(count)

    # What is asked for whenever somebody reads the metrics: from memory, at once.

    def watch_lease(self, read: Callable[[], LeaseState]) -> None:
        """`read` tells of the lease from now on."""
        self._watched.lease = read

    def watch_unrecorded(self, count: Callable[[], int]) -> None:
        """`count` tells from now on how many outcomes wait for the database, to be written to it."""
        self._watched.unrecorded = count


class _Watched(Collector):
    """What is read at the time of a scrape. What cannot be read is left out: a false value would calm somebody."""

    lease: Callable[[], LeaseState] | None = None
    unrecorded: Callable[[], int] | None = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        if self.lease is not None:
            try:
                held, epoch, seconds_left = self.lease()
            except Exception as error:
                LOG.error("the lease's metrics cannot be read: %s", type(error).__name__)
            else:
                yield GaugeMetricFamily("xenward_lease_held", "1 while this process holds its host.", int(held))
                yield GaugeMetricFamily("xenward_lease_epoch", "Of the lease that it holds, or held last.", epoch)
                yield GaugeMetricFamily("xenward_lease_seconds_left", "Until the lease expires.", seconds_left)
        if self.unrecorded is not None:
            try:
                count = self.unrecorded()
            except Exception as error:
                LOG.error("the outcomes that wait cannot be counted: %s", type(error).__name__)
            else:
                yield GaugeMetricFamily("xenward_unrecorded_outcomes", "Outcomes that wait to be written.", count)


def _known(value: str, allowed: Collection[str]) -> str:
    # str: a member of an enumeration is equal to its value, but prints as its own name in some.
    return str(value) if value in allowed else OTHER


def _version() -> str:
    try:
        return importlib.metadata.version("xenward")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
