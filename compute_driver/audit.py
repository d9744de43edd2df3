"""The audit trail of one order: a row before it begins and before each of its steps, and how each ended."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from agent_protocol.outcomes import Outcome, Unknown, Unsuccessful

from .context import RequestContext
from .db.records import Lease
from .db.repository import Repository
from .errors import ActionEnded, DatabaseUnavailable
from .fencing import LeaseLost

LOG = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")


def internal_error(error: BaseException, request_id: str) -> Unknown:
    """What stands for an error that nobody foresaw: nobody knows how far it came.

    Its text may hold anything, so only its kind is kept; where it came from is logged.
    """
    told = Unknown("internal_error", f"internal error: {type(error).__name__}")
    LOG.error("%s %s\n%s", request_id, told.message, "".join(traceback.format_tb(error.__traceback__)))
    return told


def once(ask: Callable[[], _Answer]) -> _Answer:
    """Asks the database as it is, without waiting for one that is away."""
    return ask()


class Audit:
    """Records what is done for one order.

    name: of the action. target: the name or uuid that was asked for. instance_uuid: set it when the instance is known.
    warning: a code and a message that the action's row gets although it succeeded. insist: how the database is asked
    for steps (Recorder.insist). observe: called with each step that ended, how, and after how many seconds.
    """

    def __init__(
        self,
        repository: Repository,
        context: RequestContext,
        *,
        host: str,
        action: str,
        target: str,
        insist: Callable[[Callable[[], object]], object] = once,
        observe: Callable[[Audit, str, Outcome, float], None] | None = None,
    ) -> None:
        self._repository = repository
        self._host = host
        self._insist = insist
        self._observe = observe
        self._lease: Lease | None = None
        self.context = context
        self.name = action
        self.target = target
        self.instance_uuid: str | None = None
        self.warning = ("", "")

    def begin(self, lease: Lease | None = None) -> int:
        """Write the action's row, and give its number.

        Raises OrderKnown for an order that was sent before, LeaseLost, and DatabaseUnavailable.
        """
        self._lease = lease
        return self._start(None)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Surrounds one step of it (driver.Progress)."""
        row = self._insist(self._starting(name))
        assert isinstance(row, int)
        began = time.monotonic()
        outcome, code, message = Outcome.SUCCEEDED, "", ""
        try:
            yield
        except Unsuccessful as error:
            outcome, code, message = error.outcome, error.code, error.message
            raise
        except BaseException as error:
            unknown = internal_error(error, self.context.request_id)
            outcome, code, message = unknown.outcome, unknown.code, unknown.message
            if isinstance(error, Exception):
                raise unknown from None
            raise
        finally:
            seconds = time.monotonic() - began
            self.log(name, outcome, code, seconds)
            if self._observe is not None:
                self._observe(self, name, outcome, seconds)
            self._finish(row, outcome, code, message, seconds)

    def log(self, step: str | None, outcome: Outcome, code: str, seconds: float) -> None:
        """Say how the action, or a step of it, ended."""
        LOG.info(
            "%s %s%s %s: %s%s in %.3f s",
            self.context.request_id,
            self.name,
            f"/{step}" if step else "",
            self.instance_uuid or self.target,
            outcome,
            f" ({code})" if code else "",
            seconds,
        )

    def _starting(self, step: str) -> Callable[[], int]:
        """Writes a step's row; asked again, it finds the one whose writing was confirmed to nobody."""
        asked = False

        def start() -> int:
            nonlocal asked
            if asked:
                for row in self._repository.list_actions(request_id=self.context.request_id):
                    is_ours = (row.action, row.step, row.instance_uuid) == (self.name, step, self.instance_uuid)
                    if is_ours and row.outcome is None:
                        return row.id
            asked = True
            return self._start(step)

        return start

    def _start(self, step: str | None) -> int:
        return self._repository.start_action(
            action=self.name,
            step=step,
            target=self.target,
            request_id=self.context.request_id,
            user=self.context.user,
            host=self._host,
            instance_uuid=self.instance_uuid,
            order_id=None if step else self.context.order_id,
            lease=self._lease,
        )

    def _finish(self, row: int, outcome: Outcome, code: str, message: str, seconds: float) -> None:
        def write() -> None:
            self._repository.finish_action(
                row, outcome=outcome, code=code, message=message, seconds=seconds, instance_uuid=self.instance_uuid
            )

        try:
            self._insist(write)
        except DatabaseUnavailable as error:
            # That says "nothing was delivered", which would be a lie now.
            raise Unknown("not_recorded", f"the outcome was {outcome}, but it could not be recorded: {error}") from None
        except ActionEnded:
            # Whoever has the host now ended it. Or it was written already, and only the answer was lost.
            self._check_ours(row, outcome, seconds)

    def _check_ours(self, row: int, outcome: Outcome, seconds: float) -> None:
        for action in self._repository.list_actions(request_id=self.context.request_id):
            if action.id == row and (action.outcome, action.seconds) == (outcome, seconds):
                return
        raise LeaseLost(self._host)
