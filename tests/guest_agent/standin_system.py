"""A system that is none of Linux's, for tests of what all systems have in common."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from agent_protocol.messages import Password
from agent_protocol.outcomes import Refused
from guest_agent.configuration import Configuration
from guest_agent.network.apply import Applied
from guest_agent.network.data import NetworkData
from guest_agent.system.accounts import Owner, PasswordHash, User, no_such_user
from guest_agent.system.authorized_keys import AuthorizedKey
from guest_agent.system.base import System
from guest_agent.system.cloud_init import CloudInit
from guest_agent.system.distributions import Distribution
from guest_agent.system.hostname import HostName


class StandinSystem(System):
    """It keeps everything in memory, and notes what it was asked for.

    configuration: what it reads. state: the agent's own files. done: the calls that change something.
    """

    root = "C:\\"
    administrator = "Administrator"
    configuration_name = "C:\\ProgramData\\xenward\\agent.conf"
    lacks = frozenset({"freeze", "thaw", "agent_update", "agentupdate"})

    def __init__(self) -> None:
        self.configuration: bytes | None = None
        self.state: dict[str, bytes] = {}
        self.done: list[tuple[Any, ...]] = []
        self.reboots = False

    def hold(self) -> None:
        self.done.append(("hold",))

    def prepare(self, context: object) -> None:
        self.done.append(("prepare",))

    def read_configuration(self) -> bytes | None:
        return self.configuration

    def read_state(self, name: str) -> bytes | None:
        return self.state.get(name)

    def write_state(self, name: str, content: bytes) -> None:
        self.state[name] = content

    def boot_id(self) -> str:
        return "boot-1"

    def release(self) -> Mapping[str, str]:
        return {"ID": "windows"}

    def distribution(self) -> Distribution:
        return Distribution("windows", "10.0", None)

    def kernel(self) -> str:
        return "10.0.20348"

    def cloud_init(self) -> CloudInit:
        return CloudInit()

    def reboot_pending(self) -> bool:
        return self.reboots

    def hostname(self) -> str:
        return "WEB-1"

    def set_hostname(self, name: HostName) -> None:
        self.done.append(("set_hostname", name.value))

    def interface_names(self) -> Mapping[str, Sequence[str]]:
        return {}

    def addresses(self) -> Sequence[Mapping[str, str]]:
        return []

    def network_stack_name(self, configuration: Configuration) -> str:
        return "windows"

    def apply_network(self, data: NetworkData, configuration: Configuration) -> Applied:
        self.done.append(("apply_network", data.interfaces[0].mac))
        return Applied(("the registry",), 1)

    def find_user(self, name: str) -> User:
        if name != self.administrator:
            raise no_such_user(name)
        return User(name, Owner(0, 0), "C:\\Users\\Administrator")

    def set_password(self, user: str, password: Password | PasswordHash, *, expire: bool = False) -> None:
        self.done.append(("set_password", user, password.value))

    def put_file(self, path: str, content: bytes, *, mode: int | None, owner: tuple[str, str | None] | None) -> None:
        if not path.startswith("C:\\"):
            raise Refused("bad_path", "the path must begin with a drive")
        self.done.append(("put_file", path, content.decode(), mode, owner))

    def change_ssh_keys(
        self, user: str, add: Sequence[AuthorizedKey], remove: Collection[AuthorizedKey]
    ) -> tuple[int, int]:
        self.done.append(("change_ssh_keys", user))
        return len(add), len(remove)

    def activate(self, server: str | None) -> str:
        self.done.append(("activate", server))
        return "activated"
