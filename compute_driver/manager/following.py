"""Instances at rest are what their guests are: somebody may have used the guest's own power button, or another tool."""

from __future__ import annotations

import logging
import queue
import threading
import uuid as uuids
from collections.abc import Mapping
from typing import Any

from agent_protocol.outcomes import Outcome, Unsuccessful

from ..db.records import Instance
from ..errors import InstanceNotFound
from ..states import PowerState, VmState
from .turns import Operations

LOG = logging.getLogger(__name__)

ACTION = "reconcile"
"""Name in the audit trail of what was found and not ordered."""

USER = "xenward"
"""Who asked for that."""

_FOLLOWED: Mapping[PowerState, tuple[VmState, str]] = {
    PowerState.RUNNING: (VmState.ACTIVE, "guest_started"),
    PowerState.SHUTDOWN: (VmState.STOPPED, "guest_stopped"),
    PowerState.PAUSED: (VmState.PAUSED, "guest_paused"),
    PowerState.SUSPENDED: (VmState.SUSPENDED, "guest_suspended"),
}
"""By what the hypervisor says: what the instance becomes, and the code of that in the audit trail."""

_FOLLOWING = frozenset({VmState.ACTIVE, VmState.STOPPED, VmState.PAUSED, VmState.SUSPENDED})
"""States that follow the guest. The others are left by an order only."""


class Following(Operations):
    """Brings records in line with guests. Never does anything to a guest."""

    def follow(self, instance_uuid: str) -> None:
        """Look at one instance. Nothing happens when there is none, or an order is being carried out on it."""
        try:
            instance = self._repository.get_instance(instance_uuid)
        except InstanceNotFound:
            return
        if instance.host == self.host and instance.task_state is None:
            self._compare(instance)

    def follow_all(self) -> None:
        """Look at all instances, and for guests that claim to be instances and are none."""
        instances = self._repository.list_instances(host=self.host)
        for instance in instances:
            if instance.task_state is not None:
                continue
            try:
                self._compare(instance)
            except Unsuccessful as error:
                if error.outcome is Outcome.UNREACHABLE:
                    raise
                LOG.warning("instance %s: what became of it will be seen later: %s", instance.uuid, error)
        known = {instance.uuid for instance in self._repository.list_instances()}
        for stranger in sorted(set(self._driver.list_instance_uuids()) - known):
            # It may be another service's, with a database of its own: it is only told of.
            LOG.warning("host %s: there is a guest of an instance that nobody knows: %s", self.host, stranger)

    def _compare(self, instance: Instance) -> None:
        try:
            info = self._driver.get_info(instance)
        except InstanceNotFound:
            self._missing(instance)
            return
        values: dict[str, Any] = {}
        if info.state != instance.power_state:
            values["power_state"] = info.state
        if info.node != instance.node:
            values["node"] = info.node
        vm_state, code = _FOLLOWED.get(info.state, (instance.vm_state, ""))
        if instance.vm_state in _FOLLOWING and vm_state != instance.vm_state:
            values["vm_state"] = vm_state
            self._record(
                instance, values, code, f"the instance was {instance.vm_state}; its guest is {info.state.word}"
            )
        elif values:
            self._repository.set_states(instance.uuid, as_of=instance.updated_at, **values)

    def _missing(self, instance: Instance) -> None:
        if instance.vm_state != VmState.ERROR:
            values = {"vm_state": VmState.ERROR, "power_state": PowerState.NOSTATE, "node": ""}
            said = f"the instance was {instance.vm_state}; the hypervisor has no such guest"
            if self._record(instance, values, "guest_missing", said):
                self._repository.record_fault(instance.uuid, code="guest_missing", message=said)

    def _record(self, instance: Instance, values: Mapping[str, Any], code: str, said: str) -> bool:
        lease = self._lease()
        if not self._repository.set_states(instance.uuid, as_of=instance.updated_at, **values):
            return False
        row = self._repository.start_action(
            action=ACTION,
            target=instance.display_name,
            request_id=f"req-{uuids.uuid4()}",
            user=USER,
            host=self.host,
            instance_uuid=instance.uuid,
            lease=lease,
        )
        self._repository.finish_action(row, outcome=Outcome.SUCCEEDED, code=code, message=said, seconds=0.0)
        LOG.warning("instance %s: %s (%s)", instance.uuid, said, code)
        return True


class Follower:
    """The thread that looks at each instance of which something was told."""

    def __init__(self, following: Following) -> None:
        self._following = following
        self._told: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._pending: set[str] = set()
        self._guard = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, if it was begun; what was told and not looked at is found by the next look at everything."""
        self._told.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def tell(self, instance_uuid: str) -> None:
        """Something may have changed. Returns at once."""
        with self._guard:
            if instance_uuid in self._pending:
                return
            self._pending.add(instance_uuid)
        self._told.put(instance_uuid)

    def _run(self) -> None:
        while (instance_uuid := self._told.get()) is not None:
            with self._guard:
                # Before the look: what is told during it needs another one.
                self._pending.discard(instance_uuid)
            try:
                self._following.follow(instance_uuid)
            except Unsuccessful as error:
                LOG.warning("instance %s: what became of it will be seen later: %s", instance_uuid, error)
            except Exception as error:
                # Its text may hold anything. The next one is to be looked at all the same.
                LOG.error("instance %s: an error that nobody foresaw: %s", instance_uuid, type(error).__name__)
