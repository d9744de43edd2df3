from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.legacy import AgentExchange
from agent_protocol.outcomes import Refused, Unsupported
from guest_agent.commands import COMMANDS, SEALED_COMMANDS, Context
from guest_agent.commands.activate import MAX_HOST, Server

from ..standin_system import StandinSystem

SERVERS = [
    "kms",
    "kms.example.com",
    "kms.example.com:1688",
    "_vlmcs.example.com",
    "KMS-1:1",
    "192.0.2.1",
    "192.0.2.1:65535",
    "[2001:db8::1]",
    "[::ffff:192.0.2.1]:1688",
    ".".join(["a" * 63] * 3 + ["b" * 61]),
]

WRONG = [
    "kms:0",
    "kms:65536",
    "kms:99999",
    "kms:01688",
    "kms:",
    "kms:1688:1",
    ":1688",
    "kms.",
    ".kms",
    "-kms",
    "kms-",
    "a" * 64,
    ".".join(["a" * 63] * 4),
    "kms example",
    "kms\n/ato",
    "kms /ato",
    'kms"',
    "kms&calc",
    "kms;calc",
    "kms/../x",
    "kms\\x",
    "k%20s",
    "kïms",
    "192.0.2",
    "192.0.2.256",
    "192.0.2.1.2",
    "2001:db8::1",
    "[2001:db8::1",
    "[192.0.2.1]",
    "[::1%eth0]",
    "[]",
    "[kms]",
    "kms]",
]


@pytest.fixture
def system() -> StandinSystem:
    return StandinSystem()


@pytest.fixture
def context(system: StandinSystem) -> Context:
    return Context(system, AgentExchange(), "1", ())


@pytest.mark.parametrize("server", SERVERS)
def test_a_server(context: Context, system: StandinSystem, server: str) -> None:
    assert COMMANDS["kmsactivate"](context, server).message == "activated"
    assert SEALED_COMMANDS["kmsactivate"](context, json.dumps({"server": server})).message == "activated"
    assert system.done == [("activate", server)] * 2


@pytest.mark.parametrize("server", WRONG)
def test_what_is_no_server(context: Context, system: StandinSystem, server: str) -> None:
    for table, value in ((COMMANDS, server), (SEALED_COMMANDS, json.dumps({"server": server}))):
        with pytest.raises(Refused) as raised:
            table["kmsactivate"](context, value)
        assert raised.value.code == "bad_arguments"
    assert system.done == []


def test_the_one_that_is_configured(context: Context, system: StandinSystem) -> None:
    for value in ("", " \r\n"):
        COMMANDS["kmsactivate"](context, value)
    for value in ("", "{}", '{"server": null}'):
        SEALED_COMMANDS["kmsactivate"](context, value)
    assert system.done == [("activate", None)] * 5


def test_the_line_breaks_of_old_hosts(context: Context, system: StandinSystem) -> None:
    COMMANDS["kmsactivate"](context, "kms.example.com:1688\r\n")
    assert system.done == [("activate", "kms.example.com:1688")]


@pytest.mark.parametrize("value", ['{"server": 5}', '{"server": ""}', '{"host": "kms"}', "[]", "kms"])
def test_what_is_no_sealed_value(context: Context, system: StandinSystem, value: str) -> None:
    with pytest.raises(Refused) as raised:
        SEALED_COMMANDS["kmsactivate"](context, value)
    assert raised.value.code == "bad_arguments"


@given(st.text(max_size=300))
def test_nothing_gets_through_that_a_program_could_mistake(text: str) -> None:
    try:
        server = Server(text).text
    except Refused:
        return
    assert server.isascii()
    assert server.replace("-", "a").replace("_", "a").translate(dict.fromkeys(map(ord, ".:[]"))).isalnum()
    assert not server.startswith("-")
    assert len(server) <= MAX_HOST + 6


def test_a_system_without_it(context: Context) -> None:
    with pytest.raises(Unsupported) as raised:
        super(StandinSystem, StandinSystem()).activate(None)
    assert raised.value.code == "not_on_this_system"
