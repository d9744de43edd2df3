"""From a guest's system to an agent that is ready to serve it; for whatever runs agents: a program, or a service."""

from __future__ import annotations

import functools

from agent_protocol.legacy import AgentExchange

from . import VERSION
from .agent import Agent
from .commands import COMMANDS, SEALED_COMMANDS, Commands, Context, features, served
from .configuration import Configuration, bad_configuration, read_configuration
from .store import check_store, open_store
from .system.base import System


def prepared(system: System, store: str | None = None) -> Agent:
    """An agent for the guest with that system, which is made whole for it (System.prepare). run() serves it.

    store: where XenStore is, see store.check_store(); None for what the configuration says. Nothing is connected yet.
    Refused (`bad_configuration`) when the configuration cannot be followed; errors of System.read_configuration.
    """
    configuration = read_configuration(system)
    commands, sealed_commands = _tables(system, configuration)
    where = store or _configured_store(system, configuration)
    context = Context(system, AgentExchange(), VERSION, features(commands), configuration=configuration)
    system.prepare(context)
    return Agent(functools.partial(open_store, where), commands, sealed_commands, context)


def _tables(system: System, configuration: Configuration) -> tuple[Commands, Commands]:
    """Both tables as they are served. Refused (`bad_configuration`) for a blocked name that is in neither."""
    unknown = sorted(configuration.block - COMMANDS.keys() - SEALED_COMMANDS.keys())
    if unknown:
        reason = f"[agent] block names {unknown[0]}, and there is no such command"
        raise bad_configuration(system.configuration_name, reason)
    return (
        served(COMMANDS, configuration.block, system.lacks),
        served(SEALED_COMMANDS, configuration.block, system.lacks),
    )


def _configured_store(system: System, configuration: Configuration) -> str:
    try:
        return check_store(configuration.store)
    except ValueError as error:
        raise bad_configuration(system.configuration_name, f"[agent] store: {error}") from None
