"""The log of a Windows service: a file that is rotated, and the event log."""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from guest_agent import log_windows
from guest_agent.log_windows import MAX_EVENT, Events, RotatedFile


class FakeEvents:
    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.reported: list[tuple[int, str]] = []

    def report(self, level: int, text: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.reported.append((level, text))


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, hook = list(root.handlers), root.level, threading.excepthook
    monkeypatch.setattr(logging, "raiseExceptions", True)
    yield
    root.handlers[:], root.level, threading.excepthook = handlers, level, hook


def record(text: str, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("test", level, __file__, 1, text, (), None)


class TestRotatedFile:
    def test_lines(self, tmp_path: Path) -> None:
        handler = RotatedFile(str(tmp_path / "agent.log"))
        handler.emit(record("one"))
        handler.emit(record("zwölf \ud800"))
        assert (tmp_path / "agent.log").read_bytes() == "one\nzwölf \\ud800\n".encode()

    def test_it_goes_on_in_the_file_that_is_there(self, tmp_path: Path) -> None:
        (tmp_path / "agent.log").write_text("before\n")
        RotatedFile(str(tmp_path / "agent.log")).emit(record("after"))
        assert (tmp_path / "agent.log").read_text() == "before\nafter\n"

    def test_a_full_file_makes_room_for_a_new_one_and_the_oldest_goes(self, tmp_path: Path) -> None:
        handler = RotatedFile(str(tmp_path / "agent.log"), size=4, files=3)
        for text in "abcdef":
            handler.emit(record(text))
        handler.emit(record("g"))
        found = {path.name: path.read_text() for path in tmp_path.iterdir()}
        assert found == {"agent.log": "g\n", "agent.log.1": "e\nf\n", "agent.log.2": "c\nd\n"}

    def test_a_file_is_filled_to_the_last_byte(self, tmp_path: Path) -> None:
        handler = RotatedFile(str(tmp_path / "agent.log"), size=4, files=2)
        handler.emit(record("a"))
        handler.emit(record("b"))
        assert [path.name for path in tmp_path.iterdir()] == ["agent.log"]

    def test_no_file_is_larger_than_it_may_be(self, tmp_path: Path) -> None:
        handler = RotatedFile(str(tmp_path / "agent.log"), size=4, files=2)
        handler.emit(record("ab"))
        handler.emit(record("cd"))
        found = {path.name: path.read_text() for path in tmp_path.iterdir()}
        assert found == {"agent.log": "cd\n", "agent.log.1": "ab\n"}

    def test_a_file_that_somebody_holds_grows_and_the_older_ones_stay(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        handler = RotatedFile(str(tmp_path / "agent.log"), size=4, files=3)
        for text in "abcd":
            handler.emit(record(text))
        real = os.replace

        def held(source: str, target: str) -> None:
            if source.endswith("agent.log"):
                raise PermissionError(errno.EACCES, "in use by another process")
            real(source, target)

        monkeypatch.setattr(os, "replace", held)
        for text in "efgh":
            handler.emit(record(text))
        found = {path.name: path.read_text() for path in tmp_path.iterdir()}
        assert found == {"agent.log": "c\nd\ne\nf\ng\nh\n", "agent.log.1": "a\nb\n"}
        monkeypatch.setattr(os, "replace", real)
        handler.emit(record("i"))
        assert (tmp_path / "agent.log").read_text() == "i\n"
        assert (tmp_path / "agent.log.1").read_text() == "c\nd\ne\nf\ng\nh\n"
        assert (tmp_path / "agent.log.2").read_text() == "a\nb\n"

    def test_what_cannot_be_written_is_lost(self, tmp_path: Path) -> None:
        handler = RotatedFile(str(tmp_path / "missing" / "agent.log"))
        handler.emit(record("one"))
        (tmp_path / "missing").mkdir()
        handler.emit(record("two"))
        assert (tmp_path / "missing/agent.log").read_text() == "two\n"


class TestEvents:
    def test_a_text_that_is_too_long_or_has_a_nul(self) -> None:
        events = FakeEvents()
        Events(events).emit(record("a\0b" + MAX_EVENT * "c", logging.WARNING))
        ((_, text),) = events.reported
        assert text == ("a\\0b" + MAX_EVENT * "c")[:MAX_EVENT]

    def test_an_event_log_that_is_full(self) -> None:
        Events(FakeEvents(OSError("the event log is full"))).emit(record("one", logging.ERROR))


class TestSetUp:
    def test_warnings_are_events_and_everything_is_in_the_file(self, tmp_path: Path) -> None:
        events = FakeEvents()
        log_windows.set_up(events)
        log_windows.to_file(str(tmp_path / "agent.log"))
        logger = logging.getLogger("guest_agent.test")
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
            logger.log(level, "level %s", level)
        assert events.reported == [(logging.WARNING, "level 30"), (logging.ERROR, "level 40"), (40, "level 50")]
        lines = (tmp_path / "agent.log").read_text().splitlines()
        assert [line.split(" ", 2)[2] for line in lines] == [
            "INFO level 20",
            "WARNING level 30",
            "ERROR level 40",
            "CRITICAL level 50",
        ]

    def test_a_service_has_no_standard_streams_and_nothing_breaks_by_that(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdout", None)
        monkeypatch.setattr(sys, "stderr", None)
        log_windows.set_up(FakeEvents())
        assert sys.stdout is not None
        assert sys.stderr is not None
        sys.stdout.write("something")
        sys.stderr.write("something")
        sys.stdout.close()
        sys.stderr.close()

    def test_a_thread_that_ends_leaves_its_name_and_no_text(self) -> None:
        events = FakeEvents()
        log_windows.set_up(events)

        def fail() -> None:
            raise ValueError("hunter2")

        thread = threading.Thread(target=fail, name="reader")
        thread.start()
        thread.join()
        assert events.reported == [(logging.ERROR, "the thread reader ended with ValueError")]

    def test_a_broken_format_ends_nothing(self) -> None:
        log_windows.set_up(FakeEvents())
        logging.getLogger("guest_agent.test").warning("%d", "no number")
