"""A remote call on its way through the simulator, with what rules do to it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Callable, TypeVar

from .. import tasks
from ..errors import ApiError
from .answers import truncate
from .call_log import DROPPED, CallLog
from .errors import Dropped, Garbled
from .rules import Arrival, Hit, Rules

LOG = logging.getLogger("xenward.simulator.faults")

_Result = TypeVar("_Result")


def hold(rules: Rules, hits: Sequence[Hit], name: str) -> None:
    """Wait, or end here, as rules want it before something is executed.

    ApiError when it fails, Dropped when its connection is to be closed or the simulator ends meanwhile.
    """
    for hit in hits:
        rule = hit.rule
        LOG.info("rule %d hits %s: %s", hit.id, name, rule.action)
        if rule.action == "delay":
            hit.wait(rule.seconds)
        elif rule.action == "hang":
            hit.wait()
        elif rule.action == "drop_before":
            raise Dropped
        elif rule.action == "fail":
            raise ApiError(*rule.error)
    if hits and rules.is_stopped:
        raise Dropped


class Visit:
    """A remote call, from its arrival to its answer, or to the end of its task."""

    def __init__(self, rules: Rules, log: CallLog, arrival: Arrival) -> None:
        hits = rules.match(arrival)
        self._rules = rules
        self._log = log
        self._name = arrival.name
        self._at_task = [hit for hit in hits if arrival.is_async and hit.rule.is_for_task]
        self._at_request = [hit for hit in hits if hit not in self._at_task]
        self._entry = log.begin(arrival, tuple(hit.id for hit in hits))
        self._is_launched = False

    def answer(self, work: Callable[[], _Result]) -> _Result:
        """What `work` gives or raises, unless a rule wants something else.

        Dropped or Garbled when the client is not to be answered as it should be.
        """
        try:
            hold(self._rules, self._at_request, self._name)
            result = work()
        except ApiError as error:
            self._log.end(self._entry, error.code)
            self._spoil()
            raise
        except Dropped:
            self._log.end(self._entry, DROPPED)
            raise
        if not self._is_launched:
            self._log.end(self._entry, "SUCCESS")
        self._spoil()
        return result

    def task(self, work: Callable[[], _Result]) -> Callable[[], _Result]:
        """The call goes on in a task: the work for that, with what rules do to it."""
        self._is_launched = True

        def perform() -> _Result:
            outcome = "INTERNAL_ERROR"
            try:
                try:
                    hold(self._rules, self._at_task, self._name)
                except Dropped:
                    raise ApiError("TASK_CANCELLED", tasks.current().ref) from None
                result = work()
                outcome = "SUCCESS"
                return result
            except ApiError as error:
                outcome = error.code
                raise
            finally:
                self._log.end(self._entry, outcome)

        return perform

    def _spoil(self) -> None:
        for hit in self._at_request:
            if hit.rule.action == "drop_after":
                raise Dropped
            if hit.rule.action == "garble":
                if hit.rule.garbling == "page":
                    raise Garbled
                truncate()
