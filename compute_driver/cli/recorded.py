"""Orders that the compute service records under an id: one need not wait for them, and may send them again."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Any

from agent_protocol.outcomes import Refused

from ..context import RequestContext
from .base import Fields, Order

ACCEPTED = "accepted"
"""In place of an outcome: the bus has the order. Nobody knows yet how it will end."""

ORDER_TIMEOUT = 1800.0
"""Seconds that the command waits for an order."""


@dataclass(frozen=True)
class Call:
    """A method of the compute service and its arguments.

    shown: what to show besides the outcome, if it has one that is not an error. is_secret: the arguments hold
    something that must not lie on the bus until a service comes.
    """

    method: str
    arguments: dict[str, Any] = field(repr=False)
    shown: Fields = field(default_factory=dict, repr=False)
    is_secret: bool = False


class RecordedOrder(Order):
    """One order. method: of the compute service; its arguments are the instance and what arguments() gives."""

    method = ""
    asking = "xenward order show {0.order_id} --wait 60"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        group = parser.add_argument_group("order")
        group.add_argument(
            "--no-wait",
            action="store_true",
            help="only hand the order to the bus, and show its id: `order show` tells later what became of it",
        )
        group.add_argument(
            "--order-id",
            type=_order_id,
            metavar="ID",
            help="send an order again under the id that it had: it is carried out once (default: a new order)",
        )
        return parser

    def arguments(self, parsed: argparse.Namespace) -> Fields:
        """The method's arguments besides the instance."""
        del parsed
        return {}

    def request(self, context: RequestContext, parsed: argparse.Namespace) -> Call:
        """What to ask of the compute service."""
        del context
        return Call(self.method, {"target": parsed.server, **self.arguments(parsed)})

    def told(self, answer: Any) -> Fields:
        """What to show of the service's answer."""
        del answer
        return {}

    def context(self, parsed: argparse.Namespace) -> RequestContext:
        return super().context(parsed).for_order(parsed.order_id)

    def order(self, context: RequestContext, parsed: argparse.Namespace) -> Fields:
        call = self.request(context, parsed)
        if parsed.no_wait:
            self._leave(context, call)
            return dict(call.shown)
        # From now on, not from when somebody was asked for a password.
        timely = context.for_order(context.order_id, seconds=ORDER_TIMEOUT)
        client = self.app.client
        try:
            answer = client.order(timely, call.method, **call.arguments)
        except KeyboardInterrupt:
            # The service carries it out all the same.
            self.tell_how_to_ask(context, parsed)
            raise
        return {**call.shown, **self.told(answer)}

    def _leave(self, context: RequestContext, call: Call) -> None:
        if call.is_secret:
            raise Refused("secret_needs_waiting", "a password does not lie on the bus: order without --no-wait")
        if self.app.is_embedded:
            said = "--no-wait needs a bus and a service of its own: nobody would be there when this command has ended"
            raise Refused("bus_embedded", said)
        client = self.app.client
        # Imported late: main.py decides on the bus's concurrency first.
        from ..rpc.client import CAST_LIFETIME

        client.cast(context.for_order(context.order_id, seconds=CAST_LIFETIME), call.method, **call.arguments)
        self.ending = ACCEPTED


def _order_id(text: str) -> str:
    try:
        RequestContext.from_dict({"request_id": "", "user": "", "order_id": text})
    except Refused as error:
        raise argparse.ArgumentTypeError(error.message) from None
    return text
