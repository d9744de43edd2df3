"""One sealed request, from whoever seals it: the compute service, or the caller, who then keeps the secrets alone."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agent_protocol.messages import MessageError, new_request_id, parse_request
from agent_protocol.outcomes import Outcome, Refused, Unknown, Unsuccessful
from agent_protocol.sealed import (
    SEALED,
    Receipt,
    SealedResult,
    encode_sealed_request,
    open_reply,
    parse_sealed_reply,
    parse_sealed_value,
    seal_request,
    verify_receipt,
)

from .agents import AgentInfo

GRACE = 60
"""Seconds that a request stays valid beyond the time that its sender waits: clocks are not exact."""

ATTEMPTS = 3
"""Times that a command is sealed anew, when the agent has another key by now or another idea of the time."""

_TRY_AGAIN = ("unknown_key", "expired")
"""Codes of a receipt after which the same command can be sent again: nothing was done, and the receipt says how."""

_MAX_OFFSET = 2**31 - 1
"""Seconds between two clocks that can be remembered: what the database's column holds."""

GUEST_RESTARTED = "guest_restarted"
"""Code of what was under way when the guest's domain went. It can be sealed anew, for the next domain's agent."""


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


class SealedFailure(Unsuccessful):
    """Raise when the agent signed that a request, which its caller had sealed, did not succeed.

    answer: for the caller, who alone can read the agent's words.
    """

    def __init__(self, answer: SealedAnswer) -> None:
        super().__init__(answer.code or "agent_error", "the agent's words are sealed to whoever asked")
        self.outcome = answer.outcome
        self.answer = answer


@dataclass(frozen=True)
class SealedRequest:
    """A command that was sealed to an agent's key.

    value: of the request's node; box: what travels as frames, empty when all is in the node.
    """

    vm: str
    request_id: str
    value: str = field(repr=False)
    box: str = field(repr=False)
    reply_key: bytes = field(repr=False)

    @classmethod
    def seal(cls, agent: AgentInfo, vm: str, name: str, value: str, *, timeout: float) -> SealedRequest:
        """Seal a command. timeout: seconds that the sender will wait. Refused when the agent's key is not known."""
        if agent.key is None:
            raise Refused("no_agent_key", "the agent's key is not known")
        request_id = new_request_id()
        expires = int(time.time()) + max(0, agent.clock_offset) + int(timeout) + GRACE
        box = seal_request(agent.key, vm, request_id, name, value, expires=expires)
        message = encode_sealed_request(box)
        return cls(vm, request_id, message.node.decode("ascii"), "".join(message.frames), box.reply_key)

    def open(self, receipt: Receipt, value: str, box: str) -> SealedResult:
        """How it ended, in full. value, box: the reply's node and frames. Unknown when they are not what was signed."""
        try:
            reply = parse_sealed_reply(value.encode("utf-8", "surrogatepass"))
            return open_reply(receipt, self.reply_key, self.vm, self.request_id, box or reply.box)
        except MessageError as error:
            raise Unknown("bad_reply", f"the agent's answer cannot be believed: {error.message}") from None


def read_receipt(identity: bytes, vm: str, request_id: str, value: str) -> Receipt:
    """What the agent with that identity signed about a request. MessageError when the reply has no such receipt."""
    return verify_receipt(parse_sealed_reply(value.encode("utf-8", "surrogatepass")), identity, vm, request_id)


def asks_for_another(receipt: Receipt) -> bool:
    """Whether the agent did nothing because of a key or time that the receipt puts right: seal it once more."""
    return receipt.outcome is Outcome.REFUSED and receipt.code in _TRY_AGAIN


def after(agent: AgentInfo, receipt: Receipt) -> AgentInfo:
    """What is known of the agent once it has signed this: its next key, its clock."""
    return replace(agent, key=receipt.next_key, clock_offset=clock_offset(receipt.now))


def clock_offset(untrusted_now: int) -> int:
    """Seconds that a clock is ahead of ours, or behind if negative. A guest may say any time that a number can tell."""
    return max(-_MAX_OFFSET, min(_MAX_OFFSET, untrusted_now - int(time.time())))


def check_sealed(untrusted_value: str) -> None:
    """Refused unless this is a request's node that holds or announces a box: nothing else goes by this way."""
    try:
        request = parse_request(untrusted_value.encode("utf-8", "surrogatepass"))
        if request.name == SEALED:
            parse_sealed_value(request.value)
            return
    except MessageError:
        pass
    raise Refused("not_sealed", "the request is not one that was sealed to an agent")
