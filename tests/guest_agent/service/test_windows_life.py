"""What the service control manager is told of the agent's life, and what an administrator finds in the log."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from agent_protocol.outcomes import Failed, Refused
from guest_agent.service.windows_life import STOP_SECONDS, TICK_SECONDS, Crashed, Ended, Life
from guest_agent.service.windows_recovery import SHUTDOWN_SECONDS

from .fake_windows import FakeManager

DEADLINE = 20.0


class FakeAgent:
    """Serves until it is stopped; `deaf` ones do not hear that."""

    def __init__(self, failure: BaseException | None = None, *, deaf: bool = False) -> None:
        self._failure = failure
        self._deaf = deaf
        self._stopped = threading.Event()
        self.released = threading.Event()
        self.serves = threading.Event()
        self.stops = 0

    def run(self) -> None:
        self.serves.set()
        if self._failure is not None:
            raise self._failure
        (self.released if self._deaf else self._stopped).wait(DEADLINE)

    def stop(self) -> None:
        self.stops += 1
        self._stopped.set()


def run(life: Life) -> tuple[threading.Thread, list[BaseException]]:
    raised: list[BaseException] = []

    def target() -> None:
        try:
            life.run()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread, raised


def raising(error: BaseException) -> Callable[[], FakeAgent]:
    def build() -> FakeAgent:
        raise error

    return build


def test_it_runs_until_it_is_asked_to_stop() -> None:
    manager, agent = FakeManager(), FakeAgent()
    life = Life(manager, lambda: agent)
    thread, raised = run(life)
    assert agent.serves.wait(DEADLINE)
    assert manager.told == [("running",)]
    life.stop()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert raised == []
    assert manager.told[1:] == [("stopping", 2 * TICK_SECONDS), ("stopped", Ended.AS_ASKED)]
    assert agent.stops == 1


def test_it_can_be_stopped_while_the_agent_is_made() -> None:
    """What is made is not run; and it is waited for, because it may be putting a network back."""
    manager, agent = FakeManager(), FakeAgent()
    begun, go_on = threading.Event(), threading.Event()

    def build() -> FakeAgent:
        begun.set()
        go_on.wait(DEADLINE)
        return agent

    life = Life(manager, build)
    thread, raised = run(life)
    assert begun.wait(DEADLINE)
    assert manager.told == [("running",)]
    life.stop()
    assert manager.stops.wait(DEADLINE)
    go_on.set()
    thread.join(DEADLINE)
    assert raised == []
    assert manager.told[-1] == ("stopped", Ended.AS_ASKED)
    assert not agent.serves.is_set()


def test_an_agent_whose_making_does_not_end_keeps_nobody_waiting_for_ever() -> None:
    manager = FakeManager()
    never = threading.Event()

    def build() -> FakeAgent:
        never.wait(DEADLINE)
        return FakeAgent()

    life = Life(manager, build, stop_seconds=0.02, tick_seconds=0.01)
    life.stop()
    life.run()
    assert manager.told[-1] == ("stopped", Ended.COMMAND_STILL_RUNS)
    never.set()


def test_being_asked_twice_is_as_being_asked_once() -> None:
    manager, agent = FakeManager(), FakeAgent()
    life = Life(manager, lambda: agent)
    thread, _ = run(life)
    assert agent.serves.wait(DEADLINE)
    life.stop()
    life.stop()
    thread.join(DEADLINE)
    assert agent.stops == 1
    assert [each for each in manager.told if each[0] == "stopped"] == [("stopped", Ended.AS_ASKED)]


def test_a_command_that_does_not_end_keeps_nobody_waiting_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    manager, agent = FakeManager(), FakeAgent(deaf=True)
    life = Life(manager, lambda: agent, stop_seconds=0.05, tick_seconds=0.01)
    thread, _ = run(life)
    assert agent.serves.wait(DEADLINE)
    life.stop()
    thread.join(DEADLINE)
    assert manager.told[1:] == [("stopping", 0.02)] * 5 + [("stopped", Ended.COMMAND_STILL_RUNS)]
    assert "whether it was done is not known" in caplog.text
    agent.released.set()


def test_the_end_of_the_system_waits_longer_than_a_stop_takes() -> None:
    assert STOP_SECONDS < SHUTDOWN_SECONDS


@pytest.mark.parametrize("code", ["bad_configuration", "unsafe_directory"])
def test_what_does_not_go_away_by_itself_is_the_services_own_error(code: str, caplog: pytest.LogCaptureFixture) -> None:
    manager = FakeManager()
    Life(manager, raising(Refused(code, "agent.conf: it is not UTF-8"))).run()
    assert manager.told[1:] == [("stopped", Ended.REFUSED)]
    assert "the agent cannot start: agent.conf: it is not UTF-8" in caplog.text


@pytest.mark.parametrize(
    "error",
    [
        ImportError("DLL load failed while importing _rust"),
        OSError("no such device"),
        Failed("cannot_read", "the configuration cannot be read"),
    ],
)
def test_what_may_go_away_ends_without_a_word_and_leaves_the_reason(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    manager = FakeManager()
    with pytest.raises(Crashed):
        Life(manager, raising(error)).run()
    assert manager.told == [("running",)]
    assert f"the agent cannot start: {type(error).__name__}: {error}" in caplog.text
    assert "in build" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]


class Panic(BaseException):
    """As a library in Rust raises it."""


@pytest.mark.parametrize("error", [Panic("hunter2"), ValueError("hunter2"), SystemExit("hunter2")])
def test_texts_that_could_come_from_anywhere_stay_out_of_the_log(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Crashed):
        Life(FakeManager(), raising(error)).run()
    assert type(error).__name__ in caplog.text
    assert "hunter2" not in caplog.text


def test_an_agent_that_fails_ends_the_process_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    manager = FakeManager()
    with pytest.raises(Crashed):
        Life(manager, lambda: FakeAgent(KeyError("hunter2"))).run()
    assert manager.told == [("running",)]
    assert "the agent failed: KeyError" in caplog.text
    assert "hunter2" not in caplog.text


def test_what_an_agent_that_serves_is_refused_may_go_away() -> None:
    with pytest.raises(Crashed):
        Life(FakeManager(), lambda: FakeAgent(Refused("something", "that goes away"))).run()


def test_an_agent_that_fails_while_it_stops_is_no_success() -> None:
    class Failing(FakeAgent):
        def run(self) -> None:
            super().run()
            raise OSError("gone")

    manager, agent = FakeManager(), Failing()
    life = Life(manager, lambda: agent)
    thread, raised = run(life)
    assert agent.serves.wait(DEADLINE)
    life.stop()
    thread.join(DEADLINE)
    assert [type(error) for error in raised] == [Crashed]
    assert "stopped" not in {each[0] for each in manager.told}


def test_an_agent_that_ends_by_itself_is_started_again(caplog: pytest.LogCaptureFixture) -> None:
    manager, agent = FakeManager(), FakeAgent()
    agent.stop()
    with pytest.raises(Crashed):
        Life(manager, lambda: agent).run()
    assert manager.told[-1] == ("running",)
    assert "the agent ended" in caplog.text
