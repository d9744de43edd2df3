"""A guest for tests of the sealed protocol: its agent, the plugin before it, and what is remembered of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from agent_protocol.messages import Password
from agent_protocol.outcomes import Unsuccessful
from compute_driver.agents import AgentInfo, AgentsInMemory
from compute_driver.files import InjectedFile
from compute_driver.states import PowerState
from compute_driver.xenapi.agents.agent import GuestAgents
from compute_driver.xenapi.guests.vms import VM

from ..sealed_agent import VM_UUID, SealedAgent
from .plugin import Answer, Plugin

SECRET = "hunter2 & <Secret>"
CONTENT = b"hunter2 in a file"
KEYS = ["ssh-ed25519 AAAA ada"]
FILE = InjectedFile("/etc/motd", CONTENT, 0o640, "ada:users")
VM_RECORD = VM("OpaqueRef:vm", VM_UUID, "uuid-web", PowerState.RUNNING, "OpaqueRef:host", ())

DONE = [
    ("password", {"value": SECRET}),
    ("file_put", {"path": "/etc/motd", "content": "aHVudGVyMiBpbiBhIGZpbGU=", "mode": "0640", "owner": "ada:users"}),
    ("ssh_keys", {"add": KEYS}),
]
"""What an agent has done after `everything`."""


@dataclass
class Guest:
    """A guest and those who talk to it."""

    agent: SealedAgent = field(default_factory=SealedAgent)
    memory: AgentsInMemory = field(default_factory=AgentsInMemory)

    def __post_init__(self) -> None:
        self.plugin = Plugin(agent=self.agent)

    def agents(self, policy: str = "prefer-sealed", timeout: float = 10.0) -> GuestAgents:
        server: Any = self.plugin
        return GuestAgents(server, self.memory, policy=policy, timeout=timeout, boot_timeout=timeout)

    def set_password(self, policy: str = "prefer-sealed", timeout: float = 10.0) -> None:
        self.agents(policy, timeout).set_password(VM_RECORD, Password(SECRET))

    def error(self, policy: str = "prefer-sealed", timeout: float = 10.0) -> Unsuccessful:
        """What setting the password ends with. It never shows the password."""
        with pytest.raises(Unsuccessful) as caught:
            self.set_password(policy, timeout)
        told = repr(caught.value) + str(caught.value) + repr(vars(caught.value)) + repr(caught.value.__cause__)
        assert "hunter2" not in told
        return caught.value

    def everything(self, policy: str = "prefer-sealed") -> None:
        self.set_password(policy)
        self.agents(policy).put_file(VM_RECORD, FILE)
        self.agents(policy).add_ssh_keys(VM_RECORD, KEYS)

    @property
    def known(self) -> AgentInfo:
        return self.memory["uuid-web"]

    def forget_calls(self) -> None:
        for kept in (self.plugin.functions, self.plugin.requests, self.plugin.calls, self.plugin.timeouts):
            kept.clear()
        self.agent.ids.clear()


def advertises(advert: object) -> Answer:
    """For Plugin.say: that this stands where an agent's advert should be."""
    return lambda arguments: {VM_UUID: advert}


def met() -> Guest:
    """A guest whose agent was met, and the calls that it took are forgotten."""
    guest = Guest()
    guest.agents().trust(VM_RECORD)
    guest.forget_calls()
    return guest
