"""What labs are made of is made once and kept: in the user's cache directory, complete or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable

_MAKE_SECONDS = 900.0


class LabError(Exception):
    """Raise when a lab cannot be made; its text has the words of the program that failed."""


def kept(kind: str, name: str, make: Callable[[Path], None]) -> Path:
    """The directory `name` among the cached things of this kind, in which `make` put everything, now or earlier.

    make: fills the directory that it is given, which does not exist yet. What it makes appears only when it returns,
    so nobody ever sees half of it; other processes that want the same wait for it.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xenward" / kind
    cache.mkdir(parents=True, exist_ok=True)
    directory = cache / name
    with _locked(cache / f"{name}.lock"):
        if not directory.exists():
            unfinished = cache / f"{name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            make(unfinished)
            unfinished.rename(directory)
    return directory


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(command: Sequence[str], directory: Path | None = None) -> str:
    """What a program prints, run in `directory`. LabError when it cannot be run, fails, or takes 15 minutes."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_MAKE_SECONDS,
        )
    except OSError as error:
        raise LabError(f"{command[0]} cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"{command[0]} did not end within {_MAKE_SECONDS:g} s") from None
    if done.returncode != 0:
        raise LabError(f"{command[0]} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout
