"""A guest's files on their way to another pool: a tar archive of its root directory."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO

from ..formats.streams import FormatError


def pack(root: Path, archive: IO[bytes]) -> None:
    """Write what is in a root directory whose guest does not run now. Sockets and devices stay behind.

    OSError when a file cannot be read.
    """
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(root, arcname=".", filter=lambda member: None if member.isdev() else member)


def unpack(archive: IO[bytes], root: Path) -> None:
    """Make a root directory of an archive; it exists when it is complete, and not before.

    FormatError when the archive is none or leads out of the directory, OSError when a file cannot be written.
    """
    unfinished = root.with_name("root.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    modes: dict[Path, int] = {}
    try:
        with tarfile.open(fileobj=archive, mode="r") as untrusted_tar:
            for untrusted_member in untrusted_tar:
                path = _place(unfinished, untrusted_member.name)
                _extract(untrusted_tar, untrusted_member, unfinished, path)
                if untrusted_member.isdir():
                    modes[path] = untrusted_member.mode
    except (tarfile.TarError, ValueError, EOFError, FileExistsError) as error:
        raise FormatError("a guest's files are no archive of them") from error
    # Last, and the innermost first: a directory may be one that nobody may write into.
    for directory, mode in reversed(modes.items()):
        directory.chmod(mode & 0o7777)
    unfinished.rename(root)


def _place(directory: Path, untrusted_name: str) -> Path:
    """Where a member belongs. FormatError when that is not below the directory, or behind a link."""
    name = PurePosixPath(untrusted_name)
    if name.is_absolute() or ".." in name.parts:
        raise FormatError("a guest's file lies outside of the guest")
    path = directory
    for part in name.parts:
        if path.is_symlink():
            raise FormatError("a guest's file lies behind a link")
        path = path / part
    return path


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, directory: Path, path: Path) -> None:
    if member.isdir():
        path.mkdir(exist_ok=path == directory)
    elif member.issym():
        path.symlink_to(member.linkname)
    elif member.islnk():
        path.hardlink_to(_place(directory, member.linkname))
    elif member.isreg():
        content = tar.extractfile(member)
        assert content is not None
        with path.open("xb") as file:
            shutil.copyfileobj(content, file)
            os.fchmod(file.fileno(), member.mode & 0o7777)
        os.utime(path, (member.mtime, member.mtime))
    else:
        raise FormatError("a guest's file is of a kind that does not travel")
