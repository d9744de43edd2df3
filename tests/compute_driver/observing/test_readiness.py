from __future__ import annotations

import logging
import threading

import pytest

from agent_protocol.outcomes import Unreachable
from compute_driver.observing.readiness import Readiness, Result


def holds() -> str:
    return ""


def test_each_check_is_told_by_its_name(caplog: pytest.LogCaptureFixture) -> None:
    def honest() -> str:
        raise Unreachable("database_unavailable", "The database is unavailable.")

    def wrong() -> str:
        raise KeyError("hunter22")

    report = Readiness({"lease": holds, "bus": lambda: "not connected", "database": honest, "wrong": wrong}).report()
    assert report == {
        "lease": Result(True, ""),
        "bus": Result(False, "not connected"),
        "database": Result(False, "The database is unavailable. (database_unavailable)"),
        "wrong": Result(False, "internal error: KeyError"),
    }
    assert "hunter22" not in "".join(record.getMessage() for record in caplog.records)


def test_a_fresh_result_is_not_asked_for_again() -> None:
    asked: list[int] = []

    def check() -> str:
        asked.append(1)
        return ""

    readiness = Readiness({"one": check}, fresh=3600)
    for _ in range(100):
        assert readiness.report()["one"].ok
    assert len(asked) == 1
    stale = Readiness({"one": check}, fresh=0)
    stale.report()
    stale.report()
    assert len(asked) == 3


def test_a_check_that_hangs_runs_once_and_does_not_hold_the_others() -> None:
    go, started = threading.Event(), []

    def hangs() -> str:
        started.append(1)
        go.wait(60)
        return ""

    readiness = Readiness({"hangs": hangs, "holds": holds}, limit=0.05, fresh=0)
    before = threading.active_count()
    try:
        for _ in range(5):
            assert readiness.report() == {
                "hangs": Result(False, "no answer within 0.05 s"),
                "holds": Result(True, ""),
            }
        assert len(started) == 1
        assert threading.active_count() <= before + 2
    finally:
        go.set()


def test_many_who_ask_at_once_share_one_answer() -> None:
    go, all_ask, started = threading.Event(), threading.Barrier(9, timeout=30), []
    found: list[Result] = []

    def slow() -> str:
        started.append(1)
        go.wait(30)
        return ""

    readiness = Readiness({"slow": slow}, limit=30, fresh=3600)

    def ask() -> None:
        all_ask.wait()
        found.append(readiness.report()["slow"])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    all_ask.wait()
    go.set()
    for thread in threads:
        thread.join(30)
    assert found == [Result(True, "")] * 8
    assert len(started) == 1


def test_changes_are_logged_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    answers = ["", "", "gone", "gone", ""]
    readiness = Readiness({"bus": lambda: answers.pop(0)}, fresh=0)
    for _ in range(5):
        readiness.report()
    assert [record.getMessage() for record in caplog.records] == ["bus: holds", "bus: gone", "bus: holds"]
