"""Fresh databases for tests that need many."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from compute_driver.db.repository import Repository

from ..conftest import Databases


@pytest.fixture
def fresh(databases: Databases, repository: Repository, tmp_path: Path) -> Callable[[], Repository]:
    """Gives an empty database at each call; those before are closed."""
    del repository
    numbers = itertools.count()
    return lambda: databases.turn_to(tmp_path / f"{next(numbers)}.sqlite")
