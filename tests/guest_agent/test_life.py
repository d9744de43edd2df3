"""The store comes late, goes, comes back as it was or as another one: the agent's process stays, and serves."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent_protocol.messages import REPLIES, REQUESTS
from agent_protocol.outcomes import Outcome
from agent_protocol.xenstore import Client, StoreClosed, connect
from guest_agent.agent import FIRST_PAUSE, LONGEST_PAUSE, Agent
from guest_agent.commands import COMMANDS, SEALED_COMMANDS, Context

from .conftest import DEADLINE, AgentProcess, Host, Store, wait_for
from .sealing import SealedHost
from .test_agent import BLOCKING

StartAgent = Callable[..., AgentProcess]


@pytest.fixture
def start(store: Store, root: Path, tmp_path: Path) -> Iterator[StartAgent]:
    """Starts the agent's process for that store, whether it runs or not."""
    agents: list[AgentProcess] = []

    def begin(code: str | None = None) -> AgentProcess:
        agents.append(AgentProcess(store, root, tmp_path / "agent.log", code))
        return agents[-1]

    yield begin
    for agent in agents:
        agent.process.kill()
        agent.process.wait(DEADLINE)


def lost_lines(agent: AgentProcess) -> list[str]:
    return [line.split(" ", 3)[3].split(":")[0] for line in agent.log.splitlines() if "the store is" in line]


LOST, BACK = "the store is lost, and looked for again", "the store is back"


def test_a_store_that_comes_late(store: Store, start: StartAgent) -> None:
    agent = start()
    wait_for(lambda: lost_lines(agent) == [LOST])
    host = store.start()
    host.wait_for_agent()
    assert host.ask("version")["returncode"] == "0"
    assert agent.end() == 0
    assert lost_lines(agent) == [LOST, BACK]


def test_a_device_that_gives_errors(store: Store, start: StartAgent) -> None:
    store.guest_socket.symlink_to("/dev/full")
    agent = start()
    wait_for(lambda: lost_lines(agent) == [LOST])
    assert "ENOSPC" in agent.log
    store.guest_socket.unlink()
    host = store.start()
    host.wait_for_agent()
    assert host.ask("version")["returncode"] == "0"


PATIENT = """
import sys
from guest_agent import agent
from guest_agent.__main__ import main

agent.FIRST_PAUSE = agent.LONGEST_PAUSE = 1e6
sys.exit(main())
"""


def test_the_end_while_there_is_no_store(store: Store, start: StartAgent) -> None:
    host = store.start()
    agent = start(PATIENT)
    host.wait_for_agent()
    store.stop()
    wait_for(lambda: lost_lines(agent) == [LOST])
    agent.process.send_signal(signal.SIGTERM)
    assert agent.process.wait(DEADLINE) == 0


def test_restarts_that_lose_the_tree(store: Store, start: StartAgent) -> None:
    host = store.start()
    agent = start()
    sealed = SealedHost(host)
    boot_id = sealed.advert().boot_id
    for restart in range(3):
        assert sealed.ask("ping").outcome is Outcome.SUCCEEDED
        store.stop()
        host = store.start()
        # With the key from before, and before the agent is back.
        sealed.host = host
        asked = sealed.seal("ping")
        sealed.send(asked)
        assert sealed.finish(asked)[1].outcome is Outcome.SUCCEEDED
        host.wait_for_agent()
        assert (sealed.advert().identity, sealed.advert().boot_id) == (sealed.identity, boot_id)
        host.wait(lambda: sealed.advert().key == sealed.key, "the current key")
        host.assert_nothing_left()
        assert lost_lines(agent) == [LOST, BACK] * (restart + 1)
    assert agent.process.poll() is None


def test_the_advert_comes_back(store: Store, start: StartAgent) -> None:
    host = store.start()
    start()
    advert = SealedHost(host).advert()
    store.stop()
    host = store.start()
    host.wait_for_agent()
    assert SealedHost(host).advert().key == advert.key


