"""What an idle agent costs its guest."""

from __future__ import annotations

import pytest

from tools.commands.idle import measure_idle

MINUTE = 60.0

MOST_MEMORY = 30 * 1024 * 1024
"""Bytes of resident memory: no more than a guest of the smallest flavour can spare."""


@pytest.mark.services
def test_an_idle_minute() -> None:
    figures = measure_idle(MINUTE)
    print(figures)
    assert figures.wakeups == 0
    assert figures.rss < MOST_MEMORY


def test_the_measurement_sees_an_agent() -> None:
    figures = measure_idle(0)
    assert figures.rss > 10 * 1024 * 1024
    assert figures.start_seconds > 0
