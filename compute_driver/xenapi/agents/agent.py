"""The agents inside guests: which protocol is spoken with which, and the operations over either."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from agent_protocol.messages import Password
from agent_protocol.outcomes import Outcome, Refused, Unknown, Unreachable, Unsupported

from ...agents import LEGACY, AgentInfo, AgentMemory
from ...files import InjectedFile
from ...network import Interface
from ...network_data import LEGACY_NETWORKING, to_legacy, to_network_apply
from ...sealing import GUEST_RESTARTED
from ..connection.session import XenServer
from ..guests.vms import VM
from . import legacy_agent
from .conversation import Conversation, converse
from .plugin import Plugin
from .sealed_agent import Delivered, SealedAgents

POLICIES = ("sealed", "prefer-sealed", "legacy")
"""`sealed`: nothing else is spoken. `prefer-sealed`: the old protocol only with agents that know no other."""


class GuestAgents:
    """The agents of all guests of one XenServer.

    policy: one of POLICIES. timeout: seconds that one operation may take, with all its requests and repetitions.
    boot_timeout: seconds from the start of a guest to its agent's first answer. plugin: the way to them.
    """

    def __init__(
        self,
        server: XenServer,
        memory: AgentMemory,
        *,
        policy: str,
        timeout: float,
        boot_timeout: float,
        plugin: Plugin | None = None,
    ) -> None:
        self._server = server
        self._plugin = plugin or Plugin(server)
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

    def freeze(self, vm: VM, seconds: float) -> None:
        """Have the guest's file systems stand still, for so many seconds at most (whole ones count)."""
        if seconds < 1:
            raise Refused("bad_timeout", "file systems are frozen for a second at least")
        self._sealed_order(vm, "freeze", json.dumps({"seconds": int(seconds)}))

    def thaw(self, vm: VM) -> None:
        """Let them go on. Refused with `not_frozen` or `thawed_by_deadline` when they did before."""
        self._sealed_order(vm, "thaw", "")

    def forget(self, instance_uuid: str) -> None:
        """Know nothing of the instance's agent any more: the next one is a stranger."""
        self._memory.forget(instance_uuid)

    def known(self, vm: VM) -> AgentInfo | None:
        """What is remembered of the guest's agent."""
        return self._memory.recall(vm.instance)

    def take_back(self, vm: VM, agent: AgentInfo | None) -> None:
        """Know this agent again, in place of whichever was there meanwhile; None for nobody."""
        if agent is None:
            self._memory.forget(vm.instance)
        else:
            self._memory.remember(vm.instance, agent)

    def apply_network(self, vm: VM, interfaces: Sequence[Interface]) -> None:
        """Have the guest configure these interfaces; others of its own are left alone.

        An old agent reads them from vm-data/networking, where anybody in the guest can. Unsupported for what it knows
        nothing of; see network_data.to_legacy().
        """
        value = to_network_apply(interfaces)

        def legacy(talk: Conversation) -> None:
            self._publish(vm, to_legacy(interfaces))
            legacy_agent.reset_network(talk)

        self._either(vm, "network_apply", value, legacy)

    def reset_network(self, vm: VM) -> None:
        """Have an old agent configure once more what stands in vm-data/networking.

        Unsupported for an agent that speaks the sealed protocol: it believes nothing there, so use apply_network().
        """

        def conversation(talk: Conversation) -> None:
            if self._speaks_sealed(talk):
                raise Unsupported("network_data_needed", "the guest's agent must be told its network anew")
            legacy_agent.reset_network(talk)

        converse(self._plugin, vm, self._timeout, conversation)

    def _publish(self, vm: VM, nodes: Mapping[str, str]) -> None:
        """Put network data in the place of what is there. A running guest sees it at once (set_xsdata in domain.ml)."""
        known = self._server.call("VM.get_xenstore_data", vm.ref)
        kept = {key: value for key, value in known.items() if not key.startswith(f"{LEGACY_NETWORKING}/")}
        if {**kept, **nodes} != known:
            self._server.call("VM.set_xenstore_data", vm.ref, {**kept, **nodes})

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

    def _sealed_order(self, vm: VM, name: str, value: str) -> None:
        def conversation(talk: Conversation) -> None:
            if not self._speaks_sealed(talk):
                raise Unsupported("agent_not_sealed", "the guest's agent does not speak the sealed protocol")
            self._sealed.command(talk, name, value)

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
