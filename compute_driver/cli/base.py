"""What the subcommands share: how an outcome is shown, and which exit status it has."""

from __future__ import annotations

import argparse
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


class Question:
    """A command that changes nothing. Stands before cliff's class: an honest error becomes one line and a status."""

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Run the command and return its exit status."""
        try:
            return int(super().run(parsed_args))  # type: ignore[misc]
        except Unsuccessful as error:
            print(f"xenward: {error} ({error.outcome}, {error.code})", file=sys.stderr)
            return EXIT_STATUS[error.outcome]


class Order(ShowOne):
    """A command that changes something: shows the outcome, and exits with its status."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        self.add_arguments(parser)
        return parser

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments; the instance, by default."""
        parser.add_argument("server", help="uuid or unique name of the instance")

    @abstractmethod
    def order(self, context: RequestContext, parsed: argparse.Namespace) -> Fields:
        """Do it; what to show besides the outcome. Raises an error of agent_protocol.outcomes."""

    def run(self, parsed_args: argparse.Namespace) -> int:
        self._status = 0
        super().run(parsed_args)
        return self._status

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[Any]]:
        context = self.app.new_context()
        fields: Fields = {"outcome": "succeeded", "code": "", "message": "", "request_id": context.request_id}
        try:
            fields = {**self.order(context, parsed_args), **fields}
        except Unsuccessful as error:
            fields.update(outcome=str(error.outcome), code=error.code, message=error.message)
            self._status = EXIT_STATUS[error.outcome]
        return list(fields), list(fields.values())

    def caller(self, context: RequestContext) -> Caller:
        """What gives secrets to guests."""
        # Imported late: it reaches for the bus, on whose concurrency main.py decides first.
        client = self.app.client
        from ..caller import Caller

        return Caller(client, context)

    def call(self, context: RequestContext, method: str, **arguments: Any) -> Any:
        """Have the compute service do it."""
        return self.app.client.order(context, method, **arguments)
