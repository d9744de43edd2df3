"""Accounts of a guest: their names, owners and hashed passwords, and the errors that they end in."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from agent_protocol.messages import has_control_characters
from agent_protocol.outcomes import Refused

MAX_USER_NAME = 256
"""Bytes in the name of a user or a group: Linux's LOGIN_NAME_MAX."""


_HASH = re.compile(
    # SHA-256-crypt and SHA-512-crypt, maybe with a number of rounds
    r"\$5\$(rounds=[1-9][0-9]{3,8}\$)?[./0-9A-Za-z]{1,16}\$[./0-9A-Za-z]{43}"
    r"|\$6\$(rounds=[1-9][0-9]{3,8}\$)?[./0-9A-Za-z]{1,16}\$[./0-9A-Za-z]{86}"
    # yescrypt: parameters, salt, hash
    r"|\$y\$[./0-9A-Za-z]{1,16}\$[./0-9A-Za-z]{1,86}\$[./0-9A-Za-z]{43}"
    # bcrypt: cost, then salt and hash in one
    r"|\$2b\$(0[4-9]|[12][0-9]|3[01])\$[./0-9A-Za-z]{53}",
    re.ASCII,
)


@dataclass(frozen=True)
class PasswordHash:
    """A password as crypt(5) has it, of a kind that today's Linux systems take: $6$, $5$, $y$ or $2b$, whole.

    Refused (`bad_hash`) otherwise: anything else would lock the account, or be a password in clear text.
    """

    value: str = field(repr=False)

    def __post_init__(self) -> None:
        if not _HASH.fullmatch(self.value):
            raise Refused("bad_hash", "the hash is none of $6$, $5$, $y$ and $2b$, or is not whole")


@dataclass(frozen=True)
class Owner:
    """Who a file belongs to, in the kernel's numbers."""

    uid: int
    gid: int


@dataclass(frozen=True)
class User:
    """An account of the guest. home: its home directory, absolute, as the guest itself sees it."""

    name: str
    owner: Owner
    home: str


def check_account_name(untrusted_name: str) -> str:
    """The name itself, when a user or a group can have it. Refused (`bad_user_name`) otherwise.

    A colon or a line break would end it early in chpasswd's input and in the files of /etc.
    """
    try:
        size = len(untrusted_name.encode("utf-8"))
    except UnicodeEncodeError:
        raise Refused("bad_user_name", "the name is not text that UTF-8 can hold") from None
    if not 1 <= size <= MAX_USER_NAME:
        raise Refused("bad_user_name", f"a user or group name has 1 to {MAX_USER_NAME} bytes of UTF-8, this one {size}")
    if ":" in untrusted_name or has_control_characters(untrusted_name):
        raise Refused("bad_user_name", "a user or group name cannot contain a colon or control characters")
    return untrusted_name


def no_such_user(name: str) -> Refused:
    """The error for an account that the guest does not have."""
    return Refused("no_such_user", f"this guest has no user {name!r}")


def no_such_group(name: str) -> Refused:
    """The error for a group that the guest does not have."""
    return Refused("no_such_group", f"this guest has no group {name!r}")
