from __future__ import annotations

import pytest

from agent_protocol.outcomes import Refused
from guest_agent.commands import COMMANDS, SEALED_COMMANDS, Context, Result, features
from guest_agent.commands.table import Command


def test_every_command_of_the_old_agents_is_there() -> None:
    assert features(COMMANDS) == (
        "features",
        "file_inject",
        "file_put",
        "injectfile",
        "keyinit",
        "kmsactivate",
        "password",
        "resetnetwork",
        "ssh_keys",
        "version",
    )
    # It is there to be refused in its own words.
    assert not COMMANDS["agentupdate"].announced
    assert {name for name, command in COMMANDS.items() if command.returncode == "D0"} == {"keyinit"}


def test_what_carries_a_secret_is_marked() -> None:
    secret = {name for name, command in COMMANDS.items() if command.secret}
    assert secret == {"password", "file_put", "injectfile", "file_inject", "agentupdate"}
    sealed = {name for name, command in SEALED_COMMANDS.items() if command.secret}
    assert sealed == {"password", "file_put", "agent_update"}


def test_what_can_be_asked_sealed() -> None:
    assert features(SEALED_COMMANDS) == (
        "agent_update",
        "features",
        "file_put",
        "freeze",
        "hostname",
        "info",
        "kmsactivate",
        "network_apply",
        "password",
        "password_generate",
        "ping",
        "ssh_keys",
        "thaw",
        "version",
    )
    assert SEALED_COMMANDS["password"].run is not COMMANDS["password"].run
    assert SEALED_COMMANDS["file_put"] == COMMANDS["file_put"]
    assert features(COMMANDS, SEALED_COMMANDS) == tuple(sorted({*features(COMMANDS), *features(SEALED_COMMANDS)}))


def test_the_limit_is_enforced_and_named(context: Context) -> None:
    command = Command("echo", lambda context, untrusted: Result(untrusted), "0", 5, False)
    assert command(context, "12345") == Result("12345")
    with pytest.raises(Refused, match="echo has at most 5 characters, this one 6"):
        command(context, "123456")
