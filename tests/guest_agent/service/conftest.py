from __future__ import annotations

import pytest

from .fake_windows import Windows


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Windows:
    """Stand-ins for pywin32's modules, for one test."""
    made = Windows()
    made.install(monkeypatch)
    return made
