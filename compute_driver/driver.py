"""The contract between the compute manager and a hypervisor, after Nova's ComputeDriver: same verbs, same meanings.

A driver knows no bus and no database, and runs in native and in green threads alike. Every method blocks until
its effect was seen to happen, and raises one of the errors of agent_protocol.outcomes otherwise.
"""

from __future__ import annotations

import abc
import base64
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent_protocol.messages import Password
from agent_protocol.outcomes import Outcome, Refused

from .agents import AgentInfo
from .states import PowerState


class Instance(Protocol):
    """What a driver needs to know of an instance."""

    @property
    def uuid(self) -> str:
        """Identifies the instance for ever."""

    @property
    def display_name(self) -> str:
        """The operator's name for it; need not be unique."""

    @property
    def memory_mb(self) -> int:
        """Memory in MiB."""

    @property
    def vcpus(self) -> int:
        """Virtual processors."""

    @property
    def root_gb(self) -> int:
        """Size of the root disk in GiB."""


@dataclass(frozen=True)
class InjectedFile:
    """A file for a guest.

    mode: permission bits; None keeps those of the file that is replaced, and is 0600 for a new one.
    owner: `user` or `user:group` as the guest knows them; None keeps, or is the superuser.
    """

    path: str
    content: bytes = field(repr=False)
    mode: int | None = None
    owner: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain data, the content in base64."""
        return {**vars(self), "content": base64.b64encode(self.content).decode("ascii")}

    def to_command(self) -> str:
        """The value of an agent's command `file_put`."""
        members = {"path": self.path, "content": base64.b64encode(self.content).decode("ascii")}
        if self.mode is not None:
            members["mode"] = f"{self.mode:04o}"
        if self.owner is not None:
            members["owner"] = self.owner
        return json.dumps(members, separators=(",", ":"))

    @classmethod
    def from_dict(cls, untrusted: Mapping[str, Any]) -> InjectedFile:
        """From such data; Refused when it is not of that form."""
        path, content = untrusted.get("path"), untrusted.get("content")
        mode, owner = untrusted.get("mode"), untrusted.get("owner")
        if not isinstance(path, str) or not isinstance(content, str):
            raise Refused("bad_file", "a file needs a path, and its content in base64")
        if not (mode is None or (type(mode) is int and 0 <= mode <= 0o7777)):
            raise Refused("bad_file", "the mode of a file is a number of at most four octal digits")
        if not (owner is None or isinstance(owner, str)):
            raise Refused("bad_file", "the owner of a file is a string")
        try:
            return cls(path, base64.b64decode(content, validate=True), mode, owner)
        except ValueError:
            raise Refused("bad_file", "the content of a file must be base64") from None


@dataclass(frozen=True)
class SealedAnswer:
    """How a request ended that its caller had sealed: what the agent signed, and a reply that only the caller can open.

    value: of the reply's node; box: the text of its frames, empty if there were none.
    """

    outcome: Outcome
    code: str
    value: str = field(repr=False)
    box: str = field(repr=False)

    def to_dict(self) -> dict[str, str]:
        """As plain data."""
        return {"outcome": str(self.outcome), "code": self.code, "value": self.value, "box": self.box}

    @classmethod
    def from_dict(cls, data: Mapping[str, str]) -> SealedAnswer:
        """From such data."""
        return cls(Outcome(data["outcome"]), data["code"], data["value"], data["box"])


@dataclass(frozen=True)
class InstanceInfo:
    """What the hypervisor says about an instance. internal_id: its own id for it, such as a VM's uuid."""

    state: PowerState
    internal_id: str


class Progress(Protocol):
    """Where a driver reports the steps of a long operation; the manager keeps them in the audit trail."""

    def step(self, name: str) -> AbstractContextManager[None]:
        """Surrounds one step. Its outcome is that of the block: success, or the error that leaves it."""


class ComputeDriver(abc.ABC):
    """One hypervisor host."""

    @abc.abstractmethod
    def init_host(self, host: str) -> None:
        """Get ready to serve as `host`. Raises what keeps the hypervisor from being used."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the hypervisor; nothing is called afterwards."""

    @abc.abstractmethod
    def spawn(
        self,
        instance: Instance,
        *,
        admin_password: Password | None,
        injected_files: Sequence[InjectedFile],
        ssh_keys: Sequence[str],
        progress: Progress,
    ) -> None:
        """Create the guest, boot it, wait for its agent, give it its password, keys and files.

        admin_password: None leaves it as the image has it. ssh_keys: lines as in authorized_keys, for the
        administrator. Leaves a working guest, or nothing and the error of the step that went wrong.
        """

    @abc.abstractmethod
    def destroy(self, instance: Instance) -> None:
        """Remove the guest and its disks, in whatever state it is. Succeeds when there is none."""

    @abc.abstractmethod
    def power_on(self, instance: Instance) -> None:
        """Start a guest that is shut down; nothing happens when it runs."""

    @abc.abstractmethod
    def power_off(self, instance: Instance) -> None:
        """Shut the guest down, by force if it does not comply; nothing happens when it is off."""

    @abc.abstractmethod
    def reboot(self, instance: Instance, reboot_type: str) -> None:
        """Restart the guest. reboot_type: `SOFT` asks the guest, `HARD` does not (Nova's words)."""

    @abc.abstractmethod
    def get_info(self, instance: Instance) -> InstanceInfo:
        """The guest's state now. InstanceNotFound when the hypervisor has no such guest."""

    @abc.abstractmethod
    def set_admin_password(self, instance: Instance, new_pass: Password) -> None:
        """Set the password of the guest's administrator through its agent."""

    @abc.abstractmethod
    def inject_file(self, instance: Instance, file: InjectedFile) -> None:
        """Put a file into the running guest through its agent."""

    @abc.abstractmethod
    def add_ssh_keys(self, instance: Instance, keys: Sequence[str]) -> None:
        """Add keys (lines as in authorized_keys) to the administrator's in the running guest."""

    @abc.abstractmethod
    def trust_agent(self, instance: Instance) -> AgentInfo:
        """Pin the agent that is in the guest now, in place of the one that was known."""

    @abc.abstractmethod
    def send_sealed(self, instance: Instance, request_id: str, value: str, box: str) -> SealedAnswer:
        """Carry a request that its caller sealed to the guest's agent. Raises only when there is no believable answer.

        value: of the request's node; box: what travels as frames, empty if all is in the node.
        """
