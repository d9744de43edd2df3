"""The test command itself: it ends, whatever the tests do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]

_RUN = """\
import sys
from tools.commands.test import run_tests
sys.exit(run_tests(sys.argv[2:], float(sys.argv[1])))
"""


def run(directory: Path, tests: str, limit: float) -> subprocess.CompletedProcess[str]:
    file = directory / "test_them.py"
    file.write_text(tests)
    (directory / "pytest.ini").write_text("[pytest]\n")
    pytest = [sys.executable, "-m", "pytest", "-n", "1", "-p", "no:cacheprovider", "-c", str(directory / "pytest.ini")]
    return subprocess.run(
        [sys.executable, "-c", _RUN, str(limit), *pytest, str(file)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_tests_that_hang_are_given_up_and_named(tmp_path: Path) -> None:
    fails = "def test_one():\n    assert False, 'told'\n"
    hangs = "def test_two():\n    import time\n    time.sleep(600)\n"
    done = run(tmp_path, fails + hangs, 15)
    assert done.returncode == 124
    assert "GIVEN UP after 15 s" in done.stderr
    assert "[pytest-xdist running]" in done.stderr and "test_them.py::test_two" in done.stderr
    # What failed before is told all the same.
    assert "FAILED" in done.stdout and "told" in done.stdout


def test_the_status_is_that_of_the_tests(tmp_path: Path) -> None:
    assert run(tmp_path, "def test_one():\n    pass\n", 90).returncode == 0
    assert run(tmp_path, "def test_one():\n    assert False\n", 90).returncode == 1


_ONCE_MORE = """\
import sys
from tools.commands.test import repeat
sys.exit(repeat([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", sys.argv[1]], sys.argv[2:]))
"""


def repeated(directory: Path, *failed: str) -> subprocess.CompletedProcess[str]:
    (directory / "pytest.ini").write_text("[pytest]\n")
    return subprocess.run(
        [sys.executable, "-c", _ONCE_MORE, str(directory / "pytest.ini"), *failed],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_few_failures_are_repeated_and_told(tmp_path: Path) -> None:
    file = tmp_path / "test_them.py"
    file.write_text("def test_one():\n    pass\ndef test_two():\n    assert False\n")
    done = repeated(tmp_path, f"{file}::test_one")
    assert done.returncode == 0
    assert f"PASSED ONLY WHEN REPEATED:\n  {file}::test_one" in done.stdout
    done = repeated(tmp_path, f"{file}::test_one", f"{file}::test_two")
    assert done.returncode == 1
    assert "PASSED ONLY" not in done.stdout and "1 failed, 1 passed" in done.stdout


def test_many_failures_are_not_repeated(tmp_path: Path) -> None:
    done = repeated(tmp_path, "a", "b", "c", "d")
    assert (done.returncode, done.stdout) == (1, "")
