"""A share of what `tools/crash` does for as long as one likes: everything is killed in the middle of orders."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from .zygote import CHECKOUT

pytestmark = pytest.mark.services

KINDS = "service,service,again,service,agent,service,plugin,host,toolstack,both"

SEED = 1
"""The same orders and moments each time, as far as processes that run side by side allow."""


def test_nothing_is_lost_and_nothing_claimed(record_property: Callable[[str, object], None]) -> None:
    arguments = ["--rounds", "20", "--seed", str(SEED), "--kinds", KINDS, "--database", "sqlite"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.contract.crashes", *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=860,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, f"seed {SEED}\n{done.stderr[:20000]}"
    figures = re.findall(r"^all +(\d+) +(\d+) ", done.stdout, re.MULTILINE)
    assert figures, done.stdout
    sent, interrupted = map(int, figures[0])
    record_property("orders", sent)
    record_property("interrupted", interrupted)
    # A crash that nobody was in the middle of proves nothing.
    assert interrupted >= 5
