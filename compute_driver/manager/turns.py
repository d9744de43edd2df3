"""How an order runs: its row is written, the instance's turn taken, the driver asked, and the end of both recorded."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from agent_protocol.outcomes import Outcome, Refused, Unknown, Unreachable, Unsuccessful

from ..audit import Audit, internal_error
from ..context import RequestContext
from ..db.records import Instance, Lease
from ..db.repository import Repository
from ..driver import ComputeDriver
from ..errors import ActionEnded, DatabaseUnavailable, HalfDone
from ..fencing import LeaseLost
from ..images import ImageService
from ..recording import Recorder
from ..states import VmState
from .in_flight import InFlight
from .operations import ACTIONS, Interrupted, Operation
from .reports import Observer, Report

LOG = logging.getLogger(__name__)

MAX_NAME = 255
"""Characters in an instance's display name (Nova's limit)."""

_NOT_RECORDED = "not_recorded"

_REPEATABLE = (Interrupted.COMPLETE, Interrupted.COMPARE_NODE)
"""Ways of reconciliation that bring an order to a definite end without taking anything back."""

_IN_DOUBT = (Outcome.UNKNOWN, Outcome.UNREACHABLE)
"""Outcomes of calls to the hypervisor, of which one that was sent before may have done something."""

_SUBJECT = "subject"
"""Key in system_metadata of what an order is about: the number of its action, and the id of a device or an image, or a
node."""

_Answer = TypeVar("_Answer")


class Keeper(Protocol):
    """Who knows whether this service owns its host."""

    @property
    def lease(self) -> Lease | None:
        """The lease to act under; None where there are no leases. LeaseLost when it is not ours, or not ours for sure.

        Unreachable while the host is not ready to be used.
        """


class Unleased:
    """A keeper for one who is alone."""

    lease: Lease | None = None


@dataclass
class Turn:
    """One order while it is carried out. row: its number in the audit trail.

    values: columns to set when it succeeds; on_error: when it does not, beside the record of a fault. deleted: the
    instance is to be marked as deleted.
    """

    instance: Instance
    audit: Audit
    row: int
    values: dict[str, Any] = field(default_factory=dict)
    on_error: dict[str, Any] = field(default_factory=dict)
    deleted: bool = False


@dataclass(frozen=True)
class _Ending:
    outcome: Outcome
    code: str
    message: str
    seconds: float


class Operations:
    """What every group of operations builds upon.

    host: the name under which the bus knows this service. images: None if there is no image service. keeper: see
    Keeper. observers: who is told of each order.
    """

    def __init__(
        self,
        repository: Repository,
        driver: ComputeDriver,
        host: str,
        images: ImageService | None = None,
        *,
        keeper: Keeper | None = None,
        observers: Sequence[Observer] = (),
        recorder: Recorder | None = None,
    ) -> None:
        self._repository = repository
        self._driver = driver
        self.host = host
        self._images = images
        self._keeper = keeper or Unleased()
        self._observers = tuple(observers)
        self.recorder = recorder or Recorder()
        self.in_flight = InFlight()
        self._idle: Callable[[str], None] = lambda _uuid: None
        self._stopping = threading.Event()

    def when_idle(self, told: Callable[[str], None]) -> None:
        """Have `told` called with an instance's uuid whenever an order on it has ended."""
        self._idle = told

    def drain(self, timeout: float) -> bool:
        """Take no more orders, and wait for those that are being carried out. False when some still are."""
        self._stopping.set()
        return self.in_flight.drained(timeout)

    @contextmanager
    def _turn(
        self,
        context: RequestContext,
        target: str,
        operation: Operation,
        vm_states: Collection[VmState] | None = None,
    ) -> Iterator[Turn]:
        """Surrounds an order on an instance. vm_states: if not those of the operation."""
        audit = self._audit(context, operation, target)
        # Looked up first, so that the row names the instance even if this process does not live to its end.
        with suppress(Refused):
            audit.instance_uuid = self._repository.find_instance(target).uuid
        allowed = operation.vm_states if vm_states is None else vm_states

        def take(row: int, lease: Lease | None) -> Instance:
            audit.instance_uuid = audit.instance_uuid or self._repository.find_instance(target).uuid
            return self._repository.begin_task(
                audit.instance_uuid, operation.task_state, vm_states=allowed, action=row, lease=lease
            )

        with self._carried_out(audit, take) as turn:
            yield turn

    def _audit(self, context: RequestContext, operation: Operation, target: str) -> Audit:
        return Audit(
            self._repository,
            context,
            host=self.host,
            action=operation.action,
            target=target[:MAX_NAME],
            insist=self.recorder.insist,
            observe=self._tell_step,
        )

    @contextmanager
    def _carried_out(
        self,
        audit: Audit,
        take: Callable[[int, Lease | None], Instance],
        on_error: Mapping[str, Any] | None = None,
    ) -> Iterator[Turn]:
        """Surrounds an order, from its row to its outcome. take: gets the instance's turn for the row.

        on_error: columns of the instance when it does not succeed, be it that nobody knows whether `take` did.
        """
        audit.context.check_expiry()
        with self.in_flight.order():
            lease = self._lease()
            try:
                row = audit.begin(lease)
            except LeaseLost as lost:
                raise _not_ours(lost) from None
            with self.in_flight.during(row), self._concluded(row, lease, audit, take, on_error or {}) as turn:
                yield turn

    @contextmanager
    def _concluded(
        self,
        row: int,
        lease: Lease | None,
        audit: Audit,
        take: Callable[[int, Lease | None], Instance],
        on_error: Mapping[str, Any],
    ) -> Iterator[Turn]:
        """The same from the turn on. Turn.instance is as recorded at the end, afterwards."""
        self._tell(audit, None, None)
        began = time.monotonic()
        turn: Turn | None = None
        try:
            turn = Turn(self._take(take, row, lease), audit, row, on_error=dict(on_error))
            yield turn
        except (LeaseLost, HalfDone) as left:
            # For reconciliation, which looks for rows without an end: this service's own, or that of whoever has the
            # host now.
            LOG.warning("%s %s: left to whoever has host %s then", audit.context.request_id, audit.name, self.host)
            self._tell(audit, None, _Ending(left.outcome, left.code, left.message, time.monotonic() - began))
            raise
        except BaseException as error:
            told = _honest(error, begun=turn is not None, audit=audit)
            if turn is not None and error is told and _can_be_put_right(audit.name, told):
                LOG.warning("%s %s: left to reconciliation: %s", audit.context.request_id, audit.name, told)
                raise HalfDone from None
            ending = _Ending(told.outcome, told.code, told.message, time.monotonic() - began)
            values = on_error if turn is None else turn.on_error
            self._end(row, lease, audit, ending, values, fault=values.get("vm_state") == VmState.ERROR)
            if isinstance(error, Exception) and error is not told:
                raise told from None
            raise
        else:
            ending = _Ending(Outcome.SUCCEEDED, *audit.warning, time.monotonic() - began)
            ended = self._end(row, lease, audit, ending, turn.values, deleted=turn.deleted)
            turn.instance = ended or turn.instance

    def _note(self, turn: Turn, subject: str) -> None:
        """Writes down which device, node or image the order is about, for reconciliation."""
        notes = {**turn.instance.system_metadata, _SUBJECT: {"action": turn.row, "id": subject}}
        self._keep(self._repository.update_instance, turn.instance.uuid, action=turn.row, system_metadata=notes)

    def _subject(self, instance: Instance) -> str:
        """What the order is about that has the turn; empty if it did not come to writing that down."""
        noted = instance.system_metadata.get(_SUBJECT, {})
        return str(noted["id"]) if noted.get("action") == instance.task_action else ""

    def _keep(self, write: Callable[..., _Answer], /, *arguments: Any, **named: Any) -> _Answer:
        """A change of the database, in the middle of an order, that may be made twice: see Recorder.insist.

        LeaseLost when the host is not ours any more: what the hypervisor did last may be undone by now.
        """

        def still_ours() -> _Answer:
            _ = self._keeper.lease
            return write(*arguments, **named)

        return self.recorder.insist(still_ours)

    def _lease(self) -> Lease | None:
        if self._stopping.is_set():
            raise Unreachable("service_stopping", f"the compute service of host {self.host!r} is being stopped")
        try:
            return self._keeper.lease
        except LeaseLost as lost:
            raise _not_ours(lost) from None

    def _take(self, take: Callable[[int, Lease | None], Instance], row: int, lease: Lease | None) -> Instance:
        try:
            return take(row, lease)
        except LeaseLost as lost:
            raise _not_ours(lost) from None

    def _end(
        self,
        row: int,
        lease: Lease | None,
        audit: Audit,
        ending: _Ending,
        values: Mapping[str, Any],
        *,
        deleted: bool = False,
        fault: bool = False,
    ) -> Instance | None:
        """Records how it ended, and gives the instance as it is then.

        Unknown when that cannot be recorded; LeaseLost when another service has the host now.
        """
        audit.log(None, ending.outcome, ending.code, ending.seconds)
        try:
            instance = self.recorder.record(
                lambda: self._repository.conclude(
                    row,
                    outcome=ending.outcome,
                    code=ending.code,
                    message=ending.message,
                    seconds=ending.seconds,
                    instance_uuid=audit.instance_uuid,
                    values=values,
                    deleted=deleted,
                    fault=fault,
                    lease=lease,
                )
            )
        except DatabaseUnavailable as error:
            said = f"the outcome was {ending.outcome}, but it could not be recorded: {error}"
            raise Unknown(_NOT_RECORDED, said) from None
        except ActionEnded:
            # Whoever has the host now found this unfinished, and ended it.
            raise LeaseLost(self.host) from None
        self._tell(audit, instance, ending)
        if audit.instance_uuid is not None:
            self._idle(audit.instance_uuid)
        return instance

    def _tell(self, audit: Audit, instance: Instance | None, ending: _Ending | None) -> None:
        self._report(audit, instance, **(vars(ending) if ending else {}))

    def _tell_step(self, audit: Audit, step: str, outcome: Outcome, seconds: float) -> None:
        self._report(audit, None, step=step, outcome=outcome, seconds=seconds)

    def _report(self, audit: Audit, instance: Instance | None, **ended: Any) -> None:
        report = Report(
            audit.context.request_id,
            audit.context.user,
            self.host,
            audit.name,
            audit.instance_uuid or audit.target,
            instance,
            **ended,
        )
        for observer in self._observers:
            try:
                observer(report)
            except Exception as error:
                LOG.warning("%s: could not be told to %r: %s", report.request_id, observer, type(error).__name__)


def _honest(error: BaseException, *, begun: bool, audit: Audit) -> Unsuccessful:
    """What to say of an error. begun: whether the hypervisor may have been asked already."""
    if isinstance(error, DatabaseUnavailable) and begun:
        # It would say that nothing was delivered, which is not certain any more.
        return Unknown(_NOT_RECORDED, f"it may have happened, but could not be recorded: {error}")
    if isinstance(error, Unsuccessful):
        return error
    return internal_error(error, audit.context.request_id)


def _can_be_put_right(action: str, error: Unsuccessful) -> bool:
    """Whether an order should be completed, or looked at, by reconciliation: how far it came is unknown, or may be."""
    return ACTIONS[action].interrupted in _REPEATABLE and error.outcome in _IN_DOUBT


def _not_ours(lost: LeaseLost) -> Unreachable:
    return Unreachable(lost.code, "another compute service has the host now; nothing was done")
