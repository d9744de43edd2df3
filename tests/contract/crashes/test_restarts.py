"""What everything hangs on goes away in the middle of a hundred orders, and comes back."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .zygote import CHECKOUT

pytestmark = pytest.mark.services

WHAT = ["broker stopped", "broker killed", "postgresql killed", "mariadb killed", "coordinator failed over"]


@pytest.mark.parametrize("what", WHAT)
def test_a_hundred_orders_and_something_goes_away(what: str) -> None:
    # The same orders each time, as far as processes that run side by side allow.
    seed = WHAT.index(what)
    done = subprocess.run(
        [sys.executable, "-m", "tests.contract.crashes.restarts", what, "--seed", str(seed)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=660,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, f"seed {seed}\n{done.stderr[:20000]}"
    assert f"{what}: 100 callers ended" in done.stdout
