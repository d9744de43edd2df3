"""The numbers of errors that the agent knows, and the outcomes that errors of the system become."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from agent_protocol.outcomes import Busy, Failed, Unsuccessful

from .api import CallError

# winerror.h
FILE_NOT_FOUND = 2
PATH_NOT_FOUND = 3
ACCESS_DENIED = 5
SHARING_VIOLATION = 32
LOCK_VIOLATION = 33
HANDLE_DISK_FULL = 39
FILE_EXISTS = 80
INVALID_PASSWORD = 86
DISK_FULL = 112
ALREADY_EXISTS = 183
UNABLE_TO_MOVE_REPLACEMENT_2 = 1177
USER_MAPPED_FILE = 1224
NO_SUCH_USER = 1317
ILL_FORMED_PASSWORD = 1324
PASSWORD_RESTRICTION = 1325
NONE_MAPPED = 1332

# lmerr.h
BAD_USERNAME = 2202
BAD_PASSWORD = 2203
USER_NOT_FOUND = 2221
PASSWORD_CANNOT_CHANGE = 2243
PASSWORD_HISTORY_CONFLICT = 2244
PASSWORD_TOO_SHORT = 2245
PASSWORD_TOO_RECENT = 2246

MISSING = frozenset({FILE_NOT_FOUND, PATH_NOT_FOUND})

IN_USE = frozenset({SHARING_VIOLATION, LOCK_VIOLATION, USER_MAPPED_FILE})

_CODES = {ACCESS_DENIED: "access_denied", DISK_FULL: "disk_full", HANDLE_DISK_FULL: "disk_full"}


def outcome_of(error: CallError, about: str = "") -> Unsuccessful:
    """Busy (`file_in_use`) when another program holds what is needed, else Failed with `access_denied`, `disk_full` or
    `windows_error`; always with the call, its error's number and the system's words. about: what it was done to."""
    message = f"{error} ({about})" if about else str(error)
    if error.number in IN_USE:
        return Busy("file_in_use", message)
    return Failed(_CODES.get(error.number, "windows_error"), message)


@contextlib.contextmanager
def failures(about: str = "") -> Iterator[None]:
    """Turn errors of the system into what outcome_of says."""
    try:
        yield
    except CallError as error:
        raise outcome_of(error, about) from None
