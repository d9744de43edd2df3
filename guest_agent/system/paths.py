"""Paths within a guest's root, and the walk along them that nothing in the guest can lead out of that root.

The walk holds a descriptor for each directory it is in, so a directory that is moved or swapped for a symbolic
link meanwhile changes nothing; `..` goes back to the descriptor it came from, and stays where it is at the root.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from agent_protocol.outcomes import Failed, Refused

MAX_PATH = 4096
"""Bytes in a path: Linux's PATH_MAX."""

MAX_SYMLINKS = 40
"""Symbolic links that one walk follows: Linux's own MAXSYMLINKS."""

NEW_DIRECTORY_MODE = 0o755
"""Mode of the directories that are made on the way to a new file."""


@dataclass(frozen=True)
class GuestPath:
    """An absolute path of a guest's file: up to MAX_PATH bytes, without NUL, and ending in a name.

    Refused (`bad_path`) otherwise.
    """

    text: str

    def __post_init__(self) -> None:
        try:
            size = len(os.fsencode(self.text))
        except UnicodeEncodeError:
            raise Refused("bad_path", "the path is not text that UTF-8 can hold") from None
        if size > MAX_PATH:
            raise Refused("bad_path", f"a path has at most {MAX_PATH} bytes, this one {size}")
        if "\0" in self.text:
            raise Refused("bad_path", "a path cannot contain NUL")
        if not self.text.startswith("/"):
            raise Refused("bad_path", "the path must be absolute")
        if self.text.endswith("/"):
            raise Refused("bad_path", "the path must end in a name, not in a slash")
        if self.name in (".", ".."):
            raise Refused("bad_path", "the path must end in a name")

    @property
    def name(self) -> str:
        """The last component."""
        return self.text.rpartition("/")[2]

    @property
    def parents(self) -> list[str]:
        """The components before the last one."""
        return self.text.split("/")[1:-1]


@contextlib.contextmanager
def failures(path: str) -> Iterator[None]:
    """Turn the system's errors into Failed: its errno name in lower case is the code, as `enospc`."""
    try:
        yield
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "EIO")
        raise Failed(name.lower(), f"{name}: {error.strerror or 'input or output error'} ({path[:200]!r})") from None


@contextlib.contextmanager
def open_parent(root: str, path: GuestPath, *, make: bool = False) -> Iterator[int]:
    """A descriptor of the directory that `path` lies in.

    root: the directory that stands for `/`; links are followed as if it were.
    make: whether to make the directories that are missing.

    FileNotFoundError when one is missing, other OSErrors as they come. Refused with `not_a_directory`, or
    `too_many_symlinks` after MAX_SYMLINKS of them.
    """
    yield from _walk(root, path.parents, make)


@contextlib.contextmanager
def open_directory(root: str, path: GuestPath) -> Iterator[int]:
    """A descriptor of the directory at `path`. Errors as above."""
    yield from _walk(root, [*path.parents, path.name], False)


def _walk(root: str, components: list[str], make: bool) -> Iterator[int]:
    descriptors = [os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
    pending = components[::-1]
    symlinks = 0
    try:
        while pending:
            name = pending.pop()
            if name in ("", "."):
                continue
            if name == "..":
                if len(descriptors) > 1:
                    os.close(descriptors.pop())
                continue
            target = _readlink(descriptors[-1], name)
            if target is None:
                descriptors.append(_enter(descriptors[-1], name, make))
                continue
            symlinks += 1
            if symlinks > MAX_SYMLINKS:
                raise Refused("too_many_symlinks", f"the path leads through more than {MAX_SYMLINKS} symbolic links")
            if target.startswith("/"):
                while len(descriptors) > 1:
                    os.close(descriptors.pop())
            pending.extend(target.split("/")[::-1])
        yield descriptors[-1]
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _readlink(directory: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


def _enter(directory: int, name: str, make: bool) -> int:
    try:
        return enter(directory, name)
    except FileNotFoundError:
        if not make:
            raise
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, NEW_DIRECTORY_MODE, dir_fd=directory)
    made = enter(directory, name)
    os.fchmod(made, NEW_DIRECTORY_MODE)  # whatever the agent's umask is
    os.fsync(directory)
    return made


def enter(directory: int, name: str) -> int:
    """A descriptor of the subdirectory `name`, which must not be a symbolic link: Refused (`not_a_directory`)."""
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise Refused("not_a_directory", f"{name[:200]!r} on the way is not a directory") from None
        raise


def look_at(directory: int, name: str) -> os.stat_result | None:
    """What stands at `name` in an open directory, None when nothing does.

    Refused (`not_a_file`) for anything but a regular file: what is written or read must be what was named.
    """
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISREG(found.st_mode):
        return found
    kinds = {stat.S_IFLNK: "a symbolic link", stat.S_IFDIR: "a directory"}
    kind = kinds.get(stat.S_IFMT(found.st_mode), "a special file")
    raise Refused("not_a_file", f"{name[:200]!r} is {kind}, not a regular file")
