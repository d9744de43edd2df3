"""The agents inside guests: which protocol is spoken with which, and the operations over either."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from agent_protocol.messages import Password
from agent_protocol.outcomes import Outcome, Unknown, Unreachable, Unsupported

from ..agents import LEGACY, AgentInfo, AgentMemory
from ..driver import InjectedFile
from ..sealing import GUEST_RESTARTED
from . import legacy_agent
from .conversation import Conversation, converse
from .plugin import Plugin
from .sealed_agent import Delivered, SealedAgents
from .session import XenServer
from .vms import VM

POLICIES = ("sealed", "prefer-sealed", "legacy")
"""`sealed`: nothing else is spoken. `prefer-sealed`: the old protocol only with agents that know no other."""


class GuestAgents:
    """The agents of all guests of one XenServer.

    policy: one of POLICIES. timeout: seconds that one operation may take, with all its requests and repetitions.
    boot_timeout: seconds from the start of a guest to its agent's first answer.
    """

    def __init__(
        self, server: XenServer, memory: AgentMemory, *, policy: str, timeout: float, boot_timeout: float
    ) -> None:
        self._plugin = Plugin(server)
        self._memory = memory
        self._sealed = SealedAgents(self._plugin, memory)
        self._policy = policy
        self._timeout = timeout
        self._boot_timeout = boot_timeout

    def await_boot(self, vm: VM) -> AgentInfo:
        """Wait for the agent of a guest that was just started, and hear what it can do."""

        def conversation(talk: Conversation) -> AgentInfo:
            if self._policy == "sealed":
                return self._met(talk)
            if self._policy == "prefer-sealed":
                # Any agent answers this, and one of ours has its advert out by then.
                legacy_agent.version(talk)
                agent = self._sealed.meet(vm, timeout=0.0)
                if agent is not None:
                    return agent
            agent = legacy_agent.introduction(talk)
            self._memory.remember(vm.instance, agent)
            return agent

        return converse(self._plugin, vm, self._boot_timeout, conversation)

    def set_password(self, vm: VM, password: Password) -> None:
        """Set the administrator's password."""
        value = json.dumps({"value": password.value})
        self._either(vm, "password", value, lambda talk: legacy_agent.set_password(talk, password))

    def put_file(self, vm: VM, file: InjectedFile) -> None:
        """Put a file; Unsupported when the agent cannot give it the mode or owner that was asked for."""
        self._either(vm, "file_put", file.to_command(), lambda talk: legacy_agent.put_file(talk, file))

    def add_ssh_keys(self, vm: VM, keys: Sequence[str]) -> None:
        """Add keys to the administrator's; keys that are there stay."""
        value = json.dumps({"add": list(keys)})
        self._either(vm, "ssh_keys", value, lambda talk: legacy_agent.add_ssh_keys(talk, keys))

    def trust(self, vm: VM) -> AgentInfo:
        """Pin the agent that is in the guest now, in place of the one that was known."""
        agent = self._sealed.meet(vm, timeout=self._timeout, trust=True)
        if agent is None:
            raise Unsupported("agent_not_sealed", "the guest's agent does not speak the sealed protocol")
        return agent

    def deliver(self, vm: VM, request_id: str, value: str, box: str) -> Delivered:
        """Carry a request that somebody else sealed. Unknown with `guest_restarted` when it has to be sealed anew."""

        def conversation(talk: Conversation) -> Delivered:
            delivered = self._sealed.deliver(talk, request_id, value, box)
            if talk.order_delivered and delivered.receipt.outcome is not Outcome.SUCCEEDED:
                raise Unknown(GUEST_RESTARTED, "the guest restarted while it carried out the request")
            return delivered

        return converse(self._plugin, vm, self._timeout, conversation)

    def _either(self, vm: VM, name: str, value: str, legacy: Callable[[Conversation], None]) -> None:
        def conversation(talk: Conversation) -> None:
            if self._speaks_sealed(talk):
                self._sealed.command(talk, name, value)
            else:
                legacy(talk)

        converse(self._plugin, vm, self._timeout, conversation)

    def _speaks_sealed(self, talk: Conversation) -> bool:
        """Whether to seal. Once an agent was pinned no guest can make us speak the old protocol with it."""
        known = self._memory.recall(talk.vm.instance)
        if self._policy != "legacy":
            if known is not None and known.identity is not None:
                return True
            if self._policy == "sealed":
                self._met(talk)
                return True
            if self._sealed.meet(talk.vm, timeout=0.0) is not None:
                return True
        if known is None or known.protocol != LEGACY:
            self._memory.remember(talk.vm.instance, replace(known or AgentInfo("", (), LEGACY), protocol=LEGACY))
        return False

    def _met(self, talk: Conversation) -> AgentInfo:
        agent = self._sealed.meet(talk.vm, timeout=talk.remaining())
        if agent is None:
            raise Unreachable("agent_silent", "no agent that speaks the sealed protocol showed itself in time")
        return agent
