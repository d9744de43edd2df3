from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_protocol.adverts import SealingKey
from agent_protocol.identity import fingerprint
from agent_protocol.outcomes import Refused
from compute_driver.agents import LEGACY, SEALED, AgentInfo, AgentsInMemory
from compute_driver.db.repository import Repository
from compute_driver.errors import InstanceNotFound
from compute_driver.memory import RepositoryMemory

AGENT = AgentInfo(
    "1.0", ("version", "password"), SEALED, bytes(range(32)), SealingKey("0123456789abcdef", bytes(32)), -3, "vm-uuid"
)
OFFSET = 2**31 - 1


def agents(text: st.SearchStrategy[str]) -> st.SearchStrategy[AgentInfo]:
    return st.builds(
        AgentInfo,
        version=text,
        features=st.lists(text, max_size=4).map(tuple),
        protocol=st.sampled_from([LEGACY, SEALED]),
        identity=st.none() | st.binary(min_size=32, max_size=32),
        key=st.none()
        | st.builds(SealingKey, st.from_regex(r"[0-9a-f]{16}", fullmatch=True), st.binary(min_size=32, max_size=32)),
        clock_offset=st.integers(-OFFSET, OFFSET),
        guest=text,
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
MEMBERS = list(AGENT.to_dict())


@given(agents(st.text(max_size=40)))
def test_an_agent_crosses_a_bus_of_plain_data(agent: AgentInfo) -> None:
    data = json.loads(json.dumps(agent.to_dict()))
    assert AgentInfo.from_dict(data) == agent
    assert data["fingerprint"] == (fingerprint(agent.identity) if agent.identity else None)


@given(st.sampled_from(MEMBERS), JSON)
def test_what_is_not_of_that_form_is_refused(name: str, value: Any) -> None:
    try:
        agent = AgentInfo.from_dict({**AGENT.to_dict(), name: value})
    except Refused as error:
        assert error.code == "bad_agent"
    else:
        assert agent.identity is None or len(agent.identity) == 32
        assert agent.key is None or len(agent.key.public) == 32


@pytest.mark.parametrize("name", [name for name in MEMBERS if name != "fingerprint"])
def test_nothing_may_be_missing(name: str) -> None:
    data = AGENT.to_dict()
    del data[name]
    with pytest.raises(Refused) as caught:
        AgentInfo.from_dict(data)
    assert caught.value.code == "bad_agent"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("identity", "AAAA"),
        ("identity", "!" * 44),
        ("identity", 7),
        ("key_id", "0123"),
        ("key_id", 7),
        ("key_public", None),
        ("key_public", "AAAA"),
        ("clock_offset", None),
        ("clock_offset", float("inf")),
        ("features", None),
    ],
)
def test_keys_of_another_size_are_refused(name: str, value: Any) -> None:
    with pytest.raises(Refused) as caught:
        AgentInfo.from_dict({**AGENT.to_dict(), name: value})
    assert caught.value.code == "bad_agent"


def test_the_memory_of_a_process() -> None:
    memory = AgentsInMemory()
    assert memory.recall("uuid-web") is None
    memory.remember("uuid-web", AGENT)
    assert memory.recall("uuid-web") == AGENT
    assert memory.recall("another") is None
    memory.forget("another")
    assert memory.recall("uuid-web") == AGENT
    memory.forget("uuid-web")
    assert memory.recall("uuid-web") is None


# In the database


@pytest.fixture
def memory(repository: Repository) -> RepositoryMemory:
    repository.create_instance(uuid="uuid-web", display_name="web", host="here", memory_mb=64, vcpus=1, root_gb=1)
    return RepositoryMemory(repository)


# Any text that is no identifier is cut and cleaned: what comes back may differ in that.
WORDS = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), max_size=40)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(agent=agents(WORDS))
def test_what_is_remembered_is_recalled(memory: RepositoryMemory, agent: AgentInfo) -> None:
    memory.remember("uuid-web", agent)
    assert memory.recall("uuid-web") == agent


def test_nothing_is_recalled_of_an_agent_that_was_never_met(memory: RepositoryMemory) -> None:
    assert memory.recall("uuid-web") is None
    assert memory.recall("nobody") is None


def test_the_pin_can_be_taken_back(memory: RepositoryMemory) -> None:
    memory.remember("uuid-web", AGENT)
    unpinned = AgentInfo("2", (), LEGACY)
    memory.remember("uuid-web", unpinned)
    assert memory.recall("uuid-web") == unpinned


def test_an_agent_that_was_forgotten_is_a_stranger_again(memory: RepositoryMemory, repository: Repository) -> None:
    repository.create_instance(uuid="uuid-db", display_name="db", host="here", memory_mb=64, vcpus=1, root_gb=1)
    memory.remember("uuid-web", AGENT)
    memory.remember("uuid-db", AGENT)
    for _ in range(2):
        memory.forget("uuid-web")
        assert memory.recall("uuid-web") is None
    assert memory.recall("uuid-db") == AGENT
    memory.forget("nobody")
    memory.forget("nul\0")


def test_nothing_is_remembered_of_an_instance_that_is_gone(memory: RepositoryMemory, repository: Repository) -> None:
    repository.delete_instance("uuid-web")
    with pytest.raises(InstanceNotFound):
        memory.remember("uuid-web", AGENT)


def test_what_an_agent_says_of_itself_may_be_anything(memory: RepositoryMemory) -> None:
    odd = AgentInfo("v" * 300, ("half \ud800", "nul\0"), SEALED, AGENT.identity, AGENT.key, OFFSET, "vm-uuid")
    memory.remember("uuid-web", odd)
    recalled = memory.recall("uuid-web")
    assert recalled is not None
    assert (recalled.version, recalled.identity, recalled.clock_offset) == ("v" * 64, AGENT.identity, OFFSET)
