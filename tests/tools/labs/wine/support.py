"""A Windows for tests: with Python, as the agent's installer brings it, and with code of this checkout."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.contract.house import CHECKOUT
from tools.labs.wine.running import Running
from tools.packages.msi import contents
from tools.packages.msi.lock import fetch, read_lock

PYTHON = r"C:\python\python.exe"

_LIBRARIES = ("agent_protocol", "guest_agent", "tests")


def put_python(disk: Path) -> None:
    """Put the runtime of the installer on a disk, with `cryptography` and pywin32."""
    for path, content in contents.installed(fetch(read_lock())).items():
        place = disk / "drive_c/python" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def put_checkout(disk: Path) -> None:
    """Put the modules of this checkout on a disk that a program in Windows may want, the tests' own too."""
    ignored = shutil.ignore_patterns("__pycache__", "simulator", "compute_driver")
    for name in _LIBRARIES:
        shutil.copytree(CHECKOUT / name, disk / "drive_c/checkout" / name, ignore=ignored)


def python(windows: Running, script: str, timeout: float = 60.0) -> str:
    """What a script in Windows prints. AssertionError when it fails."""
    return windows.run([PYTHON, "-B", "-"], stdin=script, timeout=timeout).stdout


def module(windows: Running, name: str, *arguments: str, timeout: float = 120.0) -> tuple[int, str]:
    """Run a module of the checkout in Windows as a program: its exit status, and what it prints."""
    script = (
        "import runpy, sys; sys.path.insert(0, 'C:/checkout'); "
        f"sys.argv = {[name, *arguments]!r}; runpy.run_module({name!r}, run_name='__main__', alter_sys=True)"
    )
    done = windows.run([PYTHON, "-B", "-c", script], timeout=timeout, check=False)
    return done.returncode, done.stdout
