"""A hypervisor in memory of which only the agent in its guests is real: keys, boxes, signatures, the driver's side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent_protocol.messages import Password
from compute_driver.agents import AgentInfo, AgentMemory
from compute_driver.driver import Instance
from compute_driver.fake.driver import FakeDriver
from compute_driver.files import InjectedFile
from compute_driver.sealing import SealedAnswer
from compute_driver.states import PowerState
from compute_driver.xenapi.agents.agent import GuestAgents
from compute_driver.xenapi.guests.vms import VM

from .sealed_agent import SealedAgent
from .xenapi.plugin import Plugin


class SealedDriver(FakeDriver):
    """agent: of every instance; plugin: what stands before it.

    The fake's own agents are known to nobody outside: its memory is not the service's.
    """

    def __init__(self, memory: AgentMemory, *, policy: str = "prefer-sealed") -> None:
        super().__init__()
        self.agent = SealedAgent()
        self.plugin = Plugin(agent=self.agent)
        server: Any = self.plugin
        self._agents = GuestAgents(server, memory, policy=policy, timeout=10.0, boot_timeout=10.0)

    def _vm(self, instance: Instance) -> VM:
        return VM("OpaqueRef:vm", self.agent.vm, instance.uuid, PowerState.RUNNING, "OpaqueRef:host", ())

    def spawn(self, instance: Instance, **wanted: Any) -> None:
        super().spawn(instance, **wanted)
        self._agents.await_boot(self._vm(instance))

    # In place of what the fake does about agents; noted as its verbs are.

    def set_admin_password(self, instance: Instance, new_pass: Password) -> None:
        with self.steering.verb("set_admin_password", {"instance": instance, "new_pass": new_pass}):
            self._agents.set_password(self._vm(instance), new_pass)

    def inject_file(self, instance: Instance, file: InjectedFile) -> None:
        with self.steering.verb("inject_file", {"instance": instance, "file": file}):
            self._agents.put_file(self._vm(instance), file)

    def add_ssh_keys(self, instance: Instance, keys: Sequence[str]) -> None:
        with self.steering.verb("add_ssh_keys", {"instance": instance, "keys": keys}):
            self._agents.add_ssh_keys(self._vm(instance), keys)

    def trust_agent(self, instance: Instance) -> AgentInfo:
        with self.steering.verb("trust_agent", {"instance": instance}):
            return self._agents.trust(self._vm(instance))

    def send_sealed(self, instance: Instance, request_id: str, value: str, box: str) -> SealedAnswer:
        sent = {"instance": instance, "request_id": request_id, "value": value, "box": box}
        with self.steering.verb("send_sealed", sent):
            delivered = self._agents.deliver(self._vm(instance), request_id, value, box)
            receipt, answer = delivered.receipt, delivered.answer
            return SealedAnswer(receipt.outcome, receipt.code, answer.value, answer.box)