def test_requests_before_while_and_after_the_store_is_away(store: Store, start: StartAgent, root: Path) -> None:
    host = store.start()
    agent = start(BLOCKING)
    host.wait_for_agent()
    (root / "blocked").touch()
    before = host.send("block")
    wait_for((root / "effects").exists)
    store.cut()
    withdrawn = host.send("block")
    host.remove(f"{REQUESTS}/{withdrawn}")
    meanwhile = host.send("block")
    (root / "blocked").unlink()
    wait_for(lambda: f"request {before} block" in agent.log)
    assert host.read(f"{REPLIES}/{before}") is None
    store.mend()
    for request_id in (before, meanwhile, host.send("block")):
        assert host.reply(request_id) == {"returncode": "0", "message": "done", "outcome": "succeeded"}
    assert (root / "effects").read_text() == "once " * 3
    host.assert_nothing_left()


def test_withdrawn_while_the_store_was_away(store: Store, start: StartAgent, root: Path) -> None:
    host = store.start()
    agent = start(BLOCKING)
    host.wait_for_agent()
    (root / "blocked").touch()
    before = host.send("block")
    wait_for((root / "effects").exists)
    store.cut()
    host.remove(f"{REQUESTS}/{before}")
    (root / "blocked").unlink()
    wait_for(lambda: f"request {before} block" in agent.log)
    store.mend()
    assert host.ask("version")["returncode"] == "0"
    host.assert_nothing_left()


def test_asked_again_in_another_tree(store: Store, start: StartAgent, root: Path) -> None:
    """A migration in the middle of a command: who asks again under the same id gets the answer that was not told."""
    host = store.start()
    agent = start(BLOCKING)
    host.wait_for_agent()
    (root / "blocked").touch()
    request_id = host.send("block")
    wait_for((root / "effects").exists)
    store.stop()
    (root / "blocked").unlink()
    wait_for(lambda: f"request {request_id} block" in agent.log)
    host = store.start()
    host.send("block", request_id=request_id)
    assert host.reply(request_id)["message"] == "done"
    assert (root / "effects").read_text() == "once "
    # Told, and so not told again.
    assert host.reply(host.send("block", request_id=request_id))["code"] == "request_id_reused"
    host.assert_nothing_left()


def test_answers_nobody_asks_for_any_more_are_dropped(store: Store, start: StartAgent, root: Path) -> None:
    host = store.start()
    agent = start(BLOCKING)
    host.wait_for_agent()
    (root / "blocked").touch()
    request_id = host.send("block")
    wait_for((root / "effects").exists)
    store.stop()
    (root / "blocked").unlink()
    wait_for(lambda: f"request {request_id} block" in agent.log)
    host = store.start()
    assert host.ask("version")["returncode"] == "0"
    host.assert_nothing_left()


class Pauses(threading.Event):
    """Notes for how long the agent would wait, and ends it after ten times."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.noted.append(timeout or 0.0)
        if len(self.noted) == 10:
            self.set()
        return self.is_set()


def unreachable() -> Client:
    raise StoreClosed("nobody there")


def test_pauses_grow(context: Context, caplog: pytest.LogCaptureFixture) -> None:
    agent = Agent(unreachable, COMMANDS, SEALED_COMMANDS, context)
    pauses = Pauses()
    agent._stopping = pauses
    agent.run()
    assert (FIRST_PAUSE, LONGEST_PAUSE) == (0.1, 5.0)
    assert pauses.noted == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 5.0])
    assert [record.message for record in caplog.records] == [LOST + ": nobody there"]


def test_a_store_that_goes_at_once_is_not_asked_at_once(
    host: Host, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Client, "next_event", lambda self, timeout: unreachable())
    agent = Agent(lambda: connect(str(host.guest_socket)), COMMANDS, SEALED_COMMANDS, context)
    pauses = Pauses()
    agent._stopping = pauses
    agent.run()
    assert pauses.noted[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])
