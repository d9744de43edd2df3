"""Run the checks (ruff, mypy, import-linter) and then the tests. Further arguments go to pytest."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from tools.commands.environment import CHECKOUT, VIRTUAL_ENVIRONMENT

_BIN = str(VIRTUAL_ENVIRONMENT / "bin")

_WORKERS = "3"
"""Tests wait for processes more than they compute: three at a time keep two processors busy, and no more than that."""

CHECKS = {
    "ruff check": [f"{_BIN}/ruff", "check", "."],
    "ruff format": [f"{_BIN}/ruff", "format", "--check", "."],
    "mypy": [f"{_BIN}/mypy"],
    "import-linter": [f"{_BIN}/lint-imports"],
}


def main() -> int:
    """`tools/test`: returns 0 when every check and every test passed."""
    parser = argparse.ArgumentParser(prog="tools/test", description=__doc__)
    parser.add_argument(
        "--all", action="store_true", help="also the tests that need PostgreSQL, MariaDB, RabbitMQ or CPython 3.6"
    )
    parser.add_argument("--no-checks", action="store_true", help="tests only")
    options, for_pytest = parser.parse_known_args()
    failed = [] if options.no_checks else [name for name in CHECKS if not _passes(name)]
    pytest = [f"{_BIN}/python", "-m", "pytest", "-n", _WORKERS, *(["--all"] if options.all else []), *for_pytest]
    tests = subprocess.run(pytest, cwd=CHECKOUT, check=False).returncode
    for name in failed:
        print(f"FAILED check: {name}", file=sys.stderr)
    return tests or int(bool(failed))


def _passes(name: str) -> bool:
    print(f"{name} ... ", end="", flush=True)
    # Colours and progress are for a terminal; here the output is shown only when something is wrong.
    environment = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(CHECKS[name], cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    print("passed" if done.returncode == 0 else f"failed\n{done.stdout}{done.stderr}", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
