"""What the bus calls: checks the instance's state, takes its turn, records, calls the driver, records the outcome."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from agent_protocol.messages import Password, has_control_characters
from agent_protocol.outcomes import Outcome, Refused, Unknown, Unsuccessful, Unsupported

from .agents import LEGACY, AgentInfo
from .audit import Audit, internal_error
from .context import RequestContext
from .db.records import Action, Agent, Instance
from .db.repository import Repository
from .driver import ComputeDriver
from .errors import DatabaseUnavailable, InstanceNotFound
from .files import InjectedFile
from .images import Image, ImageService
from .memory import RepositoryMemory
from .resources import NodeState
from .sealing import SealedAnswer, SealedFailure, check_sealed
from .states import PowerState, TaskState, VmState

LOG = logging.getLogger(__name__)

MAX_NAME = 255
"""Characters in an instance's display name (Nova's limit)."""

MAX_SIZE = 2**31 - 1
"""Most of anything that an instance can have: what the database's columns hold."""


LEGACY_WARNING = "the agent speaks only the old protocol, which hides nothing from those who can read XenStore"

SEALED_ACTIONS = {
    "set_admin_password": TaskState.UPDATING_PASSWORD,
    "generate_admin_password": TaskState.UPDATING_PASSWORD,
    "inject_file": TaskState.INJECTING_FILE,
    "add_ssh_keys": TaskState.UPDATING_SSH_KEYS,
}
"""What a caller may say that it has sealed, and the task state meanwhile."""


@dataclass
class _Turn:
    """One task on one instance. `values`: columns to set when it succeeds."""

    instance: Instance
    audit: Audit
    values: dict[str, Any] = field(default_factory=dict)


