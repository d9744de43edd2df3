"""The audit trail of one request: a row before each action and each of its steps, and its outcome afterwards."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from agent_protocol.outcomes import Outcome, Unknown, Unsuccessful

from .context import RequestContext
from .db.repository import Repository
from .errors import DatabaseUnavailable

LOG = logging.getLogger(__name__)


def internal_error(error: BaseException) -> Unknown:
    """What stands for an error that nobody foresaw: nobody knows how far it came.

    Its text may hold anything, so only its kind is kept.
    """
    return Unknown("internal_error", f"internal error: {type(error).__name__}")


class Audit:
    """Records what is done for one request.

    target: the name or uuid that was asked for. instance_uuid: set it when the instance is known. warning: a code and a
    message that the action's row gets although it succeeded.
    """

    def __init__(self, repository: Repository, context: RequestContext, *, host: str, action: str, target: str) -> None:
        self._repository = repository
        self._context = context
        self._host = host
        self._action = action
        self._target = target
        self.instance_uuid: str | None = None
        self.warning = ("", "")

    def action(self) -> AbstractContextManager[None]:
        """Surrounds the whole action."""
        return self._record(None)

    def step(self, name: str) -> AbstractContextManager[None]:
        """Surrounds one step of it (driver.Progress)."""
        return self._record(name)

    @contextmanager
    def _record(self, step: str | None) -> Iterator[None]:
        row = self._repository.start_action(
            action=self._action,
            step=step,
            target=self._target,
            request_id=self._context.request_id,
            user=self._context.user,
            host=self._host,
            instance_uuid=self.instance_uuid,
        )
        began = time.monotonic()
        outcome, code, message = Outcome.SUCCEEDED, "", ""
        try:
            yield
            if step is None:
                code, message = self.warning
        except Unsuccessful as error:
            outcome, code, message = error.outcome, error.code, error.message
            raise
        except BaseException as error:
            unknown = internal_error(error)
            outcome, code, message = unknown.outcome, unknown.code, unknown.message
            LOG.error("%s %s\n%s", self._context.request_id, message, "".join(traceback.format_tb(error.__traceback__)))
            if isinstance(error, Exception):
                raise unknown from None
            raise
        finally:
            seconds = time.monotonic() - began
            self._log(step, outcome, code, seconds)
            self._finish(row, outcome, code, message, seconds)

    def _finish(self, row: int, outcome: Outcome, code: str, message: str, seconds: float) -> None:
        try:
            self._repository.finish_action(
                row, outcome=outcome, code=code, message=message, seconds=seconds, instance_uuid=self.instance_uuid
            )
        except DatabaseUnavailable as error:
            # That says "nothing was delivered", which would be a lie now.
            raise Unknown("not_recorded", f"the outcome was {outcome}, but it could not be recorded: {error}") from None

    def _log(self, step: str | None, outcome: Outcome, code: str, seconds: float) -> None:
        LOG.info(
            "%s %s%s %s: %s%s in %.3f s",
            self._context.request_id,
            self._action,
            f"/{step}" if step else "",
            self.instance_uuid or self._target,
            outcome,
            f" ({code})" if code else "",
            seconds,
        )
