"""Run the checks (ruff, mypy, import-linter) and then the tests. Further arguments go to pytest."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.commands.environment import CHECKOUT, VIRTUAL_ENVIRONMENT

_BIN = str(VIRTUAL_ENVIRONMENT / "bin")

_WORKERS = "3"
"""Tests wait for processes more than they compute: three at a time keep two processors busy, and no more than that."""

LIMIT = 75 * 60.0
"""Seconds after which tests that have not ended are given up: one of them hangs in a way that nothing else ends."""

GIVEN_UP = 124
"""Exit status then, as timeout(1) has it."""

PYTEST_FAILED = 1
"""pytest's exit status when tests failed, and nothing else went wrong."""

_FEW = 3
"""Most tests that are repeated. Servers are killed and machines booted beside each other, so now and then one of ten
thousand tests loses a race that it wins alone. More than a few are a fault, and so is whatever fails twice."""

_GRACE = 60.0
"""Seconds that pytest gets then, for its summary."""

CHECKS = {
    "ruff check": [f"{_BIN}/ruff", "check", "."],
    "ruff format": [f"{_BIN}/ruff", "format", "--check", "."],
    "mypy": [f"{_BIN}/mypy"],
    "mypy, for Windows": [
        *(f"{_BIN}/mypy", "--platform", "win32", "--follow-imports", "silent", "--ignore-missing-imports"),
        *("guest_agent/system/windows", "guest_agent/store", "guest_agent/service", "guest_agent/log_windows.py"),
    ],
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
    whole = options.all and not for_pytest
    tests = run_tests([*pytest, *(["--cache-clear"] if whole else [])], LIMIT)
    if whole and tests == PYTEST_FAILED:
        tests = repeat([*pytest[:3], "--all"], _failed())
    for name in failed:
        print(f"FAILED check: {name}", file=sys.stderr)
    return tests or int(bool(failed))


def run_tests(pytest: Sequence[str], limit: float) -> int:
    """Run this command line, and give its exit status. After `limit` seconds it is ended, and what ran then named."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As it is for what a shell runs in the background: pytest would not hear of it either.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(pytest, cwd=CHECKOUT)
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        print(f"\nGIVEN UP after {limit:g} s, during:", *_workers(process.pid), sep="\n  ", file=sys.stderr, flush=True)
    try:
        process.send_signal(signal.SIGINT)
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return GIVEN_UP


def repeat(pytest: Sequence[str], failed: Sequence[str]) -> int:
    """Run the tests that failed once more, alone, if they are few, and tell which passed only then. The exit status."""
    if not 0 < len(failed) <= _FEW:
        return PYTEST_FAILED
    print(f"\nRepeating what failed ({len(failed)}), alone:", flush=True)
    status = run_tests([*pytest, *failed], LIMIT)
    if status == 0:
        print("PASSED ONLY WHEN REPEATED:", *failed, sep="\n  ", flush=True)
    return status


def _failed() -> list[str]:
    """The tests that failed in pytest's last run, by its cache."""
    try:
        return sorted(json.loads((CHECKOUT / ".pytest_cache/v/cache/lastfailed").read_text()))
    except (OSError, ValueError):
        return []


def _workers(pid: int) -> Iterator[str]:
    """What the test processes of a pytest are at, as pytest-xdist writes it over their command lines."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            try:
                yield Path(f"/proc/{child}/cmdline").read_bytes().rstrip(b"\0").decode("utf-8", "replace")
            except FileNotFoundError:
                continue


def _passes(name: str) -> bool:
    print(f"{name} ... ", end="", flush=True)
    # Colours and progress are for a terminal; here the output is shown only when something is wrong.
    environment = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(CHECKS[name], cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    print("passed" if done.returncode == 0 else f"failed\n{done.stdout}{done.stderr}", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
