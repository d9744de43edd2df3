from __future__ import annotations

import threading
from typing import Any

import pytest

from compute_driver.errors import ActionEnded, DatabaseUnavailable
from compute_driver.fencing import LeaseLost
from compute_driver.recording import Recorder

DEADLINE = 10.0


class Database:
    """away: for how many questions more. written: what it took."""

    def __init__(self, away: int = 0) -> None:
        self.away = away
        self.asked = 0
        self.written: list[object] = []

    def write(self, what: object = None) -> object:
        self.asked += 1
        if self.away:
            self.away -= 1
            raise DatabaseUnavailable("gone")
        self.written.append(what)
        return what


def test_it_is_asked_until_it_answers(caplog: pytest.LogCaptureFixture) -> None:
    database = Database(away=3)
    assert Recorder().insist(lambda: database.write("it")) == "it"
    assert (database.asked, database.written) == (4, ["it"])
    assert len(caplog.records) == 1


def test_other_errors_are_not_waited_for() -> None:
    calls: list[int] = []

    def write() -> None:
        calls.append(1)
        raise ActionEnded(7)

    with pytest.raises(ActionEnded):
        Recorder().record(write)
    assert len(calls) == 1


def test_patience_ends() -> None:
    database = Database(away=1000)
    with pytest.raises(DatabaseUnavailable):
        Recorder(0.0).insist(database.write)
    assert database.asked == 1
    with pytest.raises(DatabaseUnavailable):
        Recorder(0.2).insist(database.write)
    assert database.asked > 2


def test_what_was_not_taken_is_kept_in_its_order() -> None:
    recorder, database = Recorder(0.0), Database(away=3)
    for number in range(2):
        with pytest.raises(DatabaseUnavailable):
            recorder.record(lambda number=number: database.write(number))  # type: ignore[misc]
    assert recorder.waiting == 2
    with pytest.raises(DatabaseUnavailable):
        recorder.catch_up()
    assert (recorder.waiting, database.written) == (2, [])
    recorder.catch_up()
    assert (recorder.waiting, database.written) == (0, [0, 1])
    recorder.catch_up()
    assert database.written == [0, 1]


def test_questions_are_not_kept() -> None:
    recorder, database = Recorder(0.0), Database(away=1)
    with pytest.raises(DatabaseUnavailable):
        recorder.insist(database.write)
    assert recorder.waiting == 0


@pytest.mark.parametrize("error", [ActionEnded(7), LeaseLost("here")])
def test_what_is_somebody_elses_by_now_keeps_nothing_waiting(error: Exception) -> None:
    recorder, database = Recorder(0.0), Database(away=2)
    ends: list[Any] = [DatabaseUnavailable("gone"), error]

    def write() -> None:
        raise ends.pop(0)

    with pytest.raises(DatabaseUnavailable):
        recorder.record(write)
    with pytest.raises(DatabaseUnavailable):
        recorder.record(lambda: database.write("behind it"))
    database.away = 0
    recorder.catch_up()
    assert (recorder.waiting, database.written) == (0, ["behind it"])


def test_after_its_stop_nothing_is_waited_for() -> None:
    recorder, database, asked = Recorder(), Database(away=10**9), threading.Event()
    errors: list[BaseException] = []

    def write() -> object:
        asked.set()
        return database.write()

    def run() -> None:
        try:
            recorder.record(write)
        except DatabaseUnavailable as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert asked.wait(DEADLINE)
    recorder.stop()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert len(errors) == 1
    assert recorder.waiting == 1
