from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from guest_agent.launch import PROVEN, ROLLED_BACK, TRYING, State, read_state, write_state
from guest_agent.update.running import Launch, Process

from ..conftest import names
from .agents import put, small_agent


@pytest.fixture(autouse=True)
def alarms(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the kernel's timer was set to; the real one is the test runner's own."""
    seen: list[int] = []
    monkeypatch.setattr(signal, "alarm", seen.append)
    return seen


def process(launch: Launch, version: str | None) -> Process:
    started = Process()
    started.launched(launch.command, launch.updates, version)
    return started


def test_who_serves_is_proven(updates: Path, launch: Launch, alarms: list[int]) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0", "1.3.0.unfinished"):
        put(updates / version, small_agent("1.0.0"))
    write_state(str(updates), State("1.2.0", TRYING, 2, "1.1.0"))
    running = process(launch, "1.2.0")
    running.confirm()
    assert read_state(str(updates)) == State("1.2.0", PROVEN, 0, "1.1.0")
    assert names(updates) == ["1.1.0", "1.2.0", "state.json"]
    # Again, at each new connection to the store: nothing more.
    write_state(str(updates), State("1.3.0", TRYING, 0, "1.2.0"))
    running.confirm()
    assert read_state(str(updates)) == State("1.3.0", TRYING, 0, "1.2.0")
    assert alarms == [0]


@pytest.mark.parametrize(
    ("version", "state"),
    [
        (None, State("1.2.0", TRYING, 1)),
        ("1.1.0", State("1.2.0", TRYING, 1, "1.1.0")),
        ("1.2.0", State("1.2.0", ROLLED_BACK, 2, None, "it crashed")),
        ("1.1.0", State("1.2.0", ROLLED_BACK, 2, "1.1.0", "it crashed")),
    ],
)
def test_nobody_proves_another_one(updates: Path, launch: Launch, version: str | None, state: State) -> None:
    write_state(str(updates), state)
    process(launch, version).confirm()
    assert read_state(str(updates)) == state


def test_without_a_launcher_nothing(updates: Path) -> None:
    alone = Process()
    alone.confirm()
    assert alone.state() == {}
    assert not alone.restart_wanted
    with pytest.raises(RuntimeError):
        alone.restart()


@pytest.mark.parametrize("content", [None, b"{"])
def test_serving_goes_before_noting(
    updates: Path, launch: Launch, content: bytes | None, caplog: pytest.LogCaptureFixture, alarms: list[int]
) -> None:
    if content is not None:
        (updates / "state.json").write_bytes(content)
    process(replace(launch, updates=str(updates)), "1.2.0").confirm()
    assert alarms == [0]
    assert ("cannot be noted" in caplog.text) is (content is not None)


def test_state_for_telling(updates: Path, launch: Launch) -> None:
    running = process(launch, None)
    assert running.state() == {}
    write_state(str(updates), State("1.2.0", ROLLED_BACK, 2, None, "it crashed"))
    assert running.state() == {"version": "1.2.0", "state": "rolled_back", "attempts": 2, "reason": "it crashed"}
    write_state(str(updates), State("1.2.0", PROVEN, 0, "1.1.0"))
    assert running.state() == {"version": "1.2.0", "state": "proven", "previous": "1.1.0"}
    (updates / "state.json").write_bytes(b"[]")
    assert running.state() == {}
    updates.chmod(0o777)
    assert running.state() == {}


def test_restart_is_by_the_launcher(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    def execv(program: str, arguments: tuple[str, ...]) -> None:
        raise InterruptedError(program, *arguments)

    monkeypatch.setattr(os, "execv", execv)
    with pytest.raises(InterruptedError) as caught:
        process(replace(launch, command=("/usr/bin/python3", "-I", "launch.py")), None).restart()
    assert caught.value.args[0] == "/usr/bin/python3"
