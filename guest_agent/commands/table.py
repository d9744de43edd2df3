"""The tables of commands: each stands there with its name, its argument's parser and limit, and what it may show.

There are two of them: what a host may ask in the clear, which is what existing hosts ask, and what it may ask sealed.
A name can stand in both, for the same function or for different ones: `password` in the clear takes what keyinit
agreed on a key for, and the sealed one a password or its hash.

A command is a function decorated with `command`. It takes the context and its parsed arguments, returns a Result, and
raises an error of agent_protocol.outcomes when it cannot do its work. Nothing past the parser sees what the host
wrote.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable, TypeVar

from agent_protocol.legacy import AgentExchange
from agent_protocol.outcomes import Refused
from agent_protocol.wire import MAX_PAYLOAD

from ..configuration import Configuration
from ..nodes import Nodes
from ..system.base import System, not_on_this_system

if TYPE_CHECKING:
    from ..system.freezing import Freezer

Arguments = TypeVar("Arguments")

Commands = Mapping[str, "Command"]

COMMANDS: dict[str, Command] = {}
"""What may be asked in the clear, by name. The modules of this package fill both tables while they are imported."""

SEALED_COMMANDS: dict[str, Command] = {}
"""What may be asked sealed, by name."""

CLEAR = (COMMANDS,)
SEALED = (SEALED_COMMANDS,)
BOTH = (COMMANDS, SEALED_COMMANDS)


@dataclass
class Context:
    """What commands work with.

    version, features: the agent's own, for telling. vm: the uuid of the VM that this is, empty where it isn't known.
    nodes: the guest's part of the store, for what old hosts leave there; set by the agent. configuration: the guest's.
    freezer: what freezes the guest's file systems; None where nothing runs that could be frozen.
    """

    system: System
    exchange: AgentExchange
    version: str
    features: tuple[str, ...]
    vm: str = ""
    nodes: Nodes | None = None
    configuration: Configuration = field(default_factory=Configuration)
    freezer: Freezer | None = None


@dataclass(frozen=True)
class Result:
    """What a command that succeeded gives back.

    message: one text, all that a request in the clear is answered with; never a secret. data: what JSON can hold,
    for requests that came sealed.
    """

    message: str = ""
    data: Mapping[str, object] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Command:
    """One row of a table.

    run: parses the host's value and does the work. returncode: the old protocol's word for its success.
    max_value: characters that its value may have. secret: whether its value must not be shown to anybody.
    announced: whether it is among the features; no for what is only there to be answered better than `unknown command`.
    """

    name: str
    run: Callable[[Context, str], Result]
    returncode: str = "0"
    max_value: int = MAX_PAYLOAD
    secret: bool = False
    announced: bool = True

    def __call__(self, context: Context, untrusted_value: str) -> Result:
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
    tables: Collection[dict[str, Command]],
    parse: Callable[[str], Arguments],
    max_value: int = MAX_PAYLOAD,
    secret: bool = False,
    returncode: str = "0",
    announced: bool = True,
) -> Callable[[Callable[[Context, Arguments], Result]], Callable[[Context, Arguments], Result]]:
    """Put the decorated function under `name` into the tables CLEAR, SEALED or BOTH.

    parse: makes arguments of the untrusted value, or raises Refused.
    max_value: characters; the default is what one XenStore packet brings, and only sealed values can be longer.
    """

    def enter(function: Callable[[Context, Arguments], Result]) -> Callable[[Context, Arguments], Result]:
        def run(context: Context, untrusted_value: str) -> Result:
            return function(context, parse(untrusted_value))

        for table in tables:
            table[name] = Command(name, run, returncode, max_value, secret, announced)
        return function

    return enter


def served(commands: Commands, blocked: Collection[str], lacking: Collection[str]) -> dict[str, Command]:
    """A table as an agent serves it.

    blocked: names that are not there at all. lacking: names that the guest's system does not have, which are answered
    with just that, and not announced.
    """
    return {name: _lacking(name) if name in lacking else row for name, row in commands.items() if name not in blocked}


def _lacking(name: str) -> Command:
    def run(context: Context, untrusted_value: str) -> Result:
        del context, untrusted_value
        raise not_on_this_system(name)

    # Of any length, and whatever it holds.
    return Command(name, run, max_value=sys.maxsize, secret=True, announced=False)


def features(*tables: Commands) -> tuple[str, ...]:
    """The names that an agent with these tables announces, in one list and in order."""
    return tuple(sorted({name for table in tables for name, row in table.items() if row.announced}))
