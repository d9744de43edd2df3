"""Files of a guest as they were, for putting them back exactly: content, mode, owner, or that there was none."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from .accounts import Owner
from .files import read, write_file
from .paths import GuestPath, failures, look_at, open_parent


@dataclass(frozen=True)
class Snapshot:
    """One file at one moment. content, mode and owner are None when there was no file."""

    path: GuestPath
    content: bytes | None = field(repr=False)
    mode: int | None
    owner: Owner | None


def take_snapshot(root: str, path: GuestPath) -> Snapshot:
    """The file as it is now. Refused and Failed as read_file of files.py."""
    with failures(path.text):
        try:
            with open_parent(root, path) as directory:
                found = look_at(directory, path.name)
                content = read(directory, path.name)
        except FileNotFoundError:
            found = content = None
    if found is None or content is None:
        return Snapshot(path, None, None, None)
    return Snapshot(path, content, stat.S_IMODE(found.st_mode), Owner(found.st_uid, found.st_gid))


def put_back(root: str, snapshot: Snapshot) -> None:
    """Make the file what it was; directories that were made for it stay. Refused and Failed as write_file."""
    if snapshot.content is None:
        remove_file(root, snapshot.path)
    else:
        write_file(root, snapshot.path, snapshot.content, mode=snapshot.mode, owner=snapshot.owner)


def remove_file(root: str, path: GuestPath) -> None:
    """Remove a file, if there is one. Refused (`not_a_file`) for anything else in its place; Failed with the errno."""
    with failures(path.text):
        try:
            with open_parent(root, path) as directory:
                if look_at(directory, path.name) is not None:
                    os.unlink(path.name, dir_fd=directory)
                    os.fsync(directory)
        except FileNotFoundError:
            return
