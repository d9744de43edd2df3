"""processes.py and watchdog.py: programs end as asked, as a group, and none starts when the simulator ends."""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.simulator.processes import Program
from tools.simulator.watchdog import Watchdog

from .support import lives, until

STUBBORN = """
import os, pathlib, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child:
    pathlib.Path(sys.argv[1]).write_text(f"{child}.")
while True:
    signal.pause()
"""


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    watchdog = Watchdog()
    yield watchdog
    watchdog.close()


def launch(watchdog: Watchdog, code: str, *arguments: str, ended: threading.Event | None = None) -> Program:
    command = [sys.executable, "-I", "-S", "-c", code, *arguments]
    with tempfile.TemporaryFile() as output:
        return Program(watchdog, command, {}, output, output, on_exit=ended.set if ended else lambda: None)


def test_what_ignores_a_request_is_killed_with_its_children(watchdog: Watchdog, tmp_path: Path) -> None:
    note = tmp_path / "child"
    program = launch(watchdog, STUBBORN, str(note))
    until(lambda: note.exists() and note.read_text().endswith("."))
    child = int(note.read_text()[:-1])
    started = time.monotonic()
    program.stop(grace=0.2)
    assert 0.2 <= time.monotonic() - started < 5
    assert program.exit_code == -9
    until(lambda: not lives(child))
    program.stop(grace=0.2)


def test_end_is_told_once_and_reaped(watchdog: Watchdog) -> None:
    ended = threading.Event()
    program = launch(watchdog, "raise SystemExit(7)", ended=ended)
    assert program.wait(10)
    assert ended.is_set()
    assert program.exit_code == 7
    assert not Path(f"/proc/{program.pid}").exists()


def test_closing_kills_what_is_left_and_lets_nothing_start(watchdog: Watchdog) -> None:
    program = launch(watchdog, "import signal; signal.pause()")
    watchdog.close()
    assert program.wait(10)
    with pytest.raises(OSError, match="ending"):
        launch(watchdog, "pass")
    watchdog.close()
