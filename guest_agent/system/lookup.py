"""What stands where below a guest's root, for telling how the guest is set up. Nothing here opens a file."""

from __future__ import annotations

import os

from agent_protocol.outcomes import Failed, Refused

from .paths import GuestPath, failures, open_directory, open_parent


def is_there(root: str, path: GuestPath) -> bool:
    """Whether anything has that name, be it a link that leads nowhere. What cannot be looked at counts as missing."""
    try:
        with failures(path.text), open_parent(root, path) as directory:
            os.stat(path.name, dir_fd=directory, follow_symlinks=False)
    except (Refused, Failed):
        return False
    return True


def any_there(root: str, *paths: str) -> str:
    """The first of these paths that is there, an empty text when none is."""
    return next((path for path in paths if is_there(root, GuestPath(path))), "")


def names_in(root: str, directory: GuestPath) -> list[str]:
    """What a directory holds, in order; nothing when it is missing or no directory."""
    try:
        with failures(directory.text), open_directory(root, directory) as descriptor:
            return sorted(os.listdir(descriptor))  # noqa: PTH208
    except (Refused, Failed):
        return []


def link_target(root: str, path: GuestPath) -> str:
    """Where a symbolic link points to, an empty text when there is none."""
    try:
        with failures(path.text), open_parent(root, path) as directory:
            return os.readlink(path.name, dir_fd=directory)
    except (Refused, Failed):
        return ""
