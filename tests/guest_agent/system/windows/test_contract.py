from __future__ import annotations

import pytest

from . import contract_accounts, contract_files, contract_machine  # noqa: F401
from .contract import CHECKS, Check
from .fakes import DIRECTORY, PREFIX, FakeWindows


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_the_windows_in_memory(check: Check) -> None:
    world = FakeWindows()
    world.files.add(PREFIX + "C:\\Temp", attributes=DIRECTORY)
    check(world, PREFIX + "C:\\Temp")
