"""What operators and their tools see of a service: metrics, readiness, and the endpoint that tells of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from agent_protocol.outcomes import Unsuccessful

from ..manager.operations import ACTIONS
from ..manager.reconciliation import FOUND_DONE, INTERRUPTED, LATER, SERVICE_ENDED
from ..manager.reports import Report
from ..observing.endpoint import from_configuration
from ..observing.metrics import LeaseState, Metrics
from ..observing.readiness import Readiness
from .assembly import Service

DECISIONS = (FOUND_DONE, INTERRUPTED, SERVICE_ENDED, LATER)


class Watching:
    """Counts what a service does: an observer of orders, and of what is done from time to time."""

    def __init__(self) -> None:
        self.metrics = Metrics(decisions=DECISIONS, actions=ACTIONS)
        self._is_reconciled = False

    def __call__(self, report: Report) -> None:
        """An order, or a step of one, began or ended (manager.reports.Observer)."""
        if report.outcome is None:
            self.metrics.operation_started(report.action)
        elif report.step is not None:
            self.metrics.step_ended(report.action, report.step, str(report.outcome))
        else:
            self.metrics.operation_ended(report.action, str(report.outcome), report.seconds)

    def reconciled(self, it: Service, decisions: dict[str, int] | None) -> None:
        """A reconciliation came to its end, or could not be done."""
        if decisions is None:
            return
        self._is_reconciled = True
        for decision, times in decisions.items():
            for _ in range(times):
                self.metrics.reconciled(decision)
        self.metrics.reconciliation_succeeded()
        counts: dict[str, int] = {}
        for instance in it.repository.list_instances(host=it.manager.host):
            counts[instance.vm_state] = counts.get(instance.vm_state, 0) + 1
        self.metrics.instances_counted(counts)

    def look(self, it: Service) -> None:
        """See whether the hypervisor answers, in case nobody asks for readiness."""
        with suppress(Unsuccessful):
            self._ask(it)

    def _ask(self, it: Service) -> None:
        try:
            it.driver.get_available_nodes()
        except Unsuccessful:
            self.metrics.hypervisor_asked(answered=False)
            raise
        self.metrics.hypervisor_asked(answered=True)

    @contextmanager
    def shown(self, conf: Any, it: Service) -> Iterator[None]:
        """Serves the endpoint while the block runs, if there is to be one."""
        self.metrics.watch_lease(lambda: LeaseState(*it.keeper.state))
        self.metrics.watch_unrecorded(lambda: it.manager.recorder.waiting)
        it.manager.recorder.when_away(self.metrics.database_failed)
        endpoint = from_configuration(conf, self.metrics.exposition, Readiness(self._checks(it)))
        with ExitStack() as stack:
            if endpoint is not None:
                endpoint.start()
                stack.callback(endpoint.stop)
            yield

    def _checks(self, it: Service) -> dict[str, Callable[[], str]]:
        def lease() -> str:
            it.keeper.check()
            return ""

        def database() -> str:
            it.repository.list_hosts()
            return ""

        def hypervisor() -> str:
            self._ask(it)
            return ""

        def reconciliation() -> str:
            return "" if self._is_reconciled else "not yet done"

        return {"lease": lease, "database": database, "hypervisor": hypervisor, "reconciliation": reconciliation}
