"""A hypervisor of which only the agent in its guests is real: keys, boxes, signatures, and the driver's side of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent_protocol.messages import Password
from compute_driver.agents import AgentInfo, AgentMemory
from compute_driver.driver import Instance
from compute_driver.files import InjectedFile
from compute_driver.sealing import SealedAnswer
from compute_driver.states import PowerState
from compute_driver.xenapi.agents.agent import GuestAgents
from compute_driver.xenapi.guests.vms import VM

from .fakes import FakeDriver
from .sealed_agent import SealedAgent
from .xenapi.plugin import Plugin


class SealedDriver(FakeDriver):
    """guest: the agent of every instance; plugin: what stands before it. calls: as in FakeDriver."""

    def __init__(self, memory: AgentMemory, *, policy: str = "prefer-sealed") -> None:
        super().__init__(memory)
        self.guest = SealedAgent()
        self.plugin = Plugin(agent=self.guest)
        server: Any = self.plugin
        self._agents = GuestAgents(server, memory, policy=policy, timeout=10.0, boot_timeout=10.0)

    def _vm(self, instance: Instance) -> VM:
        return VM("OpaqueRef:vm", self.guest.vm, instance.uuid, PowerState.RUNNING, "OpaqueRef:host", ())

    def _talked(self, instance: Instance) -> None:
        """What the agent is remembered by comes from the conversation."""

    def spawn(self, instance: Instance, **wanted: Any) -> None:
        super().spawn(instance, **wanted)
        self._agents.await_boot(self._vm(instance))

    def set_admin_password(self, instance: Instance, new_pass: Password) -> None:
        super().set_admin_password(instance, new_pass)
        self._agents.set_password(self._vm(instance), new_pass)

    def inject_file(self, instance: Instance, file: InjectedFile) -> None:
        super().inject_file(instance, file)
        self._agents.put_file(self._vm(instance), file)

    def add_ssh_keys(self, instance: Instance, keys: Sequence[str]) -> None:
        super().add_ssh_keys(instance, keys)
        self._agents.add_ssh_keys(self._vm(instance), keys)

    def trust_agent(self, instance: Instance) -> AgentInfo:
        super().trust_agent(instance)
        return self._agents.trust(self._vm(instance))

    def send_sealed(self, instance: Instance, request_id: str, value: str, box: str) -> SealedAnswer:
        super().send_sealed(instance, request_id, value, box)
        delivered = self._agents.deliver(self._vm(instance), request_id, value, box)
        receipt, answer = delivered.receipt, delivered.answer
        return SealedAnswer(receipt.outcome, receipt.code, answer.value, answer.box)
