"""What the commands need of an operating system. One implementation is chosen at start, see choose()."""

from __future__ import annotations

import abc
from dataclasses import dataclass

from agent_protocol.messages import Password, has_control_characters
from agent_protocol.outcomes import Refused

MAX_USER_NAME = 256
"""Bytes in the name of a user or a group: Linux's LOGIN_NAME_MAX."""


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


class System(abc.ABC):
    """A guest's operating system, as far as it differs from others.

    root: the directory that the guest sees as `/`. administrator: the name of its most powerful account.
    """

    root: str
    administrator: str

    @abc.abstractmethod
    def boot_id(self) -> str:
        """A text that changes with each boot of the guest."""

    @abc.abstractmethod
    def set_password(self, user: str, password: Password) -> None:
        """Give the account this password, by the system's own means.

        Refused with `no_such_user`, or with `password_policy` and the system's own words.
        """

    @abc.abstractmethod
    def find_user(self, name: str) -> User:
        """The account of that name. Refused (`no_such_user`) when there is none."""

    @abc.abstractmethod
    def find_group(self, name: str) -> int:
        """The number of the group of that name. Refused (`no_such_group`) when there is none."""

    def find_owner(self, user: str, group: str | None) -> Owner:
        """The owner named by a user and a group; without a group, the user's own. Refused as above."""
        owner = self.find_user(user).owner
        return owner if group is None else Owner(owner.uid, self.find_group(group))


def no_such_user(name: str) -> Refused:
    """The error for an account that the guest does not have."""
    return Refused("no_such_user", f"this guest has no user {name!r}")


def no_such_group(name: str) -> Refused:
    """The error for a group that the guest does not have."""
    return Refused("no_such_group", f"this guest has no group {name!r}")
