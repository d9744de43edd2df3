"""What an agent of every system loads, and how it serves, where Python has nothing of POSIX."""

from __future__ import annotations

import json
import subprocess
import sys

from .conftest import DEADLINE, REPOSITORY, VM


def test_an_agent_without_posix() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.guest_agent.windows_child"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    # The log comes through as well.
    assert f"VM {VM}, " in done.stderr
    assert "kmsactivate" in done.stderr
    told = json.loads(done.stdout)
    assert told["store"] == "windows"
    assert told["ended"]
    # What the system lacks is not announced, and refused in its own words, clear and sealed; what it has is there.
    assert {"freeze", "thaw", "agent_update"} & set(told["features"]) == set()
    assert {"kmsactivate", "file_put", "network_apply", "ping"} <= set(told["features"])
    assert told["version"]["outcome"] == "succeeded"
    assert (told["agentupdate"]["outcome"], told["agentupdate"]["code"]) == ("unsupported", "not_on_this_system")
    assert told["sealed freeze"][:2] == ["unsupported", "not_on_this_system"]
    assert (told["kmsactivate"]["outcome"], told["kmsactivate"]["message"]) == ("succeeded", "activated")
    assert told["sealed kmsactivate"][0] == "succeeded"
    assert told["sealed ping"][0] == "succeeded"
    info = told["sealed info"][2]
    assert (info["os"], info["network_stack"], info["hostname"]) == ({"ID": "windows"}, "windows", "WEB-1")
    assert "reboot_pending" not in info
    assert told["done"] == [
        ["prepare"],
        ["activate", "kms.example.com:1688"],
        ["put_file", "C:\\x", "x", None, None],
        ["activate", None],
    ]
    assert told["state"] == ["identity.json"]
