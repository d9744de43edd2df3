"""A hypervisor that exists in memory only, for tests of everything above the driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agent_protocol.messages import Password
from compute_driver.driver import AgentInfo, ComputeDriver, InjectedFile, Instance, InstanceInfo, Progress
from compute_driver.states import PowerState


class FakeDriver(ComputeDriver):
    """Records what it is asked to do and raises what it is told to.

    errors: by the name of a method or of a step of spawn. on_call: called with that name first.
    """

    STEPS = ("create_vm", "boot")

    def __init__(self) -> None:
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
        admin_password: Password,
        injected_files: Sequence[InjectedFile],
        ssh_keys: Sequence[str],
        progress: Progress,
    ) -> AgentInfo:
        self._called("spawn", instance.uuid, admin_password, tuple(injected_files), tuple(ssh_keys))
        for step in self.STEPS:
            with progress.step(step):
                self._called(step)
        return AgentInfo("1.0", ("version", "password"), "legacy")

    def destroy(self, instance: Instance) -> None:
        self._called("destroy", instance.uuid)

    def power_on(self, instance: Instance) -> None:
        self._called("power_on", instance.uuid)

    def power_off(self, instance: Instance) -> None:
        self._called("power_off", instance.uuid)

    def reboot(self, instance: Instance, reboot_type: str) -> None:
        self._called("reboot", instance.uuid, reboot_type)

    def get_info(self, instance: Instance) -> InstanceInfo:
        self._called("get_info", instance.uuid)
        return InstanceInfo(PowerState.RUNNING, "vm-uuid")

    def set_admin_password(self, instance: Instance, new_pass: Password) -> None:
        self._called("set_admin_password", instance.uuid, new_pass)

    def inject_file(self, instance: Instance, file: InjectedFile) -> None:
        self._called("inject_file", instance.uuid, file)
