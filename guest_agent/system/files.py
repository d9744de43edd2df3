"""Reading and writing files of a guest: the one atomic write, and the paths that lead to it.

Whoever reads the file sees the old content or the new one, whole, also after a power failure in the middle.
"""

from __future__ import annotations

import contextlib
import os
import stat

from agent_protocol.outcomes import Refused

from .accounts import Owner
from .paths import GuestPath, failures, look_at, open_parent

NEW_FILE_MODE = 0o600
"""Mode of a file that was not there before, when nothing else is asked for: nobody else may read it."""

TEMPORARY_PREFIX = ".xenward-"
"""How the name begins that a new file has for the moment before it replaces the old one."""

_SELINUX, _ACCESS_LIST = "security.selinux", "system.posix_acl_access"

MAX_READ = 4 * 1024 * 1024
"""Bytes of a file that the agent takes into memory; account files of 50,000 users fit."""


def write_file(
    root: str, path: GuestPath, content: bytes, *, mode: int | None = None, owner: Owner | None = None
) -> None:
    """Put a file into the guest whose `/` is `root`, making missing directories on the way.

    mode, owner: those of the file that is replaced, or NEW_FILE_MODE and the agent's own, unless given.
    Refused (`not_a_file`) when a directory, a special file or a symbolic link is in its place, and for the reasons
    of paths.open_parent; Failed with the system's errno name.
    """
    with failures(path.text), open_parent(root, path, make=True) as directory:
        replace(directory, path.name, content, mode=mode, owner=owner)


def read_file(root: str, path: GuestPath) -> bytes | None:
    """A file's content, None when there is none. Errors as in write_file, and `file_too_large` beyond MAX_READ."""
    with failures(path.text):
        try:
            with open_parent(root, path) as directory:
                return read(directory, path.name)
        except FileNotFoundError:
            return None


def read(directory: int, name: str, *, owner: Owner | None = None) -> bytes | None:
    """The content of a file in an open directory, None when there is none.

    owner: Refused (`not_owner`) when the file belongs to another user than this one.
    """
    if look_at(directory, name) is None:
        return None
    # It may have been swapped for something else since: never wait on a FIFO, and look again at what was opened.
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    with open(descriptor, "rb") as file:  # noqa: PTH123
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Refused("not_a_file", f"{name[:200]!r} is not a regular file")
        if owner is not None and found.st_uid != owner.uid:
            raise Refused("not_owner", f"{name[:200]!r} belongs to another user")
        content = file.read(MAX_READ + 1)
    if len(content) > MAX_READ:
        raise Refused("file_too_large", f"{name[:200]!r} exceeds {MAX_READ} bytes")
    return content


def replace(directory: int, name: str, content: bytes, *, mode: int | None = None, owner: Owner | None = None) -> None:
    """The atomic write: set the content of a file in an open directory. Arguments as in write_file.

    What is replaced hands down its SELinux label and access control list as well; one that is not of the mode asked for
    loses its list. Refused (`not_a_file`) as there; OSErrors as they come, after its temporary file was removed.
    """
    present = look_at(directory, name)
    labels = {} if present is None else _labels(directory, name, with_list=mode is None)
    if present is not None:
        mode = stat.S_IMODE(present.st_mode) if mode is None else mode
        owner = Owner(present.st_uid, present.st_gid) if owner is None else owner
    temporary = f"{TEMPORARY_PREFIX}{os.urandom(8).hex()}"
    descriptor, named = _open_new(directory, temporary)
    try:
        try:
            _write_all(descriptor, content)
            if owner is not None:
                _give(descriptor, owner)
            # After the change of owner, which takes the set-user-id bits away.
            os.fchmod(descriptor, NEW_FILE_MODE if mode is None else mode)
            for label, value in labels.items():
                os.setxattr(descriptor, label, value)
            os.fsync(descriptor)
            placed = False
            if not named:
                if present is None:
                    # Unless something has come there by now: then that is replaced.
                    with contextlib.suppress(FileExistsError):
                        _link(descriptor, directory, name)
                        placed = True
                if not placed:
                    _link(descriptor, directory, temporary)
                    named = True
        finally:
            os.close(descriptor)
        if not placed:
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        if named:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=directory)
        raise
    os.fsync(directory)


def _open_new(directory: int, name: str) -> tuple[int, bool]:
    """A new file to write, and whether it has that name already: where it can be, it has none until it is whole.

    So what ends in the middle leaves nothing behind, whether that is the agent or the machine; but for the moment
    between the two calls that replace a file, after which the whole new one stands beside it as a hidden file.
    """
    common = os.O_WRONLY | os.O_CLOEXEC
    if os.path.isdir("/proc/self/fd"):  # noqa: PTH112 - through which it gets its name
        # Whatever the file system says against it, it says in its own way.
        with contextlib.suppress(OSError):
            return os.open(".", common | os.O_TMPFILE, 0o600, dir_fd=directory), False
    return os.open(name, common | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory), True


def _link(descriptor: int, directory: int, name: str) -> None:
    """Give an open file without a name this one. FileExistsError when something has it."""
    os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=directory)


def _labels(directory: int, name: str, *, with_list: bool) -> dict[str, bytes]:
    """What a file has besides owner and mode that says who may use it, see xattr(7)."""
    wanted = [_SELINUX, _ACCESS_LIST] if with_list else [_SELINUX]
    found = {}
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        for label in wanted:
            # ENODATA: it has none. EOPNOTSUPP: the file system knows none.
            with contextlib.suppress(OSError):
                found[label] = os.getxattr(descriptor, label)
    finally:
        os.close(descriptor)
    return found


def _write_all(descriptor: int, content: bytes) -> None:
    remaining = memoryview(content)
    while remaining:
        remaining = remaining[os.write(descriptor, remaining) :]


def _give(descriptor: int, owner: Owner) -> None:
    present = os.fstat(descriptor)
    if (present.st_uid, present.st_gid) != (owner.uid, owner.gid):
        os.fchown(descriptor, owner.uid, owner.gid)
