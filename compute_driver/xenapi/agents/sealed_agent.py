"""The sealed protocol's conversations: meet an agent through its advert, pin it, seal commands to its next key."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent_protocol.adverts import NotSealed, SealedAdvert, verify_advert
from agent_protocol.identity import fingerprint
from agent_protocol.messages import MessageError
from agent_protocol.outcomes import Outcome, Refused, Unknown, Unreachable, Unsuccessful
from agent_protocol.sealed import Receipt, SealedResult

from ...agents import SEALED, AgentInfo, AgentMemory
from ...sealing import ATTEMPTS, SealedRequest, after, asks_for_another, clock_offset, read_receipt
from ..guests.vms import VM
from .conversation import Conversation, unreachable
from .plugin import Answer, Plugin


class IdentityChanged(Refused):
    """Raise when the agent in a guest is not the one that was pinned: an operator must trust it first."""

    def __init__(self, pinned: bytes, found: bytes) -> None:
        super().__init__(
            "identity_changed",
            f"the guest's agent is {fingerprint(found)}, and {fingerprint(pinned)} was known; trust it if it is right",
        )


@dataclass(frozen=True)
class Delivered:
    """A request that somebody else sealed: what the agent signed about it, and its reply for whoever can open it."""

    receipt: Receipt
    answer: Answer


class SealedAgents:
    """Agents that speak the sealed protocol. What is learnt of them goes into `memory`."""

    def __init__(self, plugin: Plugin, memory: AgentMemory) -> None:
        self._plugin = plugin
        self._memory = memory

    def meet(self, vm: VM, *, timeout: float, trust: bool = False) -> AgentInfo | None:
        """Read and believe the agent's advert, and remember it. None when there is none, or an old agent's.

        timeout: seconds to wait for one. trust: pin the identity found in place of the one that was known.
        IdentityChanged when it is another and not trusted; Refused with `bad_advert` for one that cannot be believed.
        """
        advert = self._advert(vm, timeout)
        if advert is None:
            return None
        known = self._memory.recall(vm.instance)
        if known is not None and known.identity not in (None, advert.identity) and not trust:
            raise IdentityChanged(known.identity or b"", advert.identity)
        # The advert may be as old as the key in it; that the agent's clock is ahead by at least this is certain.
        ahead = max(0, clock_offset(advert.issued))
        agent = AgentInfo(advert.version, advert.features, SEALED, advert.identity, advert.key, ahead, vm.uuid)
        self._memory.remember(vm.instance, agent)
        return agent

    def _advert(self, vm: VM, timeout: float) -> SealedAdvert | None:
        try:
            text = self._plugin.advert(vm, timeout=timeout)
        except Unknown as error:
            raise unreachable(error) from None
        if text is None:
            return None
        try:
            return verify_advert(text.encode("utf-8", "surrogatepass"), vm.uuid)
        except NotSealed:
            return None
        except MessageError as error:
            raise Refused("bad_advert", f"what the agent tells about itself cannot be believed: {error}") from None

    def command(self, talk: Conversation, name: str, value: str) -> SealedResult:
        """Have the pinned agent carry out a command; raises the error that it ends with."""
        agent = self._pinned(talk.vm)
        if agent.key is None:
            agent = self._met(talk)
        attempts = 0
        while True:
            attempts += 1
            request = SealedRequest.seal(agent, talk.vm.uuid, name, value, timeout=talk.remaining())
            answer = talk.order(request.request_id, request.value, request.box)
            receipt = self._receipt(talk.vm, agent, request.request_id, answer)
            if attempts < ATTEMPTS and asks_for_another(receipt):
                agent = after(agent, receipt)
                continue
            result = request.open(receipt, answer.value, answer.box)
            result.raise_unless_successful()
            return result

    def deliver(self, talk: Conversation, request_id: str, value: str, box: str) -> Delivered:
        """Carry a request that somebody else sealed. Raises only when it has no believable answer."""
        agent = self._pinned(talk.vm)
        answer = talk.order(request_id, value, box)
        return Delivered(self._receipt(talk.vm, agent, request_id, answer), answer)

    def _pinned(self, vm: VM) -> AgentInfo:
        agent = self._memory.recall(vm.instance)
        if agent is None or agent.identity is None:
            raise Refused("agent_unknown", "the guest's agent has not been met yet")
        return agent

    def _met(self, talk: Conversation) -> AgentInfo:
        agent = self.meet(talk.vm, timeout=talk.remaining())
        if agent is None:
            raise Unreachable("agent_silent", "the guest's agent did not show itself in time")
        return agent

    def _receipt(self, vm: VM, agent: AgentInfo, request_id: str, answer: Answer) -> Receipt:
        """What the agent signed; what follows from it is remembered."""
        assert agent.identity is not None
        try:
            receipt = read_receipt(agent.identity, vm.uuid, request_id, answer.value)
        except MessageError:
            self._look_for_another(vm, agent.identity, request_id, answer)
            raise Unknown("unsigned_reply", "the answer is not signed by the guest's agent") from None
        self._memory.remember(vm.instance, after(replace(agent, protocol=SEALED), receipt))
        return receipt

    def _look_for_another(self, vm: VM, pinned: bytes, request_id: str, answer: Answer) -> None:
        """IdentityChanged when another agent signed that it could not open the request: then nothing was done."""
        try:
            advert = self._advert(vm, 0.0)
        except Unsuccessful:
            # The question's end is not the order's, of which nobody knows how it went.
            return
        if advert is None or advert.identity == pinned:
            return
        try:
            receipt = read_receipt(advert.identity, vm.uuid, request_id, answer.value)
        except MessageError:
            return
        if receipt.outcome is Outcome.REFUSED and not receipt.box_sha256:
            raise IdentityChanged(pinned, advert.identity)
