"""The agent's own files in a guest, in a directory that nobody else can look into."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import IO

from ..places import STATE_DIRECTORY
from .files import read, replace
from .paths import enter, failures, open_parent

_LOCK = "lock"

_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600


def read_state(root: str, name: str) -> bytes | None:
    """As System.read_state, in the guest whose `/` is `root`. The directory is made, and closed to others, by it."""
    with _directory(root) as directory:
        return read(directory, name)


def write_state(root: str, name: str, content: bytes) -> None:
    """As System.write_state, in the guest whose `/` is `root`."""
    with _directory(root) as directory:
        replace(directory, name, content, mode=_FILE_MODE)


def hold(root: str) -> IO[bytes] | None:
    """Lock the guest whose `/` is `root`, until what is returned is closed. None when another process has done so.

    Refused or Failed when there can be no such file.
    """
    import fcntl  # only here, because the module is loaded in Windows too, which does not have it

    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with _directory(root) as directory:
        file = os.fdopen(os.open(_LOCK, flags, _FILE_MODE, dir_fd=directory), "r+b", buffering=0)
        try:
            # Not flock(2): what the agent forks would hold that as well, and might outlive it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.close()
            return None
    return file


@contextlib.contextmanager
def _directory(root: str) -> Iterator[int]:
    """A descriptor of the directory, made when it is missing, and for the agent's user alone in any case."""
    with failures(STATE_DIRECTORY.text):
        with open_parent(root, STATE_DIRECTORY, make=True) as parent:
            try:
                os.mkdir(STATE_DIRECTORY.name, _DIRECTORY_MODE, dir_fd=parent)
                os.fsync(parent)
            except FileExistsError:
                pass
            directory = enter(parent, STATE_DIRECTORY.name)
        try:
            os.fchmod(directory, _DIRECTORY_MODE)
            yield directory
        finally:
            os.close(directory)
