"""The table of commands: each stands in it with its name, its argument's parser and limit, and what it may show.

A command is a function decorated with `command`. It takes the context and its parsed arguments, returns the
reply's message, and raises an error of agent_protocol.outcomes when it cannot do its work. Nothing past the parser
sees what the host wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Callable, TypeVar

from agent_protocol.legacy import AgentExchange
from agent_protocol.outcomes import Refused
from agent_protocol.wire import MAX_PAYLOAD

from ..system.base import System

Arguments = TypeVar("Arguments")

COMMANDS: dict[str, Command] = {}
"""Every command by its name. The modules of this package fill it while they are imported."""


@dataclass
class Context:
    """What commands work with. version, features: the agent's own, for telling."""

    system: System
    exchange: AgentExchange
    version: str
    features: tuple[str, ...]


@dataclass(frozen=True)
class Command:
    """One row of the table.

    run: parses the host's value and does the work. returncode: the old protocol's word for its success.
    max_value: characters that its value may have. secret: whether its value must not be shown to anybody.
    """

    name: str
    run: Callable[[Context, str], str]
    returncode: str
    max_value: int
    secret: bool

    def __call__(self, context: Context, untrusted_value: str) -> str:
        """Check the limit and run. Refused (`bad_arguments`) when the value is too long."""
        if len(untrusted_value) > self.max_value:
            raise Refused(
                "bad_arguments",
                f"the value of {self.name} has at most {self.max_value} characters, this one {len(untrusted_value)}",
            )
        return self.run(context, untrusted_value)


def command(
    name: str,
    *,
    parse: Callable[[str], Arguments],
    max_value: int = MAX_PAYLOAD,
    secret: bool = False,
    returncode: str = "0",
) -> Callable[[Callable[[Context, Arguments], str]], Callable[[Context, Arguments], str]]:
    """Put the decorated function into the table, under `name`.

    parse: makes arguments of the untrusted value, or raises Refused.
    max_value: characters; no XenStore packet brings more than the default.
    """

    def enter(function: Callable[[Context, Arguments], str]) -> Callable[[Context, Arguments], str]:
        def run(context: Context, untrusted_value: str) -> str:
            return function(context, parse(untrusted_value))

        COMMANDS[name] = Command(name, run, returncode, max_value, secret)
        return function

    return enter


def features(commands: Mapping[str, Command]) -> tuple[str, ...]:
    """The names that an agent with these commands announces, in order."""
    return tuple(sorted(commands))