class ComputeManager:
    """The instances of one host. `target` is an instance's uuid or its unique display name, everywhere."""

    def __init__(
        self, repository: Repository, driver: ComputeDriver, host: str, images: ImageService | None = None
    ) -> None:
        self._images = images
        self._repository = repository
        self._driver = driver
        self._host = host

    def init_host(self) -> None:
        """Get ready. A hypervisor that cannot be used now is logged: each operation then says so itself."""
        try:
            self._driver.init_host(self._host)
        except Unsuccessful as error:
            LOG.error("host %s: %s", self._host, error)

    def manage_image_cache(self, unused_for: float) -> None:
        """Have images removed that no guest was made from for so many seconds. What goes wrong is logged."""
        try:
            for image in self._driver.manage_image_cache(unused_for=unused_for):
                LOG.info("host %s: image %s was not used for long, and is not cached any more", self._host, image)
        except Unsuccessful as error:
            LOG.warning("host %s: cached images could not be looked through: %s", self._host, error)

    def close_unfinished(self) -> None:
        """End what an earlier run of this host's service left in flight: nobody knows how it went.

        Call it only when no other service of this host runs.
        """
        now = datetime.now(timezone.utc)
        for action in self._repository.unfinished_actions(self._host):
            self._repository.finish_action(
                action.id,
                outcome=Outcome.UNKNOWN,
                code="service_restarted",
                message="the service ended while this was in flight",
                seconds=max(0.0, (now - action.started_at).total_seconds()),
            )
            LOG.warning("%s %s: unknown (service_restarted)", action.request_id, action.action)
        for instance in self._repository.list_instances(host=self._host):
            if instance.task_state is not None:
                half_made = instance.vm_state == VmState.BUILDING
                self._repository.end_task(instance.uuid, **({"vm_state": VmState.ERROR} if half_made else {}))

    # Operations

    def build_and_run_instance(
        self,
        context: RequestContext,
        *,
        display_name: str,
        memory_mb: int,
        vcpus: int,
        root_gb: int,
        image_ref: str = "",
        admin_password: Password | None,
        injected_files: Sequence[InjectedFile] = (),
        ssh_keys: Sequence[str] = (),
    ) -> Instance:
        """Create an instance and boot it (action `create`). Leaves one that works, or one in vm_state `error`.

        image_ref: what the image service knows the root disk's content by; empty for an empty disk.
        """
        identity = str(uuid.uuid4())
        audit = Audit(self._repository, context, host=self._host, action="create", target=display_name[:MAX_NAME])
        audit.instance_uuid = identity
        with audit.action():
            _check_new(display_name, memory_mb, vcpus, root_gb)
            image = self._image(image_ref) if image_ref else None
            instance = self._repository.create_instance(
                uuid=identity,
                display_name=display_name,
                host=self._host,
                memory_mb=memory_mb,
                vcpus=vcpus,
                root_gb=root_gb,
                image_ref=image_ref,
            )
            turn = _Turn(instance, audit)
            with self._task_end(turn, {"vm_state": VmState.ERROR}):
                self._driver.spawn(
                    instance,
                    image=image,
                    admin_password=admin_password,
                    injected_files=injected_files,
                    ssh_keys=ssh_keys,
                    progress=audit,
                )
                self._warn_of_legacy(turn)
                turn.values.update(
                    vm_state=VmState.ACTIVE, power_state=PowerState.RUNNING, launched_at=datetime.now(timezone.utc)
                )
        return self._repository.get_instance(identity)

    def terminate_instance(self, context: RequestContext, target: str) -> None:
        """Destroy the guest and its disks, and mark the instance as deleted (action `delete`)."""
        with self._turn(context, target, "delete", TaskState.DELETING) as turn:
            self._driver.destroy(turn.instance)
            self._repository.delete_instance(turn.instance.uuid)

    def start_instance(self, context: RequestContext, target: str) -> None:
        """Boot an instance that was stopped, or shut itself down (action `start`)."""
        with self._turn(context, target, "start", TaskState.POWERING_ON, {VmState.STOPPED, VmState.ACTIVE}) as turn:
            self._driver.power_on(turn.instance)
            turn.values.update(vm_state=VmState.ACTIVE, power_state=PowerState.RUNNING)

    def stop_instance(self, context: RequestContext, target: str) -> None:
        """Shut an instance down (action `stop`)."""
        with self._turn(context, target, "stop", TaskState.POWERING_OFF, {VmState.ACTIVE}) as turn:
            self._driver.power_off(turn.instance)
            turn.values.update(vm_state=VmState.STOPPED, power_state=PowerState.SHUTDOWN)

    def reboot_instance(self, context: RequestContext, target: str, reboot_type: str) -> None:
        """Restart an instance (action `reboot`). reboot_type: `SOFT` or `HARD`."""
        if reboot_type not in ("SOFT", "HARD"):
            raise Refused("bad_reboot_type", "a reboot is SOFT or HARD")
        task = TaskState.REBOOTING_HARD if reboot_type == "HARD" else TaskState.REBOOTING
        with self._turn(context, target, "reboot", task, {VmState.ACTIVE}) as turn:
            self._driver.reboot(turn.instance, reboot_type)
            turn.values.update(power_state=PowerState.RUNNING)

    def set_admin_password(self, context: RequestContext, target: str, new_pass: Password) -> None:
        """Set the administrator's password in the running guest (action `set_admin_password`)."""
        task = TaskState.UPDATING_PASSWORD
        with self._turn(context, target, "set_admin_password", task, {VmState.ACTIVE}) as turn:
            self._driver.set_admin_password(turn.instance, new_pass)
            self._warn_of_legacy(turn)

    def inject_file(self, context: RequestContext, target: str, file: InjectedFile) -> None:
        """Put a file into the running guest (action `inject_file`)."""
        with self._turn(context, target, "inject_file", TaskState.INJECTING_FILE, {VmState.ACTIVE}) as turn:
            self._driver.inject_file(turn.instance, file)
            self._warn_of_legacy(turn)

    def add_ssh_keys(self, context: RequestContext, target: str, keys: Sequence[str]) -> None:
        """Add SSH keys to the administrator's in the running guest (action `add_ssh_keys`)."""
        with self._turn(context, target, "add_ssh_keys", TaskState.UPDATING_SSH_KEYS, {VmState.ACTIVE}) as turn:
            self._driver.add_ssh_keys(turn.instance, keys)
            self._warn_of_legacy(turn)

    def send_sealed(
        self, context: RequestContext, target: str, action: str, *, request_id: str, value: str, box: str
    ) -> SealedAnswer:
        """Carry a request that its caller sealed to the guest's agent, so that nobody here can read it.

        action: what it is, as the caller says; one of SEALED_ACTIONS. Raises SealedFailure when the agent signed that
        it did not succeed.
        """
        if action not in SEALED_ACTIONS:
            raise Refused("bad_action", f"a sealed request is one of {', '.join(SEALED_ACTIONS)}")
        check_sealed(value)
        with self._turn(context, target, action, SEALED_ACTIONS[action], {VmState.ACTIVE}) as turn:
            answer = self._driver.send_sealed(turn.instance, request_id, value, box)
            if answer.outcome is not Outcome.SUCCEEDED:
                raise SealedFailure(answer)
        return answer

    def trust_agent(self, context: RequestContext, target: str) -> AgentInfo:
        """Pin the agent that is in the guest now (action `trust_agent`)."""
        with self._turn(context, target, "trust_agent", TaskState.TRUSTING_AGENT, {VmState.ACTIVE}) as turn:
            return self._driver.trust_agent(turn.instance)

    # Questions

    def get_instance(self, target: str) -> tuple[Instance, Agent | None, str]:
        """An instance and its agent as recorded, and its power state as the hypervisor says now, in Nova's words.

        When the hypervisor cannot tell, the word is `unknown`.
        """
        instance = self._repository.find_instance(target)
        agent = self._repository.get_agent(instance.uuid)
        try:
            return instance, agent, self._driver.get_info(instance).state.word
        except Unsuccessful as error:
            LOG.warning("instance %s: its power state is unknown: %s", instance.uuid, error.code)
            return instance, agent, "unknown"

    def get_agent(self, context: RequestContext, target: str, action: str | None) -> AgentInfo | None:
        """What is remembered of the instance's agent, None when it was never met.

        action: what its key is asked for; an instance that cannot be found is recorded as the end of that.
        """
        try:
            instance = self._repository.find_instance(target)
        except Refused as error:
            if action not in SEALED_ACTIONS:
                raise
            with Audit(self._repository, context, host=self._host, action=action, target=target[:MAX_NAME]).action():
                raise error
        return RepositoryMemory(self._repository).recall(instance.uuid)

    def list_instances(self) -> list[Instance]:
        """All instances that were not deleted, as recorded."""
        return self._repository.list_instances(host=self._host)

    def list_nodes(self) -> list[dict[str, Any]]:
        """The nodes of the hypervisor, what each has and uses, and whether it can be used.

        What a node that does not answer has is left out of its description.
        """
        return [self._describe_node(node) for node in self._driver.get_available_nodes()]

    def check_nodes(self, names: Sequence[str]) -> list[NodeState]:
        """Whether these nodes can be used, or all when none is named. Refused with `node_not_found`."""
        return [self._driver.check_node(node) for node in names or self._driver.get_available_nodes()]

    def _describe_node(self, node: str) -> dict[str, Any]:
        state = self._driver.check_node(node).to_dict()
        try:
            return {**state, **vars(self._driver.get_available_resource(node))}
        except Unsuccessful as error:
            LOG.warning("node %s: its resources are unknown: %s", node, error.code)
            return state

    def list_actions(self, target: str | None) -> list[Action]:
        """The newest actions and steps, oldest first: of all instances, or of one, which may be deleted by now.

        target: as everywhere; a deleted instance is known by its uuid only.
        """
        if target is None:
            return self._repository.list_actions()
        try:
            identity = self._repository.find_instance(target).uuid
        except InstanceNotFound:
            actions = self._repository.list_actions(instance_uuid=target)
            if not actions:
                raise
            return actions
        return self._repository.list_actions(instance_uuid=identity)

    # How an operation runs

    @contextmanager
    def _turn(
        self,
        context: RequestContext,
        target: str,
        action: str,
        task_state: TaskState,
        vm_states: Collection[VmState] | None = None,
    ) -> Iterator[_Turn]:
        audit = Audit(self._repository, context, host=self._host, action=action, target=target[:MAX_NAME])
        # Looked up first, so that the row names the instance even if this process does not live to its end.
        with suppress(Refused):
            audit.instance_uuid = self._repository.find_instance(target).uuid
        with audit.action():
            identity = audit.instance_uuid or self._repository.find_instance(target).uuid
            turn = _Turn(self._repository.begin_task(identity, task_state, vm_states=vm_states), audit)
            with self._task_end(turn):
                yield turn

    @contextmanager
    def _task_end(self, turn: _Turn, on_error: dict[str, Any] | None = None) -> Iterator[None]:
        """Gives the turn back, whatever happens in the block. on_error: columns to set when it fails."""
        try:
            yield
            self._give_back(turn.instance, turn.values)
        except DatabaseUnavailable as error:
            # Within the block the hypervisor was asked already: this is not the harmless kind any more.
            unknown = Unknown("not_recorded", f"it may have happened, but could not be recorded: {error}")
            self._record_failure(turn.instance, unknown, on_error or {})
            raise unknown from None
        except BaseException as error:
            self._record_failure(turn.instance, error, on_error or {})
            raise

    def _image(self, image_ref: str) -> Image:
        if self._images is None:
            raise Unsupported("no_image_service", "this service has no image service")
        return self._images.get(image_ref)

    def _warn_of_legacy(self, turn: _Turn) -> None:
        agent = self._repository.get_agent(turn.instance.uuid)
        if agent is not None and agent.protocol == LEGACY:
            turn.audit.warning = ("legacy_protocol", LEGACY_WARNING)

    def _record_failure(self, instance: Instance, error: BaseException, on_error: dict[str, Any]) -> None:
        if not isinstance(error, Unsuccessful):
            error = internal_error(error)
        try:
            self._give_back(instance, on_error)
            if on_error:
                self._repository.record_fault(instance.uuid, code=error.code, message=error.message)
        except DatabaseUnavailable as unrecorded:
            LOG.error("instance %s keeps its task: %s", instance.uuid, unrecorded)

    def _give_back(self, instance: Instance, values: dict[str, Any]) -> None:
        try:
            self._repository.end_task(instance.uuid, **values)
        except InstanceNotFound:
            # It was deleted: there is no turn any more.
            return


def _check_new(display_name: str, memory_mb: int, vcpus: int, root_gb: int) -> None:
    if not 1 <= len(display_name) <= MAX_NAME or has_control_characters(display_name):
        raise Refused("bad_name", f"a name has 1 to {MAX_NAME} characters, none of them control characters")
    for name, value, least in (("memory_mb", memory_mb, 16), ("vcpus", vcpus, 1), ("root_gb", root_gb, 1)):
        if type(value) is not int or not least <= value <= MAX_SIZE:
            raise Refused("bad_size", f"{name} must be a whole number from {least} to {MAX_SIZE}")
