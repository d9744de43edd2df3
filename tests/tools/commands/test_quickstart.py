"""The quickstart as a new user runs it, and that it would not call anything proven that is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tools.commands.quickstart import Findings

CHECKOUT = Path(__file__).resolve().parents[3]


def quickstart(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.commands.quickstart", *options]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=100, check=False)


def test_it_ends_with_one_line_that_proves_everything() -> None:
    done = quickstart("--json")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    findings = json.loads(line)
    assert findings["power_state"] == "running"
    assert findings["password_verified"] is True
    assert findings["old_password_rejected"] is True
    assert findings["file_verified"] is True
    assert findings["protocol"] == "sealed"
    assert all(findings[name] > 0 for name in ("boot_seconds", "password_seconds", "file_seconds"))
    assert {action["outcome"] for action in findings["actions"]} == {"succeeded"}
    assert {"create", "create/boot", "set_admin_password", "inject_file"} <= {
        action["action"] for action in findings["actions"]
    }
    assert "Audit trail" in done.stderr


def test_kept_it_goes_on_and_the_commands_that_it_prints_work() -> None:
    done = quickstart("--keep")
    try:
        assert done.returncode == 0, done.stderr
        assert "✓" in done.stdout
        lines = [line.strip() for line in done.stdout.splitlines()]
        printed = [line.split() for line in lines if "--config-file" in line]
        assert len(printed) >= 5
        # The same command, by the interpreter that runs the tests.
        for command in printed:
            again = [sys.executable, "-m", "compute_driver.cli", *command[1:]]
            ran = subprocess.run(again, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
            assert ran.returncode == 0, (command, ran.stdout, ran.stderr)
    finally:
        ending = next(line for line in done.stdout.splitlines() if line.strip().startswith("kill "))
        kill, remove = (part.split() for part in ending.strip().split(";"))
        os.kill(int(kill[1]), signal.SIGTERM)
        assert remove[2].startswith("/tmp/xenward-quickstart-") or "xenward-quickstart-" in remove[2]
        subprocess.run(remove, check=False)


PROVEN = Findings(
    instance="i",
    power_state="running",
    protocol="legacy",
    password_verified=True,
    old_password_rejected=True,
    ssh_key_verified=True,
    file_verified=True,
    actions=[{"action": "create", "outcome": "succeeded", "seconds": 1.0}],
)


@pytest.mark.parametrize(
    "change",
    [
        {"power_state": "shutdown"},
        {"password_verified": False},
        {"old_password_rejected": False},
        {"ssh_key_verified": False},
        {"file_verified": False},
        {"error": "something"},
        {"actions": [{"action": "create", "outcome": "unknown", "seconds": 1.0}]},
    ],
)
def test_one_missing_proof_is_enough_to_fail(change: dict[str, object]) -> None:
    assert PROVEN.proven
    assert not replace(PROVEN, **change).proven
