"""A house for each test that asks for one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .house import House, house


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: unix sockets allow 107 bytes, and pytest's own directories are long."""
    with tempfile.TemporaryDirectory(prefix="xw-") as name:
        yield Path(name)


@pytest.fixture
def home(directory: Path) -> Iterator[House]:
    """A house with the real agent in its guests."""
    with house(directory) as it:
        yield it
