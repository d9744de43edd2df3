"""What the commands need of an operating system. One implementation is chosen at start, see choose()."""

from __future__ import annotations

import abc
import re
from collections.abc import Mapping, Sequence

from agent_protocol.messages import Password
from agent_protocol.outcomes import Refused

from .accounts import Owner, PasswordHash, User
from .files import read_file
from .paths import GuestPath

_OS_RELEASE = (GuestPath("/etc/os-release"), GuestPath("/usr/lib/os-release"))
"""os-release(5): the first is what counts, but mostly a link to the second, and links are not read."""

_OS_RELEASE_LINE = re.compile(
    r"^(ID|VERSION_ID|PRETTY_NAME)=(?:\"([^\"\n]*)\"|'([^'\n]*)'|([^\s\"']*))[ \t]*$", re.MULTILINE
)

_LOGIN_DEFS = GuestPath("/etc/login.defs")
_MINIMUM = re.compile(rb"^[ \t]*PASS_MIN_LEN[ \t]+([0-9]{1,9})[ \t]*$", re.MULTILINE)


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
    def set_password(self, user: str, password: Password | PasswordHash, *, expire: bool = False) -> None:
        """Give the account this password, by the system's own means; an account that was locked is opened by it.

        expire: whether it must be changed at the next login. Refused with `no_such_user`, or with `password_policy`
        and the system's own words; no policy can be asked about a hash.
        """

    def minimum_password_length(self) -> int:
        """Characters that a password must have, as far as the system says so: PASS_MIN_LEN of /etc/login.defs."""
        rule = _MINIMUM.search(read_file(self.root, _LOGIN_DEFS) or b"")
        return int(rule.group(1)) if rule else 0

    def release(self) -> Mapping[str, str]:
        """ID, VERSION_ID and PRETTY_NAME of os-release(5), those that are there."""
        for path in _OS_RELEASE:
            try:
                content = read_file(self.root, path)
            except Refused:
                continue
            if content is not None:
                lines = _OS_RELEASE_LINE.finditer(content.decode("utf-8", "replace"))
                return {line[1]: line[2] or line[3] or line[4] or "" for line in lines}
        return {}

    @abc.abstractmethod
    def hostname(self) -> str:
        """What the system calls itself."""

    @abc.abstractmethod
    def kernel(self) -> str:
        """The running kernel's release; empty when nothing runs."""

    @abc.abstractmethod
    def addresses(self) -> Sequence[Mapping[str, str]]:
        """The `address` of each `interface`, but the loopback ones and IPv6's link-local ones."""

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
