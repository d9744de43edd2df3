"""Instances change their size and their place."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from agent_protocol.outcomes import Outcome, Refused, Unsuccessful

from ..context import RequestContext
from ..db.records import Instance, Migration
from ..errors import HalfDone
from ..fencing import LeaseLost
from ..resources import MigrationTarget
from ..states import PowerState, TaskState, VmState
from . import operations
from .life import RUNNING, STOPPED, LifeOperations, check_size
from .turns import Turn

LOG = logging.getLogger(__name__)


class MigrationStatus:
    """Words of Nova's for how far a migration is."""

    MIGRATING = "migrating"
    POST_MIGRATING = "post-migrating"
    FINISHED = "finished"
    CONFIRMED = "confirmed"
    REVERTED = "reverted"
    COMPLETED = "completed"
    FAILED = "failed"


def is_running(instance: Instance) -> bool:
    """Whether the guest ran when nothing was being done to it last."""
    return instance.power_state == PowerState.RUNNING


class MovingOperations(LifeOperations):
    """A resize and a cold migration are one thing: a guest that is off gets other sizes, perhaps elsewhere.

    Until somebody confirms or reverts it, the instance is in vm_state `resized`.
    """

    def resize_instance(
        self, context: RequestContext, target: str, *, memory_mb: int, vcpus: int, root_gb: int, node: str | None = None
    ) -> None:
        """Give an instance other sizes (action `resize`); MiB, processors, GiB. node: where it is to go as well.

        When it fails, the instance is as it was.
        """
        check_size(memory_mb, vcpus, root_gb)
        with self._turn(context, target, operations.RESIZE) as turn:
            sized = replace(turn.instance, memory_mb=memory_mb, vcpus=vcpus, root_gb=root_gb)
            self._move(turn, sized, "resize", node)

    def migrate_instance(self, context: RequestContext, target: str, *, node: str) -> None:
        """Move an instance to another node while it is off (action `migrate`)."""
        with self._turn(context, target, operations.MIGRATE) as turn:
            self._move(turn, turn.instance, "migration", node)

    def confirm_resize(self, context: RequestContext, target: str) -> None:
        """Keep it as it is now (action `confirm_resize`)."""
        with self._turn(context, target, operations.CONFIRM_RESIZE) as turn:
            migration = self._migration(turn.instance)
            turn.values = self.confirmed(turn.instance, migration)

    def revert_resize(self, context: RequestContext, target: str) -> None:
        """Have it as it was before (action `revert_resize`)."""
        with self._turn(context, target, operations.REVERT_RESIZE) as turn:
            migration = self._migration(turn.instance)
            turn.values, error = self.reverted(turn.instance, migration, power_on=is_running(turn.instance))
            if error is not None:
                turn.on_error = turn.values
                raise error

    def live_migrate_instance(self, context: RequestContext, target: str, *, node: str) -> None:
        """Move a running instance to another node of the pool (action `live_migration`)."""
        with self._turn(context, target, operations.LIVE_MIGRATION) as turn:
            source = self._driver.get_info(turn.instance).node
            destination = self._driver.check_can_live_migrate_destination(turn.instance, node=node)
            self._note(turn, node)
            migration = self._begin(turn, "live", source, node, turn.instance)
            try:
                self._driver.live_migration(turn.instance, destination, progress=turn.audit)
            except Unsuccessful as error:
                if error.outcome is not Outcome.UNKNOWN:
                    self._keep(self._repository.set_migration, migration.id, status=MigrationStatus.FAILED)
                raise
            self._keep(self._repository.set_migration, migration.id, status=MigrationStatus.COMPLETED)
            turn.values["node"] = node

    def check_can_live_migrate_destination(self, target: str, *, node: str) -> MigrationTarget:
        """What a service that has the instance needs for sending it here."""
        return self._driver.check_can_live_migrate_destination(self._repository.find_instance(target), node=node)

    # What reconciliation does, too

    def state_of(self, instance: Instance) -> dict[str, Any]:
        """Columns of an instance that is what its guest is."""
        info = self._driver.get_info(instance)
        if info.state is PowerState.RUNNING:
            return {**RUNNING, "node": info.node}
        return {"vm_state": VmState.STOPPED, "power_state": info.state, "node": info.node}

    def confirmed(self, instance: Instance, migration: Migration | None) -> dict[str, Any]:
        """Keep the guest as it is; gives the columns of its instance. It can be done again after an error.

        migration: None if it is at its end already.
        """
        self._driver.confirm_migration(instance)
        values = self.state_of(instance)
        if migration is not None:
            self._keep(self._repository.set_migration, migration.id, status=MigrationStatus.CONFIRMED)
        return values

    def reverted(
        self, instance: Instance, migration: Migration, *, power_on: bool
    ) -> tuple[dict[str, Any], Unsuccessful | None]:
        """Put the guest back as it was; gives the columns of its instance, and why it does not run although it should.

        It can be done again after what is raised.
        """
        error: Unsuccessful | None = None
        try:
            self._driver.finish_revert_migration(instance, power_on=power_on)
        except LeaseLost:
            raise
        except Unsuccessful as raised:
            if not power_on:
                raise
            # It may be that it only does not start: then it is as it was all the same, and to be recorded so.
            error = raised
            self._driver.finish_revert_migration(instance, power_on=False)
        old = {name: getattr(migration, f"old_{name}") for name in ("memory_mb", "vcpus", "root_gb")}
        values = self.state_of(instance)
        self._keep(self._repository.update_instance, instance.uuid, **old)
        # Last: what is open can be done again.
        self._keep(self._repository.set_migration, migration.id, status=MigrationStatus.REVERTED)
        return values, None if values["power_state"] is PowerState.RUNNING else error

    def _move(self, turn: Turn, sized: Instance, kind: str, node: str | None) -> None:
        was_running = turn.instance.vm_state == VmState.ACTIVE
        source = self._driver.get_info(turn.instance).node
        migration = self._begin(turn, kind, source, node or "", sized)
        try:
            self._driver.migrate_disk_and_power_off(sized, node=node, progress=turn.audit)
            self._keep(self._repository.set_migration, migration.id, status=MigrationStatus.POST_MIGRATING)
            sizes: dict[str, Any] = {"memory_mb": sized.memory_mb, "vcpus": sized.vcpus, "root_gb": sized.root_gb}
            sizes["task_state"] = TaskState.RESIZE_FINISH
            self._keep(self._repository.update_instance, sized.uuid, action=turn.row, **sizes)
            self._driver.finish_migration(sized, power_on=was_running, progress=turn.audit)
        except LeaseLost:
            raise
        except Unsuccessful:
            self._go_back(turn, migration, power_on=was_running)
            raise
        self._keep(self._repository.set_migration, migration.id, status=MigrationStatus.FINISHED)
        states = {**RUNNING, **self._place(sized)} if was_running else STOPPED
        turn.values = {**states, "vm_state": VmState.RESIZED}

    def _go_back(self, turn: Turn, migration: Migration, *, power_on: bool) -> None:
        turn.on_error = {"vm_state": VmState.ERROR}
        try:
            with turn.audit.step("revert"):
                turn.on_error, error = self.reverted(turn.instance, migration, power_on=power_on)
                if error is not None:
                    raise error
        except LeaseLost:
            raise
        except Unsuccessful as error:
            LOG.warning("instance %s: it could not be put back as it was: %s", turn.instance.uuid, error)
            if error.outcome is not Outcome.FAILED:
                raise HalfDone from None
            # What failed first is what the caller is told; this has a row of its own.

    def _begin(self, turn: Turn, kind: str, source: str, destination: str, sized: Instance) -> Migration:
        return self._repository.create_migration(
            instance_uuid=turn.instance.uuid,
            kind=kind,
            status=MigrationStatus.MIGRATING,
            source_node=source,
            dest_node=destination,
            old_memory_mb=turn.instance.memory_mb,
            old_vcpus=turn.instance.vcpus,
            old_root_gb=turn.instance.root_gb,
            new_memory_mb=sized.memory_mb,
            new_vcpus=sized.vcpus,
            new_root_gb=sized.root_gb,
            request_id=turn.audit.context.request_id,
        )

    def _migration(self, instance: Instance) -> Migration:
        migration = self._repository.open_migration(instance.uuid)
        if migration is None:
            raise Refused("not_resized", "there is no resize that could be confirmed or reverted")
        return migration
