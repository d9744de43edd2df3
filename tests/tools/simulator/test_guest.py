"""A guest has one agent at most, whatever happens to it at the same time."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools.simulator.guest import Guest
from tools.simulator.processes import Program
from tools.simulator.watchdog import Watchdog

from .support import lives, until

COMMAND = ("/bin/sh", "-c", "echo $$ >> {root}/var/log/boots; exec sleep 600")


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    watchdog = Watchdog()
    it = Guest(tmp_path / "guest", tmp_path / "xenbus", COMMAND, watchdog)
    it.start(tmp_path / "1.sock", paused=False)
    yield it
    it.cut_power()
    watchdog.close()


def agents(guest: Guest) -> list[int]:
    """Those that run."""
    boots = guest.root / "var/log/boots"
    return [pid for pid in map(int, boots.read_text().split()) if lives(pid)] if boots.exists() else []


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Has something happen once, when an agent was killed and not started again yet."""

    def install(happen: Callable[[], None]) -> None:
        send = Program.signal
        todo = [happen]

        def signal_and_happen(self: Program, number: signal.Signals) -> None:
            send(self, number)
            if todo:
                todo.pop()()

        monkeypatch.setattr(Program, "signal", signal_and_happen)

    return install


def test_a_guest_that_reboots_while_its_agent_is_restarted(
    guest: Guest, meanwhile: Callable[[Callable[[], None]], None], tmp_path: Path
) -> None:
    def reboot() -> None:
        guest.cut_power()
        guest.start(tmp_path / "2.sock", paused=False)

    meanwhile(reboot)
    guest.kill_agent(restart=True)
    (of_the_boot,) = until(lambda: agents(guest))
    guest.kill_agent(restart=True)
    until(lambda: agents(guest) not in ([], [of_the_boot]))
    assert len(agents(guest)) == 1
    guest.shut_down()
    assert agents(guest) == []


def test_a_guest_that_goes_down_while_its_agent_is_restarted(
    guest: Guest, meanwhile: Callable[[Callable[[], None]], None]
) -> None:
    meanwhile(guest.cut_power)
    guest.kill_agent(restart=True)
    assert not (guest.root.parent / "agent.pid").exists()
    guest.kill_agent(restart=True)
    assert not (guest.root.parent / "agent.pid").exists()


def test_an_agent_that_is_restarted_twice_at_once(
    guest: Guest, meanwhile: Callable[[Callable[[], None]], None]
) -> None:
    meanwhile(lambda: guest.kill_agent(restart=True))
    guest.kill_agent(restart=True)
    until(lambda: agents(guest))
    guest.shut_down()
    assert agents(guest) == []


def test_a_boot_ends_what_was_left_of_another(guest: Guest, tmp_path: Path) -> None:
    (left,) = until(lambda: agents(guest))
    guest.start(tmp_path / "2.sock", paused=False)
    until(lambda: agents(guest) not in ([], [left]))
    assert len(agents(guest)) == 1
