from __future__ import annotations

import pytest

from agent_protocol.outcomes import Failed, Refused, Unsupported
from agent_protocol.xenstore import StoreClosed
from guest_agent import start
from guest_agent.agent import Agent
from guest_agent.commands import COMMANDS, SEALED_COMMANDS, Context
from guest_agent.start import prepared

from .standin_system import StandinSystem


@pytest.fixture
def system() -> StandinSystem:
    return StandinSystem()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stores that agents look for; none is there."""
    asked: list[str] = []

    def open_store(where: str) -> None:
        asked.append(where)
        raise StoreClosed(where)

    monkeypatch.setattr(start, "open_store", open_store)
    return asked


def store_of(agent: Agent, opened: list[str]) -> str:
    with pytest.raises(StoreClosed):
        agent._open_store()
    return opened.pop()


def test_the_store(system: StandinSystem, opened: list[str]) -> None:
    assert store_of(prepared(system), opened) == "xenbus"
    system.configuration = b"[agent]\nstore = wmi\n"
    assert store_of(prepared(system), opened) == "wmi"
    assert store_of(prepared(system, "unix:/x"), opened) == "unix:/x"


def test_the_system_is_made_whole_and_nothing_is_connected(system: StandinSystem, opened: list[str]) -> None:
    prepared(system)
    assert (system.done, opened) == ([("prepare",)], [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[agent]\nblock = pnig\n", "[agent] block names pnig, and there is no such command"),
        (b"[agent]\nstore = tcp:x\n", "[agent] store: a store is unix:PATH or xenbus"),
        (b"[agent]\nsotre = x\n", "[agent] has no option sotre"),
    ],
)
def test_a_wrong_configuration_is_named_and_nothing_is_done(system: StandinSystem, text: bytes, words: str) -> None:
    system.configuration = text
    with pytest.raises(Refused) as raised:
        prepared(system)
    assert raised.value.code == "bad_configuration"
    assert str(raised.value).startswith(f"{system.configuration_name}: {words}")
    assert system.done == []


def test_a_configuration_that_cannot_be_read(system: StandinSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable() -> bytes:
        raise Failed("eacces", "no")

    monkeypatch.setattr(system, "read_configuration", unreadable)
    with pytest.raises(Failed, match="no"):
        prepared(system)


def test_what_is_blocked_and_what_is_lacking(system: StandinSystem) -> None:
    system.configuration = b"[agent]\nblock = ping, freeze\n"
    agent = prepared(system)
    context: Context = agent._context
    clear, sealed = agent._commands, agent._presence._sealed_commands
    assert set(clear) == set(COMMANDS)
    assert set(sealed) == set(SEALED_COMMANDS) - {"ping", "freeze"}
    assert context.configuration.block == {"ping", "freeze"}
    for table, name in ((clear, "agentupdate"), (sealed, "thaw"), (sealed, "agent_update")):
        assert not table[name].announced
        with pytest.raises(Unsupported) as raised:
            table[name](context, "x" * 100_000)
        assert raised.value.code == "not_on_this_system"
    assert "agentupdate" not in context.features
    assert clear["version"] is COMMANDS["version"]
