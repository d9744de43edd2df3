"""The checkout's virtual environment, `.venv/`: made when it is missing, renewed when the requirements changed.

Runs before anything is installed, so it needs nothing but the standard library.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

CHECKOUT = Path(__file__).resolve().parents[2]
VIRTUAL_ENVIRONMENT = CHECKOUT / ".venv"
PYTHON = VIRTUAL_ENVIRONMENT / "bin" / "python"

LEAST_PYTHON = (3, 11)

_EXTRAS = "compute,agent,simulator,test"
_STAMP = VIRTUAL_ENVIRONMENT / "installed"
"""Written last: what was installed, so that an interrupted installation is begun again."""


def run(module: str, arguments: list[str]) -> NoReturn:
    """Become `python -m module arguments` in the virtual environment, which is made first when it must be."""
    if sys.version_info < LEAST_PYTHON:
        wanted, found = ".".join(map(str, LEAST_PYTHON)), ".".join(map(str, sys.version_info[:2]))
        sys.exit(f"This needs Python {wanted} or later, and runs with {found}. Try: python{wanted} {sys.argv[0]}")
    ensure()
    os.execv(PYTHON, [str(PYTHON), "-m", module, *arguments])  # noqa: S606 - our own interpreter


def ensure() -> None:
    """Make or renew the virtual environment. Ends the process with pip's own words when that fails."""
    lock = os.open(CHECKOUT, os.O_RDONLY)
    try:
        # Two commands started together must not both install.
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = _fingerprint()
        if not _STAMP.exists() or _STAMP.read_text() != wanted:
            _install()
            _STAMP.write_text(wanted)
    finally:
        os.close(lock)


def _fingerprint() -> str:
    digest = hashlib.sha256(f"{sys.version_info[:2]} {_EXTRAS}".encode())
    for name in ("setup.cfg", "pyproject.toml"):
        digest.update((CHECKOUT / name).read_bytes())
    return digest.hexdigest()


def _install() -> None:
    print("Setting up .venv (once; half a minute or so) ...", file=sys.stderr, flush=True)
    _run([sys.executable, "-m", "venv", "--clear", str(VIRTUAL_ENVIRONMENT)])
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--editable", f"{CHECKOUT}[{_EXTRAS}]"])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{done.stdout}\nSetting up .venv failed: {' '.join(command)} ended with status {done.returncode}.")
