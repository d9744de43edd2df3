"""The driver for XenServer and XCP-ng."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

from agent_protocol.messages import Password
from agent_protocol.outcomes import Refused, Unsuccessful

from ..agents import AgentInfo, AgentMemory
from ..driver import ComputeDriver, InjectedFile, Instance, InstanceInfo, Progress, SealedAnswer
from ..errors import InstanceNotFound
from ..states import PowerState
from . import vms
from .agent import GuestAgents
from .session import Connection, XenServer

LOG = logging.getLogger(__name__)


class XenServerDriver(ComputeDriver):
    """Guests of one XenServer pool.

    memory: where what is known of agents is kept. agent_policy: one of agent.POLICIES. agent_timeout: seconds that an
    agent has to answer an order; boot_timeout: from a guest's start to its agent's first answer.
    """

    def __init__(
        self,
        connection: Connection,
        memory: AgentMemory,
        *,
        agent_policy: str = "prefer-sealed",
        agent_timeout: float = 30.0,
        boot_timeout: float = 300.0,
    ) -> None:
        self._server = XenServer(connection)
        self._agents = GuestAgents(
            self._server, memory, policy=agent_policy, timeout=agent_timeout, boot_timeout=boot_timeout
        )

    def init_host(self, host: str) -> None:
        self._server.call("pool.get_all")
        LOG.info("host %s: XenServer at %s answers", host, self._server.connection.address)

    def close(self) -> None:
        self._server.close()

    def spawn(
        self,
        instance: Instance,
        *,
        admin_password: Password | None,
        injected_files: Sequence[InjectedFile],
        ssh_keys: Sequence[str],
        progress: Progress,
    ) -> None:
        try:
            with progress.step("create_vm"):
                vm = vms.create(self._server, instance)
            with progress.step("boot"):
                vms.start(self._server, vm)
                vm = vms.find(self._server, instance)
            with progress.step("wait_for_agent"):
                self._agents.await_boot(vm)
            if admin_password is not None:
                with progress.step("set_admin_password"):
                    self._agents.set_password(vm, admin_password)
            if ssh_keys:
                with progress.step("add_ssh_keys"):
                    self._agents.add_ssh_keys(vm, ssh_keys)
            for file in injected_files:
                with progress.step("inject_file"):
                    self._agents.put_file(vm, file)
        except BaseException:
            self._undo_spawn(instance, progress)
            raise

    def _undo_spawn(self, instance: Instance, progress: Progress) -> None:
        destroyed = False
        try:
            with progress.step("undo"):
                destroyed = True
                self.destroy(instance)
        except Unsuccessful as error:
            if not destroyed:
                # The step could not even be recorded; the guest is to go all the same.
                with suppress(Unsuccessful):
                    self.destroy(instance)
            # The error that led here is the one to report; what is left can be removed with a later destroy.
            LOG.error("instance %s: what spawn had made could not be removed: %s", instance.uuid, error.code)

    def destroy(self, instance: Instance) -> None:
        try:
            vm = vms.find(self._server, instance)
        except InstanceNotFound:
            return
        vms.destroy(self._server, vm)

    def power_on(self, instance: Instance) -> None:
        vm = vms.find(self._server, instance)
        if vm.power_state is not PowerState.RUNNING:
            vms.start(self._server, vm)

    def power_off(self, instance: Instance) -> None:
        vm = vms.find(self._server, instance)
        if vm.power_state is not PowerState.SHUTDOWN:
            vms.shut_down(self._server, vm)

    def reboot(self, instance: Instance, reboot_type: str) -> None:
        vm = self._running(instance)
        self._server.call(
            "VM.hard_reboot" if reboot_type == "HARD" else "VM.clean_reboot", vm.ref, timeout=vms.GUEST_TIMEOUT
        )

    def get_info(self, instance: Instance) -> InstanceInfo:
        vm = vms.find(self._server, instance)
        return InstanceInfo(vm.power_state, vm.uuid)

    def set_admin_password(self, instance: Instance, new_pass: Password) -> None:
        self._agents.set_password(self._running(instance), new_pass)

    def inject_file(self, instance: Instance, file: InjectedFile) -> None:
        self._agents.put_file(self._running(instance), file)

    def add_ssh_keys(self, instance: Instance, keys: Sequence[str]) -> None:
        self._agents.add_ssh_keys(self._running(instance), keys)

    def trust_agent(self, instance: Instance) -> AgentInfo:
        return self._agents.trust(self._running(instance))

    def send_sealed(self, instance: Instance, request_id: str, value: str, box: str) -> SealedAnswer:
        delivered = self._agents.deliver(self._running(instance), request_id, value, box)
        receipt, answer = delivered.receipt, delivered.answer
        return SealedAnswer(receipt.outcome, receipt.code, answer.value, answer.box)

    def _running(self, instance: Instance) -> vms.VM:
        vm = vms.find(self._server, instance)
        if vm.power_state is not PowerState.RUNNING:
            raise Refused("instance_not_running", f"the guest is {vm.power_state.word}, not running")
        return vm
