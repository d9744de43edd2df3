"""Kill the compute service, and what it works with, in the middle of random orders; then see that nothing was lost.

`tools/crash --rounds 320 --seed 1`. A share of it is among the tests (tests/contract/crashes).
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from tools.commands.environment import CHECKOUT


def main() -> NoReturn:
    """`tools/crash`: ends with 0 when every invariant held."""
    os.chdir(CHECKOUT)
    os.execv(sys.executable, [sys.executable, "-m", "tests.contract.crashes", *sys.argv[1:]])  # noqa: S606 - our own


if __name__ == "__main__":
    main()
