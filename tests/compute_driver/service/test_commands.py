"""`xenward` with the embedded bus: several commands at the same time, each with a service of its own."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.house import House, house


@pytest.fixture
def home() -> Iterator[House]:
    # A short path, for the simulator's sockets.
    with tempfile.TemporaryDirectory(prefix="xw-") as name, house(Path(name)) as it:
        it.configure(endpoint={"port": "-1"})
        yield it


def test_two_commands_work_together_and_the_next_ends_what_a_killed_one_left(home: House) -> None:
    creating = [home.start("server", "create", name, "--generate", "-f", "json") for name in ("one", "two")]
    assert [home.end(command).status for command in creating] == [0, 0]
    control = home.simulator.control
    control.log_calls()
    slow = control.add_rule("VM.hard_reboot", "delay", seconds=120.0)
    first, second = (home.start("server", "reboot", name, "--hard", "-f", "json") for name in ("one", "two"))
    # Both are at it.
    control.await_calls("VM.hard_reboot", 2, 60.0)
    first.send_signal(signal.SIGKILL)
    home.end(first)
    control.remove_rule(slow)
    assert home.end(second).status == 0
    assert home.last_action("two") == ("reboot", "succeeded", "")
    # The first to come when nobody was there any more has ended what the killed one had begun.
    assert home.last_action("one") == ("reboot", "unknown", "service_ended")
    assert home.xenward("server", "reboot", "one", "--hard").status == 0
    assert [row["vm_state"] for row in home.xenward("server", "list").shown] == ["active", "active"]
