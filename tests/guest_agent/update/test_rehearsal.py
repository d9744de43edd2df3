"""The real agent tries itself, as it will when it is an update."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import REPOSITORY, names


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The agent's code, for spoiling."""
    for package in ("agent_protocol", "guest_agent"):
        shutil.copytree(REPOSITORY / package, tmp_path / "copy" / package, ignore=shutil.ignore_patterns("*.pyc"))
    return tmp_path / "copy"


def rehearse(code: Path, root: Path) -> tuple[int, str]:
    command = [sys.executable, "-I", "-B", str(code / "guest_agent/launch.py"), "--rehearse", str(root)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stderr == ""
    return ended.returncode, ended.stdout


def test_this_agent_passes_and_changes_nothing(root: Path) -> None:
    before = names(root), names(root / "etc")
    assert rehearse(REPOSITORY, root) == (0, "")
    assert (names(root), names(root / "etc")) == before


def test_a_configuration_that_it_does_not_understand(root: Path) -> None:
    (root / "etc/xenward").mkdir()
    (root / "etc/xenward/agent.conf").write_text("[agent]\nnew = yes\n")
    status, told = rehearse(REPOSITORY, root)
    assert status == 1
    assert "[agent] has no option new" in told


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        # Modules that nothing else loads.
        ("guest_agent/system/authorized_keys.py", "import base64", "import base46", "No module named 'base46'"),
        ("guest_agent/extra.py", "", "1 / 0\n", "ZeroDivisionError"),
        # One half of the protocol that no longer fits the other.
        ("agent_protocol/sealed.py", '"expires": expires', '"ends": expires', "BoxError|could not|not open"),
        ("guest_agent/commands/about.py", "int(time.time())", "1 / 0", "the agent met an error of its own"),
    ],
)
def test_an_agent_that_is_broken(copy: Path, root: Path, file: str, old: str, new: str, told: str) -> None:
    path = copy / file
    source = path.read_text() if old else ""
    assert old in source
    path.write_text(source.replace(old, new, 1) if old else new)
    status, output = rehearse(copy, root)
    assert status == 1
    assert re.search(told, output)
    assert output.count("\n") == 1
