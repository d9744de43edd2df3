"""The agent's own files and their directories: for SYSTEM and the administrators alone.

Everybody may make directories in %ProgramData%, and an installation may leave there what others can write into. So
nothing is believed because of its name: what others own is refused, and what others can get at is closed to them.
"""

from __future__ import annotations

import contextlib
import os

from agent_protocol.outcomes import Refused

from .api import CallError, Files, Held, Status
from .errors import ALREADY_EXISTS, failures
from .files import DIRECTORY, REPARSE_POINT, TEMPORARY_PREFIX
from .paths import check_name

LOCAL_SYSTEM = "S-1-5-18"
ADMINISTRATORS = "S-1-5-32-544"

DIRECTORY_LIST = "D:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"
"""SDDL: full access for SYSTEM and the administrators, handed down to all that is made inside; nothing from above."""

FILE_LIST = "D:PAI(A;;FA;;;SY)(A;;FA;;;BA)"

INHERIT_ONLY = 0x8
"""INHERIT_ONLY_ACE: the entry is for what is made inside, not for the directory."""

WRITING = 0x2 | 0x4 | 0x10 | 0x40 | 0x100 | 0x10000 | 0x40000 | 0x80000 | 0x10000000 | 0x40000000
"""The rights to change something: data, what is inside, attributes, the list, the owner; GENERIC_ALL, GENERIC_WRITE."""

ANYTHING = 0xFFFFFFFF

MAX_READ = 4 * 1024 * 1024
"""Bytes of a file that the agent takes into memory."""


def extended(path: str) -> str:
    """The form in which the system's calls take the path literally."""
    return "\\\\?\\" + path


class PrivateFiles:
    """Files and directories that SYSTEM, the administrators and the account that the agent runs as can get at, alone.

    own: the SID of that account, which mostly is SYSTEM itself.
    """

    def __init__(self, files: Files, own: str) -> None:
        self.files = files
        self._trusted = frozenset({LOCAL_SYSTEM, ADMINISTRATORS, own})

    def secure_directory(self, path: str, *, make: bool = True) -> bool:
        """Close a directory to all others; returns whether it is there.

        make: whether it is made when it is missing. Refused (`unsafe_directory`) when it belongs to somebody else, or
        is no plain directory: whoever made it may have put anything into it. Failed when the system does not do it.
        """
        with failures(path):
            if make:
                try:
                    self.files.make_directory(extended(path), f"O:BA{DIRECTORY_LIST}")
                except CallError as error:
                    if error.number != ALREADY_EXISTS:
                        raise
            elif self.files.look(extended(path)) is None:
                return False
            with contextlib.closing(self.files.hold(extended(path), for_protection=True)) as held:
                self._secure(held, path)
        return True

    def _secure(self, held: Held, path: str) -> None:
        status = held.status()
        if status.attributes & REPARSE_POINT or not status.attributes & DIRECTORY:
            raise Refused("unsafe_directory", f"{path} is not a plain directory")
        if status.owner not in self._trusted:
            raise Refused(
                "unsafe_directory", f"{path} belongs to {status.owner}, neither SYSTEM nor the administrators"
            )
        if self._is_open(status):
            held.protect(ADMINISTRATORS, DIRECTORY_LIST)
            if self._is_open(held.status()):
                raise Refused("unsafe_directory", f"{path} cannot be closed to others")

    def _is_open(self, status: Status) -> bool:
        """Whether others have rights to a directory, or to what will be made in it."""
        return self.others_can(status, ANYTHING) or any(
            entry.allows and entry.flags & INHERIT_ONLY
            for entry in status.entries or ()
            if entry.sid not in self._trusted
        )

    def others_can(self, status: Status, rights: int) -> bool:
        """Whether the list of what is there gives others any of these rights to it."""
        if status.entries is None:
            return True
        return any(
            entry.allows and entry.mask & rights and not entry.flags & INHERIT_ONLY
            for entry in status.entries
            if entry.sid not in self._trusted
        )

    def read(self, path: str) -> bytes | None:
        """The content of a file that others cannot write, None when it is not there.

        Its directory must be secure already. Refused (`unsafe_file`) when it belongs to somebody else, when others can
        write it or when it is no plain file, `file_too_large` beyond MAX_READ; Failed when the system does not read it.
        """
        with failures(path):
            found = self.files.look(extended(path))
            if found is None:
                return None
            self._check_file(found, path)
            read = self.files.read(extended(path), MAX_READ + 1)
        if read is None:
            return None
        status, content = read
        self._check_file(status, path)
        if len(content) > MAX_READ:
            raise Refused("file_too_large", f"{path} exceeds {MAX_READ} bytes")
        return content

    def _check_file(self, status: Status, path: str) -> None:
        if status.attributes & (REPARSE_POINT | DIRECTORY):
            raise Refused("unsafe_file", f"{path} is not a plain file")
        if status.owner not in self._trusted:
            raise Refused(
                "unsafe_file",
                f"{path} belongs to {status.owner}, neither SYSTEM nor the administrators: see icacls /setowner",
            )
        if self.others_can(status, WRITING):
            raise Refused("unsafe_file", f"others than SYSTEM and the administrators can write {path}: see icacls")

    def write(self, path: str, content: bytes) -> None:
        """Put a file in place, whole or not at all. Its directory must be secure already. Failed, or Busy."""
        directory = path.rpartition("\\")[0]
        temporary = extended(f"{directory}\\{TEMPORARY_PREFIX}{os.urandom(8).hex()}")
        with failures(path):
            self.files.create(temporary, content, dacl=FILE_LIST, owner=ADMINISTRATORS)
            try:
                self.files.move(temporary, extended(path), replace=True)
            except BaseException:
                with contextlib.suppress(CallError):
                    self.files.remove(temporary)
                raise

    def remove(self, path: str) -> None:
        """Remove a file, if it is there. Failed, or Busy."""
        with failures(path):
            if self.files.look(extended(path)) is not None:
                self.files.remove(extended(path))


class StateDirectory:
    """A directory with the agent's own files, in another one that is the agent's too. Both are made when needed.

    Names are plain file names, constants of the agent's. Errors are those of PrivateFiles.
    """

    def __init__(self, private: PrivateFiles, parent: str, path: str) -> None:
        self._private = private
        self._directories = (parent, path)

    def read(self, name: str) -> bytes | None:
        """A file's content, None when there is none."""
        path = self._file(name)
        if not all(self._private.secure_directory(directory, make=False) for directory in self._directories):
            return None
        return self._private.read(path)

    def write(self, name: str, content: bytes) -> None:
        """Put a file in place, whole or not at all."""
        path = self._file(name)
        for directory in self._directories:
            self._private.secure_directory(directory)
        self._private.write(path, content)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        self._private.remove(self._file(name))

    def _file(self, name: str) -> str:
        if not name or "\\" in name or "/" in name:
            raise ValueError("a state file has a plain name")
        check_name(name)
        return f"{self._directories[-1]}\\{name}"
