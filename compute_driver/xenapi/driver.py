"""The driver for XenServer and XCP-ng."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from agent_protocol.messages import Password
from agent_protocol.outcomes import Refused, Unsuccessful

from ..driver import AgentInfo, ComputeDriver, InjectedFile, Instance, InstanceInfo, Progress
from ..errors import InstanceNotFound
from ..states import PowerState
from . import vms
from .agent import GuestAgents
from .session import Connection, XenServer

LOG = logging.getLogger(__name__)


class XenServerDriver(ComputeDriver):
    """Guests of one XenServer pool.

    agent_timeout: seconds that an agent has to answer an order; boot_timeout: from a guest's start to its agent's
    first answer.
    """

    def __init__(self, connection: Connection, *, agent_timeout: float = 30.0, boot_timeout: float = 300.0) -> None:
        self._server = XenServer(connection)
        self._agents = GuestAgents(self._server, timeout=agent_timeout, boot_timeout=boot_timeout)

    def init_host(self, host: str) -> None:
        self._server.call("pool.get_all")
        LOG.info("host %s: XenServer at %s answers", host, self._server.connection.address)

    def close(self) -> None:
        self._server.close()

    def spawn(
        self,
        instance: Instance,
        *,
        admin_password: Password,
        injected_files: Sequence[InjectedFile],
        ssh_keys: Sequence[str],
        progress: Progress,
    ) -> AgentInfo:
        try:
            with progress.step("create_vm"):
                vm = vms.create(self._server, instance)
            with progress.step("boot"):
                vms.start(self._server, vm)
                vm = vms.find(self._server, instance)
            with progress.step("wait_for_agent"):
                agent = self._agents.await_boot(vm)
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
        return agent

    def _undo_spawn(self, instance: Instance, progress: Progress) -> None:
        try:
            with progress.step("undo"):
                self.destroy(instance)
        except Unsuccessful as error:
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
        self._server.call("VM.hard_reboot" if reboot_type == "HARD" else "VM.clean_reboot", vm.ref)

    def get_info(self, instance: Instance) -> InstanceInfo:
        vm = vms.find(self._server, instance)
        return InstanceInfo(vm.power_state, vm.uuid)

    def set_admin_password(self, instance: Instance, new_pass: Password) -> None:
        self._agents.set_password(self._running(instance), new_pass)

    def inject_file(self, instance: Instance, file: InjectedFile) -> None:
        self._agents.put_file(self._running(instance), file)

    def _running(self, instance: Instance) -> vms.VM:
        vm = vms.find(self._server, instance)
        if vm.power_state is not PowerState.RUNNING:
            raise Refused("instance_not_running", f"the guest is {vm.power_state.word}, not running")
        return vm
