"""The CPythons of this machine that a dom0 may have: with --all 3.6 must be there; later ones are tried if they are."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path

OLDEST_MINOR = 6
"""Python 3.6: what XenServer 8 and XCP-ng 8.3 have."""

NEWEST_MINOR = 13


@functools.cache
def interpreter(minor: int) -> str:
    """CPython 3.`minor` itself: on PATH, or where pyenv's shim of that name leads. LookupError when there is none."""
    name = f"python3.{minor}"
    candidates = []
    on_path = shutil.which(name)
    if on_path is not None:
        shims = Path(on_path).parent
        # A shim serves only versions that pyenv has chosen; what it stands for lies beside it.
        candidates = sorted(map(str, shims.parent.glob(f"versions/3.{minor}.*/bin/{name}"))) or [on_path]
    for candidate in candidates:
        code = "import sys; print(sys.implementation.name, *sys.version_info[:2])"
        probe = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False)
        if probe.stdout.split() == ["cpython", "3", str(minor)]:
            return candidate
    raise LookupError(f"CPython 3.{minor} is not on this machine")


def minors() -> list[int]:
    """The oldest, whether it is there or not, and the later ones that are."""
    return [OLDEST_MINOR, *(minor for minor in range(OLDEST_MINOR + 1, NEWEST_MINOR + 1) if _has(minor))]


def _has(minor: int) -> bool:
    try:
        interpreter(minor)
    except LookupError:
        return False
    return True
