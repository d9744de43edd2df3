from __future__ import annotations

from pathlib import Path

import pytest

from guest_agent.update.running import Launch


@pytest.fixture
def launch(updates: Path) -> Launch:
    """A start as the packaged agent."""
    return Launch(("python3",), str(updates), None)
