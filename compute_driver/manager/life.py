"""Instances come and go: create, delete, rebuild, rescue."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from agent_protocol.messages import Password, has_control_characters
from agent_protocol.outcomes import Refused, Unsuccessful, Unsupported

from ..agents import LEGACY
from ..context import RequestContext
from ..db.records import Instance, Lease
from ..errors import DatabaseUnavailable
from ..fencing import LeaseLost
from ..files import InjectedFile
from ..images import Image
from ..network import Interface
from ..states import PowerState, VmState
from ..volumes import Volume
from . import operations
from .turns import MAX_NAME, Operations, Turn

LOG = logging.getLogger(__name__)

MAX_SIZE = 2**31 - 1
"""Most of anything that an instance can have: what the database's columns hold."""

LEGACY_WARNING = "the agent speaks only the old protocol, which hides nothing from those who can read XenStore"

RUNNING = {"vm_state": VmState.ACTIVE, "power_state": PowerState.RUNNING}
"""Columns of an instance whose guest runs."""

STOPPED = {"vm_state": VmState.STOPPED, "power_state": PowerState.SHUTDOWN, "node": ""}
"""Of one whose guest is off."""


class LifeOperations(Operations):
    """`target` is an instance's uuid or its unique display name, here and in all other operations."""

    def build_and_run_instance(
        self,
        context: RequestContext,
        *,
        display_name: str,
        memory_mb: int,
        vcpus: int,
        root_gb: int,
        image_ref: str = "",
        admin_password: Password | None = None,
        injected_files: Sequence[InjectedFile] = (),
        ssh_keys: Sequence[str] = (),
        interfaces: Sequence[Interface] | None = None,
        volumes: Sequence[Volume] = (),
        config_drive: Mapping[str, bytes] | None = None,
        metadata: Mapping[str, str] | None = None,
        node: str | None = None,
        power_on: bool = True,
        instance_uuid: str | None = None,
    ) -> Instance:
        """Create an instance and boot it (action `create`). Leaves one that works, or one in vm_state `error`.

        image_ref: what the image service knows the root disk's content by; empty for an empty disk. instance_uuid: for
        a caller who does not wait for the answer; a fresh one by default. The rest is as of ComputeDriver.spawn.
        """
        identity = str(uuid.uuid4()) if instance_uuid is None else _uuid(instance_uuid)
        audit = self._audit(context, operations.CREATE, display_name)
        audit.instance_uuid = identity
        image: Image | None = None

        def take(row: int, lease: Lease | None) -> Instance:
            nonlocal image
            _check_new(display_name, memory_mb, vcpus, root_gb)
            image = self._image(image_ref) if image_ref else None
            return self._repository.create_instance(
                uuid=identity,
                display_name=display_name,
                host=self.host,
                memory_mb=memory_mb,
                vcpus=vcpus,
                root_gb=root_gb,
                image_ref=image_ref,
                instance_metadata=dict(metadata or {}),
                action=row,
                lease=lease,
            )

        with self._carried_out(audit, take, {"vm_state": VmState.ERROR}) as turn:
            self._keep(self._repository.save_interfaces, identity, interfaces or ())
            for volume in volumes:
                self._keep(self._repository.save_volume, identity, volume, volume.device or "")
            self._driver.spawn(
                turn.instance,
                image=image,
                admin_password=admin_password,
                injected_files=injected_files,
                ssh_keys=ssh_keys,
                interfaces=interfaces,
                volumes=volumes,
                config_drive=config_drive,
                metadata=metadata,
                node=node,
                power_on=power_on,
                progress=audit,
            )
            self._warn_of_legacy(turn)
            turn.values = {**(RUNNING if power_on else STOPPED), **self._place(turn.instance)}
            turn.values["launched_at"] = datetime.now(timezone.utc)
        return turn.instance

    def terminate_instance(self, context: RequestContext, target: str) -> None:
        """Destroy the guest and its disks, and mark the instance as deleted (action `delete`); volumes stay."""
        with self._turn(context, target, operations.DELETE) as turn:
            self._driver.destroy(turn.instance, volumes=self._volumes(turn.instance))
            turn.deleted = True

    def rebuild_instance(
        self,
        context: RequestContext,
        target: str,
        *,
        image_ref: str,
        admin_password: Password | None = None,
        injected_files: Sequence[InjectedFile] = (),
        ssh_keys: Sequence[str] = (),
    ) -> None:
        """Give the instance a new root disk (action `rebuild`). When it fails, it is in vm_state `error`."""
        with self._turn(context, target, operations.REBUILD) as turn:
            image = self._image(image_ref) if image_ref else None
            turn.on_error = {"vm_state": VmState.ERROR}
            self._driver.rebuild(
                turn.instance,
                image=image,
                admin_password=admin_password,
                injected_files=injected_files,
                ssh_keys=ssh_keys,
                interfaces=self._repository.list_interfaces(turn.instance.uuid) or None,
                progress=turn.audit,
            )
            self._warn_of_legacy(turn)
            turn.values = {**RUNNING, **self._place(turn.instance), "image_ref": image_ref}

    def rescue_instance(
        self, context: RequestContext, target: str, *, image_ref: str, rescue_password: Password | None
    ) -> None:
        """Boot the instance from another image, with its own disk beside it (action `rescue`)."""
        with self._turn(context, target, operations.RESCUE) as turn:
            self._driver.rescue(
                turn.instance, image=self._image(image_ref), rescue_password=rescue_password, progress=turn.audit
            )
            turn.values = {**RUNNING, **self._place(turn.instance), "vm_state": VmState.RESCUED}

    def unrescue_instance(self, context: RequestContext, target: str) -> None:
        """Boot it from its own disk again (action `unrescue`)."""
        with self._turn(context, target, operations.UNRESCUE) as turn:
            self._driver.unrescue(turn.instance)
            turn.values = {**RUNNING, **self._place(turn.instance)}

    def _image(self, image_ref: str) -> Image:
        if self._images is None:
            raise Unsupported("no_image_service", "this service has no image service")
        return self._images.get(image_ref)

    def _volumes(self, instance: Instance) -> list[Volume]:
        return [attached.volume for attached in self._repository.list_volumes(instance.uuid)]

    def _place(self, instance: Instance) -> dict[str, Any]:
        """Column of an instance that is where its guest is. None when that cannot be told now: it is seen later.

        What was ordered has happened by then, so nothing that goes wrong here is the order's end.
        """
        try:
            return {"node": self._driver.get_info(instance).node}
        except LeaseLost:
            raise
        except Unsuccessful as error:
            LOG.warning("instance %s: its node is unknown: %s", instance.uuid, error.code)
            return {}

    def _warn_of_legacy(self, turn: Turn) -> None:
        try:
            agent = self._keep(self._repository.get_agent, turn.instance.uuid)
        except DatabaseUnavailable:
            # It went well all the same, and that is what is to be recorded.
            return
        if agent is not None and agent.protocol == LEGACY:
            turn.audit.warning = ("legacy_protocol", LEGACY_WARNING)


def _uuid(untrusted: str) -> str:
    try:
        if str(uuid.UUID(untrusted)) == untrusted:
            return untrusted
    except ValueError:
        pass
    raise Refused("bad_uuid", "an instance's uuid is a UUID in lower case")


def check_size(memory_mb: int, vcpus: int, root_gb: int) -> None:
    """Refused unless an instance can have this: MiB, processors, GiB."""
    for name, value, least in (("memory_mb", memory_mb, 16), ("vcpus", vcpus, 1), ("root_gb", root_gb, 1)):
        if type(value) is not int or not least <= value <= MAX_SIZE:
            raise Refused("bad_size", f"{name} must be a whole number from {least} to {MAX_SIZE}")


def _check_new(display_name: str, memory_mb: int, vcpus: int, root_gb: int) -> None:
    is_text = display_name.encode("utf-8", "replace").decode("utf-8") == display_name
    if not 1 <= len(display_name) <= MAX_NAME or has_control_characters(display_name) or not is_text:
        raise Refused("bad_name", f"a name has 1 to {MAX_NAME} characters, none of them control characters")
    check_size(memory_mb, vcpus, root_gb)
