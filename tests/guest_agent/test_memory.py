"""What the agent remembers is bounded, however many requests it serves."""

from __future__ import annotations

import threading

import pytest

from agent_protocol.messages import REPLIES, REQUESTS
from agent_protocol.outcomes import Outcome
from agent_protocol.xenstore import Client
from guest_agent import memory, unread
from guest_agent.commands import COMMANDS, Context

from .conftest import Host, agent_in_thread, wait_for
from .sealing import SealedHost
from .test_agent import refusing


def test_nothing_grows_with_the_requests(host: Host, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_REMEMBERED", 500)
    with agent_in_thread(host, context, COMMANDS) as agent:
        sealed = SealedHost(host)
        for number in range(1200):
            assert sealed.ask("ping").outcome is Outcome.SUCCEEDED
            if number % 10 == 0:  # a reply that nobody ever reads
                host.send("version")
        assert sealed.ask("ping").outcome is Outcome.SUCCEEDED
        session, keys = agent._session, agent._presence.sealed
        assert session is not None
        assert keys is not None
        with session._turn:
            assert len(agent._memory._taken) == 500
            assert len(agent._memory.answers) == 0
            assert 50 < len(agent._memory.unread._ids) <= unread.MAX_KNOWN
            assert len(session._interrupted) + len(session._events._postponed) == 0
            assert isinstance(session._store, Client)
            assert len(session._store._events) < 20
            assert len(session._store._replies) <= 1
            assert len(keys._keys._current.used) == 0


def test_answers_that_cannot_be_delivered_are_no_more_than_the_requests(
    host: Host, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = threading.Event()
    relent = refusing(REPLIES, refused, monkeypatch)
    with agent_in_thread(host, context, COMMANDS) as agent:
        host.wait_for_agent()
        for _ in range(30):
            request_id = host.send("version")
            wait_for(lambda id=request_id: id in agent._memory.answers)  # type: ignore[misc]
            host.remove(f"{REQUESTS}/{request_id}")
        wait_for(lambda: len(agent._memory.answers) <= 1)
        relent()
        assert host.ask("version")["returncode"] == "0"
        wait_for(lambda: agent._memory.answers == {})
    host.assert_nothing_left()
