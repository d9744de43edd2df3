"""The benchmark runs what it says and reports every operation. How fast they are is not a test's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]


def test_it_reports_every_operation() -> None:
    command = [sys.executable, "-m", "tools.commands.bench", "--rounds", "1", "--json"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert {"build_and_run_instance", "set_admin_password", "inject_file, 1 MiB", "get_instance"} <= measured.keys()
    assert all(0 < runs["least"] <= runs["median"] <= runs["most"] for runs in measured.values())


def test_reads_are_timed_from_events_and_by_calls() -> None:
    command = [sys.executable, "-m", "tools.commands.bench", "--reads", "3", "--rounds", "1", "--json"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert {
        "one VM and its metrics, from events",
        "one VM and its metrics, by VM.get_record",
        "state of all instances, from events",
        "all VMs, by VM.get_all_records",
        "a change, from its call until events told of it",
    } <= measured.keys()
    assert all(0 < runs["least"] <= runs["median"] <= runs["most"] for runs in measured.values())


@pytest.mark.services
def test_resets_at_once_are_timed_with_both_backends() -> None:
    command = [sys.executable, "-m", "tools.commands.bench", "--concurrent", "2", "--rounds", "1", "--json"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured.keys() == {"threading", "eventlet"}
    assert all(figures["resets"] == 2 and 0 < figures["p50"] <= figures["most"] for figures in measured.values())
