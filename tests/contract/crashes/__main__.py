"""A campaign of crashes, as a program: `tools/crash`. Needs the RabbitMQ of this machine, and a database server."""

from __future__ import annotations

import argparse
import random
import sys

from .campaign import Campaign, Violated, table
from .kills import KILLS
from .world import world

_DESCRIPTION = "Kill the compute service and what it works with in the middle of orders, and see what becomes of them."

_USUAL = (*["service"] * 9, "again", "agent", "plugin", "host", "toolstack")
"""Of 320 rounds the service is killed in 228; the others are shared out."""


def main() -> int:
    """A campaign of crashes; 0 when everything held that must."""
    parser = argparse.ArgumentParser(prog="tools/crash", description=_DESCRIPTION)
    parser.add_argument("--rounds", type=int, default=320, help="how many times something is killed (default: 320)")
    parser.add_argument("--seed", type=int, help="chooses orders, kills and moments (default: another one each time)")
    parser.add_argument(
        "--database", choices=("postgresql", "mariadb", "sqlite"), default="postgresql", help="default: postgresql"
    )
    parser.add_argument("--kinds", default=",".join(_USUAL), help=f"what is killed, of: {', '.join(KILLS)}")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    kinds = options.kinds.split(",")
    if not set(kinds) <= set(KILLS):
        parser.error(f"--kinds: of {', '.join(KILLS)}")
    try:
        with world(options.database, seed) as it:
            print(table(Campaign(it, kinds).run(options.rounds)))
    except Violated as violation:
        print(f"seed {seed}: {violation}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
