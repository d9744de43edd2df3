"""What an operation on a guest's agent has in common, whichever protocol carries it: its time, and restarts in between.

A question changes nothing in the guest; an order does. So an unanswered question is `unreachable`, and an unanswered
order is `unknown`, unless the plugin proved that the agent did not take it. When the guest restarts in the middle the
conversation begins again with the new domain; if it cannot be brought to its end there, an order that was under way
before stays `unknown`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from agent_protocol.outcomes import Outcome, Unknown, Unreachable, Unsuccessful

from ...fencing import LeaseLost
from ...sealing import GUEST_RESTARTED
from ..guests.vms import VM
from .plugin import Answer, GuestRestarted, Plugin

_T = TypeVar("_T")


@dataclass
class Conversation:
    """One operation on one guest. deadline: on the monotonic clock. order_delivered: in an attempt before this one."""

    plugin: Plugin
    vm: VM
    deadline: float
    order_delivered: bool = False

    def remaining(self) -> float:
        """Seconds that are left."""
        return max(0.0, self.deadline - time.monotonic())

    def ask(self, request_id: str, value: str, box: str = "") -> Answer:
        """Carry a question to the agent. Whatever became of it, it had no effect: Unreachable instead of Unknown."""
        try:
            return self.plugin.exchange(self.vm, request_id, value, timeout=self.remaining(), box=box)
        except Unknown as error:
            raise unreachable(error) from None

    def order(self, request_id: str, value: str, box: str = "") -> Answer:
        """Carry an order to the agent; Unknown when it was delivered and no answer came."""
        try:
            return self.plugin.exchange(self.vm, request_id, value, timeout=self.remaining(), box=box)
        except GuestRestarted:
            self.order_delivered = True
            raise


def unreachable(error: Unsuccessful) -> Unsuccessful:
    """What an unanswered question ends with. LeaseLost says nothing of the guest, and stays what it is."""
    if isinstance(error, LeaseLost):
        return error
    return Unreachable(error.code, f"the guest's agent could not be talked to: {error.message}")


def converse(plugin: Plugin, vm: VM, timeout: float, conversation: Callable[[Conversation], _T]) -> _T:
    """Have a conversation, again from its start whenever the guest restarts, for at most `timeout` seconds."""
    talk = Conversation(plugin, vm, time.monotonic() + timeout)
    while True:
        try:
            return conversation(talk)
        except GuestRestarted:
            if talk.remaining() == 0:
                _give_up(talk, Unreachable(GUEST_RESTARTED, "the guest restarted and did not come back in time"))
        except Unsuccessful as error:
            _give_up(talk, error)


def _give_up(talk: Conversation, error: Unsuccessful) -> NoReturn:
    """Raise what the operation ends with: `error`, unless an earlier attempt may have succeeded."""
    if talk.order_delivered and error.outcome is not Outcome.UNKNOWN:
        raise Unknown(GUEST_RESTARTED, f"the guest restarted while it carried out the request; then: {error.message}")
    raise error
