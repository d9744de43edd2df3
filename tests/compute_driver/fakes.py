"""A hypervisor that exists in memory only, for tests of everything above the driver."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any

from agent_protocol.adverts import SealingKey
from agent_protocol.messages import Password
from agent_protocol.outcomes import Outcome
from compute_driver.agents import SEALED, AgentInfo, AgentMemory, AgentsInMemory
from compute_driver.driver import ComputeDriver, Instance, InstanceInfo, Progress
from compute_driver.files import InjectedFile
from compute_driver.sealing import SealedAnswer
from compute_driver.states import PowerState

AGENT = AgentInfo(
    "1.0", ("version", "password"), SEALED, bytes(range(32)), SealingKey("0123456789abcdef", bytes(32)), -3, "vm-uuid"
)


def _complete(cls: Any) -> Any:
    """Adds the verbs that a class lacks: they only record what they were called with."""

    def verb(name: str) -> Any:
        def method(self: FakeDriver, *arguments: Any, **named: Any) -> None:
            self._called(name, *(getattr(it, "uuid", it) for it in (*arguments, *named.values())))

        return method

    for name in cls.__abstractmethods__:
        setattr(cls, name, verb(name))
    return abc.update_abstractmethods(cls)


@_complete
class FakeDriver(ComputeDriver):
    """Records what it is asked to do and raises what it is told to.

    errors: by the name of a method or of a step of spawn. on_call: called with that name first. agent: what is
    remembered after each conversation with the agent. answer: to what is sealed by others.
    """

    STEPS = ("create_vm", "boot")

    def __init__(self, memory: AgentMemory | None = None) -> None:
        self.memory = AgentsInMemory() if memory is None else memory
        self.agent = AGENT
        self.answer = SealedAnswer(Outcome.SUCCEEDED, "", "the reply", "its box")
        self.calls: list[tuple[Any, ...]] = []
        self.errors: dict[str, BaseException] = {}
        self.on_call: Callable[[str], None] = lambda name: None

    def _called(self, name: str, *arguments: Any) -> None:
        self.calls.append((name, *arguments))
        self.on_call(name)
        if name in self.errors:
            raise self.errors[name]

    def init_host(self, host: str) -> None:
        self._called("init_host", host)

    def close(self) -> None:
        self._called("close")

    def spawn(
        self,
        instance: Instance,
        *,
        admin_password: Password | None = None,
        injected_files: Sequence[InjectedFile] = (),
        ssh_keys: Sequence[str] = (),
        progress: Progress,
        **wanted: Any,
    ) -> None:
        self._called("spawn", instance.uuid, admin_password, tuple(injected_files), tuple(ssh_keys))
        for step in self.STEPS:
            with progress.step(step):
                self._called(step)
        self._talked(instance)

    def _talked(self, instance: Instance) -> None:
        self.memory.remember(instance.uuid, self.agent)

    def reboot(self, instance: Instance, reboot_type: str) -> None:
        self._called("reboot", instance.uuid, reboot_type)

    def get_info(self, instance: Instance) -> InstanceInfo:
        self._called("get_info", instance.uuid)
        return InstanceInfo(PowerState.RUNNING, "vm-uuid")

    def set_admin_password(self, instance: Instance, new_pass: Password) -> None:
        self._called("set_admin_password", instance.uuid, new_pass)
        self._talked(instance)

    def inject_file(self, instance: Instance, file: InjectedFile) -> None:
        self._called("inject_file", instance.uuid, file)
        self._talked(instance)

    def add_ssh_keys(self, instance: Instance, keys: Sequence[str]) -> None:
        self._called("add_ssh_keys", instance.uuid, tuple(keys))
        self._talked(instance)

    def trust_agent(self, instance: Instance) -> AgentInfo:
        self._called("trust_agent", instance.uuid)
        self._talked(instance)
        return self.agent

    def send_sealed(self, instance: Instance, request_id: str, value: str, box: str) -> SealedAnswer:
        self._called("send_sealed", instance.uuid, request_id, value, box)
        return self.answer
