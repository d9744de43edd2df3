from __future__ import annotations

import pytest

from guest_agent.system.windows import WindowsSystem

from .fakes import FakeWindows


@pytest.fixture
def windows() -> FakeWindows:
    return FakeWindows()


@pytest.fixture
def system(windows: FakeWindows) -> WindowsSystem:
    return WindowsSystem(windows.api)
