"""The state directory itself: one simulator at a time, and what it must remember besides the pool's objects."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import socket
import tempfile
from pathlib import Path
from typing import NamedTuple

LOCK_NAME = "lock"
PASSWORD_NAME = "password"  # noqa: S105 - the name of a file
HOSTS_NAME = "hosts.json"


class Machine(NamedTuple):
    """What a host of the pool keeps, whatever happens to its record.

    number: of the machine, from 1; it names its directory. name: its host name when it was made. port: where its API
    was, and plain_port: where it was without TLS.
    """

    number: int
    name: str
    port: int
    plain_port: int


class Lock:
    """Held by the simulator that a state directory belongs to. The kernel lets go of it when its process ends."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK_NAME
        self._file: int | None = None

    def acquire(self) -> None:
        """OSError EBUSY when another simulator has it."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise OSError(
                errno.EBUSY, "another simulator runs on this state directory", str(self._path.parent)
            ) from None
        self._file = file

    def release(self) -> None:
        """Let others have it. Nothing happens when it is not held."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def password(directory: Path) -> str:
    """The password that was made up for a state directory, which only its owner can read; made up now for a new one.

    OSError when it cannot be read or written.
    """
    path = directory / PASSWORD_NAME
    with contextlib.suppress(FileExistsError):
        _write(path, secrets.token_urlsafe(18), only_first=True)
    return path.read_text("utf-8")


def change_password(directory: Path, former: str, content: str) -> None:
    """Keep another password in the place of the one that was made up. One that was given is not the directory's to
    keep: when `former` is not what is kept, nothing happens. OSError when it cannot be written."""
    path = directory / PASSWORD_NAME
    if path.exists() and path.read_text("utf-8") == former:
        _write(path, content)


def read_hosts(directory: Path) -> dict[str, Machine]:
    """The machines of the pool, by the references of their hosts. ValueError when they are not there or damaged."""
    path = directory / HOSTS_NAME
    try:
        content = json.loads(path.read_text("utf-8"))
        return {
            str(ref): Machine(int(number), str(name), int(port), int(plain))
            for ref, (number, name, port, plain) in content.items()
        }
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        raise ValueError(f"{path} is missing or damaged; nothing was changed") from None


def write_hosts(directory: Path, hosts: dict[str, Machine]) -> None:
    """Keep the machines of the pool. OSError when it cannot be written; then it is as it was."""
    _write(directory / HOSTS_NAME, json.dumps(hosts, indent=1))


def free_port(port: int) -> int:
    """The port, if it is free on 127.0.0.1; 0, which means any, if somebody else has taken it meanwhile."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port


def _write(path: Path, content: str, only_first: bool = False) -> None:
    """Write a file for its owner only, all of it or nothing."""
    number, name = tempfile.mkstemp(dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if only_first:
            path.hardlink_to(temporary)
        else:
            temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
