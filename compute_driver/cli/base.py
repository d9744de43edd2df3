"""What the subcommands share: how an outcome is shown, and which exit status it has."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from cliff.show import ShowOne

from agent_protocol.outcomes import Outcome, Unsuccessful

from ..context import RequestContext

if TYPE_CHECKING:
    from ..caller import Caller

EXIT_STATUS = {
    Outcome.SUCCEEDED: 0,
    Outcome.REFUSED: 3,
    Outcome.UNSUPPORTED: 4,
    Outcome.BUSY: 5,
    Outcome.FAILED: 6,
    Outcome.UNREACHABLE: 7,
    Outcome.UNKNOWN: 8,
}
"""1 is a mistake in the configuration, 2 one on the command line."""

Fields = dict[str, Any]


def add_server(parser: argparse.ArgumentParser) -> None:
    """Declare the instance that the command is about."""
    parser.add_argument("server", help="uuid or unique name of the instance")


def tell(line: str) -> None:
    """One line for the operator, beside what the command shows."""
    print(f"xenward: {line}", file=sys.stderr)


class Question:
    """A command that changes nothing. Stands before cliff's class: an honest error becomes one line and a status."""

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Run the command and return its exit status."""
        try:
            return int(super().run(parsed_args))  # type: ignore[misc]
        except Unsuccessful as error:
            tell(f"{error} ({error.outcome}, {error.code})")
            return EXIT_STATUS[error.outcome]


class Order(ShowOne):
    """A command that changes something: shows the outcome, and exits with its status.

    ending: what is shown as the outcome when there was no error. asking: the command that tells more of an order whose
    end is not known, as a format of the request's context and the arguments; empty where there is none.
    """

    ending = str(Outcome.SUCCEEDED)
    asking = "xenward action list --request {0.request_id}"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        # Whole names only: `--chap-password …` is no short form of an option that takes a file's name.
        parser.allow_abbrev = False
        self.add_arguments(parser)
        return parser

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments; the instance, by default."""
        add_server(parser)

    @abstractmethod
    def order(self, context: RequestContext, parsed: argparse.Namespace) -> Fields:
        """Do it; what to show besides the outcome. Raises an error of agent_protocol.outcomes."""

    def context(self, parsed: argparse.Namespace) -> RequestContext:
        """The context to order in."""
        del parsed
        context: RequestContext = self.app.new_context()
        return context

    def run(self, parsed_args: argparse.Namespace) -> int:
        self._status = 0
        super().run(parsed_args)
        return self._status

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[Any]]:
        context = self.context(parsed_args)
        named = {"request_id": context.request_id, "order_id": context.order_id}
        try:
            fields = self.order(context, parsed_args)
            fields.update(outcome=self.ending, code="", message="")
        except Unsuccessful as error:
            fields = {"outcome": str(error.outcome), "code": error.code, "message": error.message}
            self._status = EXIT_STATUS[error.outcome]
            if error.outcome is Outcome.UNKNOWN:
                self.tell_how_to_ask(context, parsed_args)
        fields.update({name: value for name, value in named.items() if value is not None})
        return list(fields), list(fields.values())

    def tell_how_to_ask(self, context: RequestContext, parsed: argparse.Namespace) -> None:
        """One line with the command that tells more."""
        if self.asking:
            tell(f"it may or may not have happened; ask: {self.asking.format(context, parsed)}")

    def caller(self, context: RequestContext) -> Caller:
        """What gives secrets to guests. Each thing that it does is an order of its own."""
        # Imported late: it reaches for the bus, on whose concurrency main.py decides first.
        client = self.app.client
        from ..caller import Caller

        return Caller(client, without_order(context))

    def call(self, context: RequestContext, method: str, **arguments: Any) -> Any:
        """Have the compute service do it, as an order of its own."""
        return self.app.client.order(without_order(context), method, **arguments)


def without_order(context: RequestContext) -> RequestContext:
    """The request, for another order within it."""
    return dataclasses.replace(context, order_id=None, expires=None)
