"""`xenward order …` and `xenward action …`: what was asked, and what became of it."""

from __future__ import annotations

import argparse
from typing import Any

from cliff.lister import Lister
from cliff.show import ShowOne

from agent_protocol.outcomes import Outcome

from .base import EXIT_STATUS, Question
from .reading import seconds

_SHOWN = ("order_id", "action", "target", "instance_uuid", "request_id", "user", "host", "started_at", "finished_at")
_LISTED = ("started_at", "target", "action", "step", "outcome", "code", "seconds", "user", "message", "request_id")


class OrderShow(Question, ShowOne):
    """Show what became of an order. The exit status is that of its outcome.

    That of `busy`, with the code `order_in_flight`, stands for an order that is still being carried out.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("order", metavar="ORDER_ID", help="as the order's own command showed it")
        parser.add_argument("--wait", type=seconds, metavar="SECONDS", help="wait so long for its end, and its arrival")
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        self._status = 0
        return super().run(parsed_args) or self._status

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[Any]]:
        client, context = self.app.client, self.app.new_context()
        if parsed_args.wait is None:
            action = client.ask(context, "get_order", order_id=parsed_args.order)
        else:
            action = client.result(context, parsed_args.order, timeout=parsed_args.wait)
        shown = {name: action[name] for name in (*_SHOWN, "seconds", "outcome", "code", "message")}
        if shown["outcome"] is None:
            # What the service answers to who sends the order again.
            shown.update(outcome=str(Outcome.BUSY), code="order_in_flight", message="it is being carried out")
        self._status = EXIT_STATUS[Outcome(shown["outcome"])]
        return list(shown), list(shown.values())


class ActionList(Question, Lister):
    """Show the audit trail: what was done, step by step, and how it ended."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("server", nargs="?", help="uuid or unique name of the instance (default: all)")
        parser.add_argument("--request", metavar="ID", help="only what was done for this request")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[list[Any]]]:
        named = {"target": parsed_args.server}
        if parsed_args.request is not None:
            named["request_id"] = parsed_args.request
        actions = self.app.client.ask(self.app.new_context(), "list_actions", **named)
        columns = [*_LISTED, "order_id"]
        return columns, [[action[column] for column in columns] for action in actions]


COMMANDS = {
    "order show": OrderShow,
    "action list": ActionList,
    "server actions": ActionList,
}
