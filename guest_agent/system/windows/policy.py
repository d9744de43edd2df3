"""What Windows says to a new password, as an answer to whoever asked for it."""

from __future__ import annotations

from agent_protocol.outcomes import Failed, Refused, Unsuccessful

from ..accounts import no_such_user
from .api import CallError
from .errors import (
    ACCESS_DENIED,
    BAD_PASSWORD,
    BAD_USERNAME,
    ILL_FORMED_PASSWORD,
    INVALID_PASSWORD,
    NO_SUCH_USER,
    PASSWORD_CANNOT_CHANGE,
    PASSWORD_HISTORY_CONFLICT,
    PASSWORD_RESTRICTION,
    PASSWORD_TOO_RECENT,
    PASSWORD_TOO_SHORT,
    USER_NOT_FOUND,
)

MAX_PASSWORD = 127
"""UTF-16 units: the longest that the logon takes. The calls would store one of 256, which nobody could log on with."""

_NOBODY = frozenset({USER_NOT_FOUND, BAD_USERNAME, NO_SUCH_USER})

_RULES = frozenset(
    {
        PASSWORD_TOO_SHORT,
        PASSWORD_RESTRICTION,
        INVALID_PASSWORD,
        BAD_PASSWORD,
        ILL_FORMED_PASSWORD,
        PASSWORD_CANNOT_CHANGE,
        PASSWORD_HISTORY_CONFLICT,
        PASSWORD_TOO_RECENT,
    }
)
"""PASSWORD_TOO_SHORT stands for all of the policy: length, complexity and history (NetUserSetInfo)."""


def check_length(password: str) -> None:
    """Refused (`password_policy`) for more than MAX_PASSWORD."""
    if len(password.encode("utf-16-le")) // 2 > MAX_PASSWORD:
        raise Refused("password_policy", f"nobody can log on to Windows with more than {MAX_PASSWORD} characters")


def password_error(error: CallError, user: str) -> Unsuccessful:
    """The answer for an error of a call that was to give `user` a password; it has the system's own words."""
    if error.number in _NOBODY:
        return no_such_user(user)
    if error.number in _RULES:
        return Refused("password_policy", error.words or f"the system's policy forbids it (error {error.number})")
    return Failed("access_denied" if error.number == ACCESS_DENIED else "password_failed", str(error))
