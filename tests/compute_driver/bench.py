"""A manager to try things on, and the table of its operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from agent_protocol.messages import Password
from compute_driver.context import RequestContext
from compute_driver.db.records import Action
from compute_driver.db.repository import Repository
from compute_driver.files import InjectedFile
from compute_driver.manager import ComputeManager

from .fakes import FakeDriver

CONTEXT = RequestContext("req-1", "ada")
PASSWORD = Password("a Secret-pass 1")
FILE = InjectedFile("/etc/motd", b"secret content")
SECRET = "hunter2-in-a-text"
DEADLINE = 10.0
KEYS = ("ssh-ed25519 AAAA",)
SEALED_VALUE = '{"name":"sealed","value":"{\\"v\\":2,\\"key_id\\":\\"0123456789abcdef\\",\\"box\\":\\"AAAA\\"}"}'


@dataclass
class Bench:
    """A manager with its database and hypervisor."""

    repository: Repository
    driver: FakeDriver
    manager: ComputeManager

    def instance(self, vm_state: str = "active", name: str = "web", host: str = "here", uuid: str = "uuid-web") -> str:
        """An instance as if made earlier; its uuid."""
        self.repository.create_instance(
            uuid=uuid, display_name=name, host=host, memory_mb=64, vcpus=1, root_gb=1, image_ref=""
        )
        self.repository.end_task(uuid, vm_state=vm_state, power_state=1 if vm_state == "active" else 4)
        return uuid

    def action(self) -> Action:
        """The newest action that is no step."""
        return [row for row in self.repository.list_actions() if row.step is None][-1]

    def create(self, **changes: Any) -> Any:
        wanted: dict[str, Any] = {"display_name": "web", "memory_mb": 64, "vcpus": 1, "root_gb": 1}
        return self.manager.build_and_run_instance(CONTEXT, admin_password=PASSWORD, **{**wanted, **changes})

    def send(self, action: str, value: str = SEALED_VALUE) -> Any:
        return self.manager.send_sealed(CONTEXT, "web", action, request_id="id", value=value, box="its frames")


@dataclass(frozen=True)
class Operation:
    """One operation on the instance `web`, and what it should look like from outside.

    before: vm_state that it needs, None when it makes the instance. after: (vm_state, power_state) on success.
    """

    action: str
    method: str
    task: str
    before: str | None
    after: tuple[str, int]
    run: Callable[[Bench], Any]

    def name(self) -> str:
        return f"{self.task}-{self.method}"

    def prepare(self, bench: Bench) -> None:
        if self.before:
            bench.instance(self.before)


OPERATIONS = [
    Operation("create", "spawn", "spawning", None, ("active", 1), lambda it: it.create()),
    Operation(
        "delete",
        "destroy",
        "deleting",
        "error",
        ("deleted", 4),
        lambda it: it.manager.terminate_instance(CONTEXT, "web"),
    ),
    Operation(
        "start",
        "power_on",
        "powering-on",
        "stopped",
        ("active", 1),
        lambda it: it.manager.start_instance(CONTEXT, "web"),
    ),
    Operation(
        "stop",
        "power_off",
        "powering-off",
        "active",
        ("stopped", 4),
        lambda it: it.manager.stop_instance(CONTEXT, "web"),
    ),
    Operation(
        "reboot",
        "reboot",
        "rebooting",
        "active",
        ("active", 1),
        lambda it: it.manager.reboot_instance(CONTEXT, "web", "SOFT"),
    ),
    Operation(
        "reboot",
        "reboot",
        "rebooting_hard",
        "active",
        ("active", 1),
        lambda it: it.manager.reboot_instance(CONTEXT, "web", "HARD"),
    ),
    Operation(
        "set_admin_password",
        "set_admin_password",
        "updating_password",
        "active",
        ("active", 1),
        lambda it: it.manager.set_admin_password(CONTEXT, "web", PASSWORD),
    ),
    Operation(
        "inject_file",
        "inject_file",
        "injecting_file",
        "active",
        ("active", 1),
        lambda it: it.manager.inject_file(CONTEXT, "web", FILE),
    ),
    Operation(
        "add_ssh_keys",
        "add_ssh_keys",
        "updating_ssh_keys",
        "active",
        ("active", 1),
        lambda it: it.manager.add_ssh_keys(CONTEXT, "web", KEYS),
    ),
    Operation(
        "trust_agent",
        "trust_agent",
        "trusting_agent",
        "active",
        ("active", 1),
        lambda it: it.manager.trust_agent(CONTEXT, "web"),
    ),
    Operation(
        "generate_admin_password",
        "send_sealed",
        "updating_password",
        "active",
        ("active", 1),
        lambda it: it.send("generate_admin_password"),
    ),
]

every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=Operation.name)
every_operation_on_an_instance = pytest.mark.parametrize("operation", OPERATIONS[1:], ids=Operation.name)
