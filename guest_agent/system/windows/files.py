"""Putting a file into a Windows guest: whole, or not at all.

Every directory on the way is kept open while it is walked, so that nobody can put a junction in its place; the last one
is looked at again once the new file is in it, because only an empty directory can be made a junction.
"""

from __future__ import annotations

import contextlib
import logging
import os

from agent_protocol.outcomes import Busy, Failed, Refused

from .accounts import find_sid
from .api import Accounts, CallError, Files, Held, Status
from .errors import (
    ALREADY_EXISTS,
    MISSING,
    UNABLE_TO_MOVE_REPLACEMENT_2,
    failures,
    outcome_of,
)
from .paths import DrivePath

TEMPORARY_PREFIX = ".xenward-"
"""How the name begins that a new file has for the moment before it is in its place."""

BACKUP_SUFFIX = ".old"
"""How the name ends that the old file has for the moment until it is removed."""

# The FILE_ATTRIBUTE_ flags of winnt.h.
READ_ONLY = 0x1
HIDDEN = 0x2
SYSTEM = 0x4
DIRECTORY = 0x10
ARCHIVE = 0x20
REPARSE_POINT = 0x400
NOT_CONTENT_INDEXED = 0x2000

_KEPT = READ_ONLY | HIDDEN | SYSTEM | NOT_CONTENT_INDEXED

_log = logging.getLogger(__name__)


def put_file(
    files: Files,
    accounts: Accounts,
    untrusted_path: str,
    content: bytes,
    *,
    mode: int | None,
    owner: tuple[str, str | None] | None,
) -> None:
    """Write a file, making the directories that are missing on the way.

    A file that is replaced keeps its owner, its access control list, its attributes (also that of being read-only) and
    its alternate data streams. A new one, like new directories, has the list that its directory hands down, as any new
    file in Windows.
    owner: a user or group of this guest, and None; None for the file's own, or the agent's.

    Refused, with nothing changed: `bad_path` (DrivePath), also when the drive is no disk of this machine;
    `mode_unsupported` and `group_unsupported`, for what files do not have here; `no_such_user`; `not_a_directory` and
    `not_a_file` when something else, or a reparse point of any kind, is on the way or in the file's place.
    Busy (`file_in_use`) when another program has it open; Failed as in errors.outcome_of.
    """
    path = DrivePath(untrusted_path)
    if mode is not None:
        raise Refused("mode_unsupported", "files have no mode in Windows")
    if owner is not None and owner[1] is not None:
        raise Refused("group_unsupported", "files are not used through their group in Windows")
    sid = None if owner is None else find_sid(accounts, owner[0])
    with failures(path.text[:200]), contextlib.ExitStack() as opened:
        if not files.is_fixed(path.drive):
            raise Refused("bad_path", f"{path.drive} is not a disk of this machine")
        for directory in path.directories:
            held = _enter(files, directory)
            opened.callback(held.close)
            _check_directory(held)
        _put(files, path, held, content, sid)


def _enter(files: Files, directory: str) -> Held:
    try:
        return files.hold(directory)
    except CallError as error:
        if error.number not in MISSING:
            raise
    try:
        files.make_directory(directory, None)
    except CallError as error:
        if error.number != ALREADY_EXISTS:
            raise
    return files.hold(directory)


def _check_directory(held: Held) -> None:
    attributes = held.status().attributes
    if attributes & REPARSE_POINT or not attributes & DIRECTORY:
        raise Refused("not_a_directory", "something on the way is not a plain directory, but a file, link or junction")


def _put(files: Files, path: DrivePath, directory: Held, content: bytes, owner: str | None) -> None:
    target = path.extended
    present = files.look(target)
    if present is not None and present.attributes & (DIRECTORY | REPARSE_POINT):
        raise Refused("not_a_file", f"{path.name[:64]!r} is a directory, a link or another reparse point, not a file")
    wanted = present.owner if owner is None and present is not None else owner
    temporary = f"{path.directories[-1].rstrip(chr(92))}\\{TEMPORARY_PREFIX}{os.urandom(8).hex()}"
    files.create(
        temporary,
        content,
        dacl=None if present is None else present.dacl,
        owner=wanted,
    )
    try:
        _check_directory(directory)
        _check_owner(files, temporary, wanted)
        if present is None:
            _place(files, temporary, target)
        else:
            replace(files, target, temporary, present)
    except BaseException:
        with contextlib.suppress(CallError):
            files.remove(temporary)
        raise


def _check_owner(files: Files, temporary: str, wanted: str | None) -> None:
    """File systems without security take any owner, and keep none."""
    found = files.look(temporary)
    if wanted is not None and (found is None or found.owner != wanted):
        raise Failed("owner_failed", "the file was given to its owner, and does not belong to it nevertheless")


def _place(files: Files, temporary: str, target: str) -> None:
    try:
        files.move(temporary, target, replace=False)
    except CallError as error:
        if error.number == ALREADY_EXISTS:
            raise Busy("file_in_use", "another program has made the file just now") from None
        raise


def replace(files: Files, target: str, replacement: str, present: Status) -> None:
    """Put the file `replacement` in the place of the one at `target`, with its attributes. present: what is there.

    CallErrors as they come, with the old file in its place; Failed (`file_lost`) tells where it is if not there.
    """
    backup = replacement + BACKUP_SUFFIX
    read_only = bool(present.attributes & READ_ONLY)
    if read_only:
        files.set_attributes(target, present.attributes & ~READ_ONLY)
    try:
        _swap(files, target, replacement, backup)
    except BaseException:
        if read_only:
            with contextlib.suppress(CallError):
                files.set_attributes(target, present.attributes)
        raise
    try:
        files.set_attributes(target, present.attributes & _KEPT | ARCHIVE)
    except CallError as error:
        raise Failed("attributes_lost", f"the file is written, but does not have its attributes: {error}") from None
    finally:
        _discard(files, backup)
        # Someone who uses it by now may keep us from that; the system writes it in its own time then.
        with contextlib.suppress(CallError):
            files.flush(target)


def _swap(files: Files, target: str, replacement: str, backup: str) -> None:
    try:
        files.replace(target, replacement, backup)
    except CallError as error:
        if error.number == UNABLE_TO_MOVE_REPLACEMENT_2:
            try:
                files.move(backup, target, replace=False)
            except CallError as lost:
                reason = outcome_of(error).message
                raise Failed("file_lost", f"{reason}; the old file is now {backup[4:]!r}: {lost}") from None
        raise


def _discard(files: Files, backup: str) -> None:
    """Remove what was replaced; a program that runs from it, say, keeps it until the next boot."""
    try:
        files.remove(backup)
    except CallError:
        try:
            files.remove_at_boot(backup)
            _log.warning("a file that was replaced is still in use, the next boot removes it: %r", backup[4:])
        except CallError as error:
            _log.warning("a file that was replaced cannot be removed: %r: %s", backup[4:], error)
