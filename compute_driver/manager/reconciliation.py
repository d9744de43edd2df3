"""What a service did not live to end is ended by the next one, as the table of operations says.

Each decision is the outcome of the interrupted order's own row in the audit trail. docs/reconciliation.md has the
table.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from agent_protocol.outcomes import Outcome, Unsuccessful

from ..audit import internal_error
from ..db.records import Action, Instance, Lease, Migration
from ..errors import ActionEnded, DatabaseUnavailable, InstanceNotFound
from ..fencing import LeaseLost
from ..states import PowerState, VmState
from .devices import DeviceOperations
from .life import LifeOperations
from .moving import MigrationStatus, MovingOperations, is_running
from .operations import ACTIONS, Interrupted

LOG = logging.getLogger(__name__)

QUIET_TIMEOUT = 300.0
"""Seconds that what the hypervisor still does for a guest may take before anything is decided about it."""

FOUND_DONE = "found_done"
INTERRUPTED = "interrupted"
SERVICE_ENDED = "service_ended"
"""Codes of an interrupted order: it was found to have happened; it did not, or was undone; nobody knows."""

LATER = "later"
"""In their place: nothing could be decided yet."""

_WORKERS = 4
"""Interrupted orders that are looked into together."""

_LATER = (Outcome.UNREACHABLE, Outcome.BUSY)
"""How asking the hypervisor ends when it should be asked again: nothing is decided yet."""


@dataclass(frozen=True)
class Decision:
    """How an interrupted order ended. values: columns of its instance; fault: they are to be explained by one."""

    outcome: Outcome
    code: str
    message: str
    values: Mapping[str, Any]
    deleted: bool = False
    fault: bool = False


class Reconciliation(DeviceOperations, MovingOperations, LifeOperations):
    """Runs once when a service has got its host, and then from time to time."""

    _suspects: frozenset[int] = frozenset()

    def reconcile(self) -> dict[str, int]:
        """End what nobody works on any more; gives how often each code was the end.

        What was begun by this very process is ended only if it was found like that twice in a row: it may just be
        about to begin. Raises LeaseLost, DatabaseUnavailable, or what keeps the host from being used.
        """
        lease = self._lease()
        self.recorder.catch_up()
        unfinished = self._repository.unfinished_actions(self.host)
        orders = [it for it in unfinished if it.step is None and it.id not in self.in_flight]
        epoch = lease.epoch if lease else 0
        suspects = self._suspects
        due = [it for it in orders if it.epoch < epoch or it.id in suspects]
        # Looked at before the rows are ended: who holds a turn without a row is not one of them.
        turns = self._turns_without_order({it.id for it in unfinished})
        self._suspects = frozenset(it.id for it in orders) | frozenset(-(it.task_action or 0) for it in turns)
        codes: dict[str, int] = {}
        with ThreadPoolExecutor(_WORKERS, thread_name_prefix="reconcile") as pool:
            for code in pool.map(lambda action: self._end_interrupted(action, lease), due):
                codes[code] = codes.get(code, 0) + 1
        for instance in turns:
            if instance.task_action is None or -instance.task_action in suspects:
                self._release(instance)
        running = {it.request_id for it in orders if it not in due}
        self._end_steps([it for it in unfinished if it.step is not None], running)
        return codes

    def _release(self, instance: Instance) -> None:
        """Gives back a turn that no order has: an earlier version, or somebody's hand, left it."""
        try:
            found = self._found(instance)
            if instance.vm_state == VmState.BUILDING:
                found["vm_state"] = VmState.ERROR
            self._repository.end_task(instance.uuid, action=instance.task_action, **found)
        except Unsuccessful as error:
            LOG.warning("instance %s: its turn cannot be given back now: %s", instance.uuid, error)
            return
        LOG.warning("instance %s: nobody had its turn (%s); it is given back", instance.uuid, instance.task_state)

    def _turns_without_order(self, unfinished: set[int]) -> list[Instance]:
        held = [it for it in self._repository.list_instances(host=self.host) if it.task_state is not None]
        return [it for it in held if it.task_action not in unfinished and it.task_action not in self.in_flight]

    def _end_interrupted(self, action: Action, lease: Lease | None) -> str:
        try:
            decision = self._decide(action)
            if decision is None:
                return LATER
            self._repository.conclude(
                action.id,
                outcome=decision.outcome,
                code=decision.code,
                message=decision.message,
                seconds=max(0.0, (datetime.now(timezone.utc) - action.started_at).total_seconds()),
                instance_uuid=action.instance_uuid,
                values=dict(decision.values),
                deleted=decision.deleted,
                fault=decision.fault,
                lease=lease,
            )
        except (ActionEnded, LeaseLost, DatabaseUnavailable) as error:
            LOG.warning("%s %s: cannot be ended now: %s", action.request_id, action.action, error)
            return LATER
        except Exception as error:
            # The others are to be ended all the same.
            internal_error(error, action.request_id)
            return LATER
        LOG.warning(
            "%s %s %s: %s (%s)", action.request_id, action.action, action.target, decision.outcome, decision.code
        )
        if action.instance_uuid is not None:
            self._idle(action.instance_uuid)
        return decision.code

    def _decide(self, action: Action) -> Decision | None:
        """What is to be recorded of an interrupted order; None when that can only be told later."""
        instance = self._held(action)
        if instance is None:
            said = "the service ended before anything was begun"
            return Decision(Outcome.UNREACHABLE, SERVICE_ENDED, said, {})
        operation = ACTIONS.get(action.action)
        try:
            self._driver.await_quiet(instance, timeout=QUIET_TIMEOUT)
            if operation is None:
                # Of a version that can do more.
                return self._nobody_knows(instance, action)
            return _WAYS[operation.interrupted](self, instance, action)
        except (LeaseLost, DatabaseUnavailable):
            raise
        except Unsuccessful as error:
            if error.outcome in _LATER or error.code == "guest_busy":
                LOG.warning("%s %s: nothing can be decided yet: %s", action.request_id, action.action, error)
                return None
            said = f"this was interrupted; putting it right did not work: {error}"
            return Decision(Outcome.UNKNOWN, error.code, said, {"vm_state": VmState.ERROR}, fault=True)

    def _held(self, action: Action) -> Instance | None:
        """The instance whose turn an order has; None when it never had one."""
        if action.instance_uuid is None:
            return None
        with suppress(InstanceNotFound):
            instance = self._repository.get_instance(action.instance_uuid)
            if instance.task_action == action.id:
                return instance
        return None

    def _end_steps(self, steps: list[Action], requests: set[str]) -> None:
        """Ends the steps of orders that are over. requests: those that are not."""
        for step in steps:
            if step.request_id not in requests and not self._is_in_flight(step):
                seconds = max(0.0, (datetime.now(timezone.utc) - step.started_at).total_seconds())
                with suppress(ActionEnded):
                    self._repository.finish_action(
                        step.id,
                        outcome=Outcome.UNKNOWN,
                        code=SERVICE_ENDED,
                        message="the service ended while this step was in flight",
                        seconds=seconds,
                    )

    def _is_in_flight(self, step: Action) -> bool:
        actions = self._repository.list_actions(request_id=step.request_id)
        return any(it.step is None and it.id in self.in_flight for it in actions)

    # The ways of the table

    def _found(self, instance: Instance) -> dict[str, Any]:
        """Columns of an instance as its guest is now. One that is in error stays so, and one without a guest is."""
        try:
            info = self._driver.get_info(instance)
        except InstanceNotFound:
            return {"vm_state": VmState.ERROR, "power_state": PowerState.NOSTATE, "node": ""}
        states = {"power_state": info.state, "node": info.node}
        word = _WORDS.get(info.state)
        if word is None or instance.vm_state in (VmState.ERROR, VmState.RESCUED, VmState.RESIZED):
            return states
        return {**states, "vm_state": word}

    def _failed(self, instance: Instance, said: str, **values: Any) -> Decision:
        found = {**self._found(instance), **values}
        fault = found.get("vm_state") == VmState.ERROR
        return Decision(Outcome.FAILED, INTERRUPTED, f"this was interrupted; {said}", found, fault=fault)

    def _done(self, values: Mapping[str, Any], *, deleted: bool = False) -> Decision:
        said = "this was interrupted; it has happened"
        return Decision(Outcome.SUCCEEDED, FOUND_DONE, said, values, deleted=deleted)

    def _begun(self, instance: Instance, action: Action) -> Migration | None:
        """The move that the action has begun; None when it did not come to that, or the move is at its end."""
        migration = self._repository.open_migration(instance.uuid)
        return migration if migration is not None and migration.request_id == action.request_id else None

    def _remove(self, instance: Instance, action: Action) -> Decision:
        del action
        self._driver.destroy(instance, volumes=self._volumes(instance))
        return self._failed(instance, "what there was of the guest is removed", vm_state=VmState.ERROR)

    def _compare_power(self, instance: Instance, action: Action) -> Decision:
        found = self._found(instance)
        if found["power_state"] == ACTIONS[action.action].power:
            return self._done(found)
        return self._failed(instance, "the guest is not in the state that was wanted")

    def _compare_node(self, instance: Instance, action: Action) -> Decision:
        migration = self._begun(instance, action)
        found = self._found(instance)
        has_moved = found["node"] != "" and found["node"] == self._subject(instance)
        if migration is not None:
            status = MigrationStatus.COMPLETED if has_moved else MigrationStatus.FAILED
            self._repository.set_migration(migration.id, status=status)
        return self._done(found) if has_moved else self._failed(instance, "the guest did not move")

    def _complete(self, instance: Instance, action: Action) -> Decision:
        if action.action in _ABOUT_DEVICES and not self._subject(instance):
            return self._failed(instance, "nothing of it was begun")
        complete: Callable[[Instance], Mapping[str, Any] | None] = {
            "delete": self._complete_delete,
            "unrescue": self._complete_unrescue,
            "confirm_resize": self._complete_confirm,
            "revert_resize": self._complete_revert,
            "detach_volume": self._let_go_of_volume,
            "detach_interface": self._let_go_of_interface,
        }[action.action]
        values = complete(instance)
        deleted = action.action == "delete"
        return self._done({} if deleted else self._found(instance) if values is None else values, deleted=deleted)

    def _complete_delete(self, instance: Instance) -> None:
        self._driver.destroy(instance, volumes=self._volumes(instance))

    def _complete_unrescue(self, instance: Instance) -> Mapping[str, Any]:
        self._driver.unrescue(instance)
        # It may have been off already when the service ended.
        self._driver.power_on(instance)
        return self.state_of(instance)

    def _complete_confirm(self, instance: Instance) -> Mapping[str, Any]:
        return self.confirmed(instance, self._repository.open_migration(instance.uuid))

    def _complete_revert(self, instance: Instance) -> Mapping[str, Any]:
        migration = self._repository.open_migration(instance.uuid)
        if migration is None:
            return self.state_of(instance)
        return self._reverted(instance, migration, power_on=is_running(instance))

    def _reverted(self, instance: Instance, migration: Migration, *, power_on: bool) -> Mapping[str, Any]:
        values, error = self.reverted(instance, migration, power_on=power_on)
        if error is not None:
            raise error
        return values

    def _undo(self, instance: Instance, action: Action) -> Decision:
        undo: Callable[[Instance], Mapping[str, Any] | None] = {
            "rescue": self._undo_rescue,
            "resize": lambda it: self._undo_move(it, action),
            "migrate": lambda it: self._undo_move(it, action),
            "snapshot": self._undo_snapshot,
            "quiesce": self._undo_quiesce,
            "change_instance_metadata": self._undo_metadata,
            "attach_volume": self._let_go_of_volume,
            "attach_interface": self._let_go_of_interface,
        }[action.action]
        values = undo(instance) or {}
        return self._failed(instance, "what was done of it is undone", **values)

    def _undo_rescue(self, instance: Instance) -> None:
        self._driver.unrescue(instance)

    def _undo_snapshot(self, instance: Instance) -> None:
        image_id = self._subject(instance)
        if image_id and self._images is not None:
            # Be it whole, or in pieces: nobody was told of it.
            self._images.delete(image_id)
        self._driver.cleanup(instance)

    def _undo_move(self, instance: Instance, action: Action) -> Mapping[str, Any] | None:
        migration = self._begun(instance, action)
        if migration is None:
            return None
        return self._reverted(instance, migration, power_on=instance.vm_state == VmState.ACTIVE)

    def _undo_quiesce(self, instance: Instance) -> None:
        try:
            self._driver.unquiesce(instance)
        except LeaseLost:
            raise
        except Unsuccessful as error:
            # It was not frozen, or its agent does not answer. A guest thaws by itself when its time is over.
            LOG.warning("instance %s: it could not be thawed: %s", instance.uuid, error)

    def _undo_metadata(self, instance: Instance) -> None:
        keys = json.loads(self._subject(instance) or "[]")
        recorded = instance.instance_metadata
        diff = {key: ["+", recorded[key]] if key in recorded else ["-"] for key in keys}
        if diff:
            self._driver.change_instance_metadata(instance, diff)

    def _let_go_of_volume(self, instance: Instance) -> None:
        volume = self._volume(instance, self._subject(instance))
        if volume is not None:
            self._driver.detach_volume(instance, volume)
            self._repository.delete_volume(instance.uuid, volume.id)

    def _let_go_of_interface(self, instance: Instance) -> None:
        subject = self._subject(instance)
        for interface in self._repository.list_interfaces(instance.uuid):
            if interface.id == subject:
                self._driver.detach_interface(instance, interface)
                self._repository.delete_interface(instance.uuid, interface.id)

    def _mark_error(self, instance: Instance, action: Action) -> Decision:
        del action
        self._driver.cleanup(instance)
        return self._failed(instance, "rebuild it again", vm_state=VmState.ERROR)

    def _nobody_knows(self, instance: Instance, action: Action) -> Decision:
        del action
        said = "this was interrupted; it may have happened"
        found = self._found(instance)
        return Decision(Outcome.UNKNOWN, SERVICE_ENDED, said, found, fault=found.get("vm_state") == VmState.ERROR)


_ABOUT_DEVICES = ("detach_volume", "detach_interface")
"""These are completed only if it was written down which device is meant, which is before the hypervisor is asked."""

_WORDS = {
    PowerState.RUNNING: VmState.ACTIVE,
    PowerState.PAUSED: VmState.PAUSED,
    PowerState.SUSPENDED: VmState.SUSPENDED,
    PowerState.SHUTDOWN: VmState.STOPPED,
}

_WAYS: Mapping[Interrupted, Callable[[Reconciliation, Instance, Action], Decision]] = {
    Interrupted.REMOVE: Reconciliation._remove,
    Interrupted.COMPLETE: Reconciliation._complete,
    Interrupted.COMPARE_POWER: Reconciliation._compare_power,
    Interrupted.COMPARE_NODE: Reconciliation._compare_node,
    Interrupted.UNDO: Reconciliation._undo,
    Interrupted.MARK_ERROR: Reconciliation._mark_error,
    Interrupted.UNKNOWN: Reconciliation._nobody_knows,
}
