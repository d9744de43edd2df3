from __future__ import annotations

import pytest

from guest_agent.service.windows_recovery import RESET_SECONDS, RESTART_SECONDS, SHUTDOWN_SECONDS, ensure

from .fake_windows import FakeSettings


def test_what_nobody_has_said() -> None:
    settings = FakeSettings()
    ensure(settings)
    assert settings.recovery == ((5, 30, 60), 86_400) == (RESTART_SECONDS, RESET_SECONDS)
    assert settings.shutdown_seconds == SHUTDOWN_SECONDS


def test_what_an_administrator_has_said_stays() -> None:
    settings = FakeSettings(recovery=((1,), 7))
    ensure(settings)
    assert settings.recovery == ((1,), 7)
    assert settings.shutdown_seconds == SHUTDOWN_SECONDS


def test_a_failure_is_told_and_keeps_nothing_from_serving(caplog: pytest.LogCaptureFixture) -> None:
    ensure(FakeSettings(failure=OSError(5, "Access is denied")))
    assert "Access is denied" in caplog.text
