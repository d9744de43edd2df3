from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.labs.wine import disk

from .support import put_python
from .xenstore import Place, placed


@pytest.fixture(scope="session")
def windows_disk() -> Iterator[Path]:
    """A disk with Python, for copies."""
    with tempfile.TemporaryDirectory(prefix="xw-wine-") as directory:
        made = Path(directory, "disk")
        disk.copy(disk.installed(), made)
        put_python(made)
        yield made


@pytest.fixture
def new_disk(windows_disk: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="xw-wine-") as directory:
        made = Path(directory, "disk")
        disk.copy(windows_disk, made)
        yield made


@pytest.fixture(scope="module")
def place(windows_disk: Path) -> Iterator[Place]:
    """A machine that runs as a guest, and the store that it is a guest of."""
    with placed(windows_disk) as place:
        yield place
