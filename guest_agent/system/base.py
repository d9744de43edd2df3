"""What the commands need of an operating system. One implementation is chosen at start, see choose()."""

from __future__ import annotations

import abc
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from agent_protocol.messages import Password
from agent_protocol.outcomes import Failed, Refused, Unsuccessful

from .accounts import Owner, PasswordHash, User
from .cloud_init import CloudInit, find_cloud_init
from .distributions import Distribution, find_distribution
from .files import read_file
from .hostname import HOSTNAME_FILE, HOSTS_FILE, HostName, read_hostname, rename_in_hosts, write_hostname
from .paths import GuestPath
from .snapshots import put_back, take_snapshot

if TYPE_CHECKING:
    from ..network.live import LiveNetwork
    from ..network.stacks import Stack

_OS_RELEASE = (GuestPath("/etc/os-release"), GuestPath("/usr/lib/os-release"))
"""os-release(5): the first is what counts, but mostly a link to the second, and links are not read."""

_OS_RELEASE_LINE = re.compile(
    r"^(ID|ID_LIKE|VERSION_ID|PRETTY_NAME)=(?:\"([^\"\n]*)\"|'([^'\n]*)'|([^\s\"']*))[ \t]*$", re.MULTILINE
)

_TOLD = ("ID", "VERSION_ID", "PRETTY_NAME")

_LOGIN_DEFS = GuestPath("/etc/login.defs")
_MINIMUM = re.compile(rb"^[ \t]*PASS_MIN_LEN[ \t]+([0-9]{1,9})[ \t]*$", re.MULTILINE)


class System(abc.ABC):
    """A guest's operating system, as far as it differs from others.

    root: the directory that the guest sees as `/`. administrator: the name of its most powerful account.
    live: its network, on which programs act; None for a system that does not run.
    network_stack: what network.stacks.stack_of() decided when it was asked first.
    """

    root: str
    administrator: str
    live: LiveNetwork | None = None
    network_stack: Stack | Unsuccessful | None = None

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
        return {name: value for name, value in self._os_release().items() if name in _TOLD}

    def distribution(self) -> Distribution:
        """Which distribution it is, by os-release(5)."""
        told = self._os_release()
        return find_distribution(told.get("ID", ""), told.get("ID_LIKE", ""), told.get("VERSION_ID", ""))

    def _os_release(self) -> Mapping[str, str]:
        for path in _OS_RELEASE:
            try:
                content = read_file(self.root, path)
            except Refused:
                continue
            if content is not None:
                lines = _OS_RELEASE_LINE.finditer(content.decode("utf-8", "replace"))
                return {line[1]: line[2] or line[3] or line[4] or "" for line in lines}
        return {}

    def cloud_init(self) -> CloudInit:
        """What cloud-init does in this guest, as of now."""
        return find_cloud_init(self.root)

    def set_hostname(self, name: HostName) -> None:
        """Make this the system's name, now and for its next boots: success means that it was read back.

        Unsupported (`unknown_distribution`) when the agent does not know where the name is kept; Failed
        (`hostname_failed`) with what went wrong and what became of the old name.
        """
        self.distribution().known_family()
        before = take_snapshot(self.root, HOSTNAME_FILE)
        old_names = (self.hostname(), read_hostname(self.root))
        try:
            write_hostname(self.root, name)
            self._activate_hostname(name)
        except (Refused, Failed) as error:
            try:
                put_back(self.root, before)
            except (Refused, Failed) as lost:
                raise Failed("hostname_failed", f"{error}; and the old name cannot be put back: {lost}") from None
            raise Failed("hostname_failed", f"{error}; the old name is back") from None
        try:
            rename_in_hosts(self.root, old_names, name)
        except (Refused, Failed) as error:
            raise Failed("hostname_failed", f"the name is set, but not in {HOSTS_FILE.text}: {error}") from None

    @abc.abstractmethod
    def _activate_hostname(self, name: HostName) -> None:
        """Make what runs take the name. Failed (`hostname_failed`) when it keeps another."""

    @abc.abstractmethod
    def interface_names(self) -> Mapping[str, Sequence[str]]:
        """The names of the network interfaces with each MAC address (lower case, with colons), those that can have
        addresses of their own: not what is part of a bond or stands upon another interface."""

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
