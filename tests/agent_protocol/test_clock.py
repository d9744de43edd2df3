from __future__ import annotations

import time

import pytest

from agent_protocol import clock


def test_it_is_the_one_that_counts_suspension(monkeypatch: pytest.MonkeyPatch) -> None:
    assert clock._BOOTTIME == time.CLOCK_BOOTTIME
    monkeypatch.setattr(time, "clock_gettime", lambda number: {time.CLOCK_BOOTTIME: 7200.0}[number])
    assert clock.elapsed() == 7200.0


def test_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_BOOTTIME", None)
    assert time.monotonic() <= clock.elapsed() <= time.monotonic()
