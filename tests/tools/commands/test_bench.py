"""The benchmark runs what it says and reports every operation. How fast they are is not a test's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]


def test_it_reports_every_operation() -> None:
    command = [sys.executable, "-m", "tools.commands.bench", "--rounds", "1", "--json"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert {"build_and_run_instance", "set_admin_password", "inject_file, 1 MiB", "get_instance"} <= measured.keys()
    assert all(0 < runs["least"] <= runs["median"] <= runs["most"] for runs in measured.values())
