"""What the systems have in common whose files lie below one root, as Linux keeps them."""

from __future__ import annotations

import abc
import contextlib
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from typing import IO, TYPE_CHECKING

from agent_protocol.outcomes import Failed, Refused, Unsuccessful

from ..network import UNDO_FILE
from ..network.stacks import stack_of
from ..places import CONFIGURATION_FILE
from . import state
from .accounts import Owner
from .authorized_keys import AuthorizedKey, change_keys
from .base import System
from .cloud_init import CloudInit, find_cloud_init
from .distributions import Distribution, find_distribution
from .files import read_file, write_file
from .hostname import HOSTNAME_FILE, HOSTS_FILE, HostName, read_hostname, rename_in_hosts, write_hostname
from .lookup import any_there
from .paths import GuestPath
from .snapshots import put_back, take_snapshot

if TYPE_CHECKING:
    from ..commands import Context
    from ..configuration import Configuration
    from ..network.apply import Applied
    from ..network.data import NetworkData

_OS_RELEASE = (GuestPath("/etc/os-release"), GuestPath("/usr/lib/os-release"))
"""os-release(5): the first is what counts, but mostly a link to the second, and links are not read."""

_OS_RELEASE_LINE = re.compile(
    r"^(ID|ID_LIKE|VERSION_ID|PRETTY_NAME)=(?:\"([^\"\n]*)\"|'([^'\n]*)'|([^\s\"']*))[ \t]*$", re.MULTILINE
)

_TOLD = ("ID", "VERSION_ID", "PRETTY_NAME")

_LOGIN_DEFS = GuestPath("/etc/login.defs")
_MINIMUM = re.compile(rb"^[ \t]*PASS_MIN_LEN[ \t]+([0-9]{1,9})[ \t]*$", re.MULTILINE)

_log = logging.getLogger(__name__)


class PosixSystem(System):
    """A system whose files are those of a Linux distribution, below `root`."""

    lacks = frozenset({"kmsactivate"})
    configuration_name = CONFIGURATION_FILE.text
    _held: IO[bytes] | None = None

    def hold(self) -> None:
        """By a locked file in the agent's own directory. Where there can be none the agent serves all the same."""
        try:
            self._held = state.hold(self.root)
        except Unsuccessful as error:
            _log.warning("nothing keeps a second agent out of this guest: %s", error)
            return
        if self._held is None:
            raise Refused("already_served", "another agent serves this guest already")

    def prepare(self, context: Context) -> None:
        """Thaw its file systems, put back a network that was half changed, and find its network stack."""
        if self.live is not None:
            from .freezing import Freezer

            context.freezer = Freezer(self.root)
            context.freezer.thaw_leftovers()
        with contextlib.suppress(Unsuccessful):
            if any_there(self.root, UNDO_FILE.text):
                from ..network.renderers import RENDERERS
                from ..network.undo import recover

                recover(self, RENDERERS)
        # Its log line is what matters; a guest without a stack is served too.
        with contextlib.suppress(Unsuccessful):
            stack_of(self, context.configuration)

    def read_configuration(self) -> bytes | None:
        """From /etc."""
        return read_file(self.root, CONFIGURATION_FILE)

    def read_state(self, name: str) -> bytes | None:
        """From the agent's own directory, which others are shut out of by that."""
        return state.read_state(self.root, name)

    def write_state(self, name: str, content: bytes) -> None:
        """To the agent's own directory."""
        state.write_state(self.root, name, content)

    def release(self) -> Mapping[str, str]:
        """From os-release(5)."""
        return {name: value for name, value in self._os_release().items() if name in _TOLD}

    def distribution(self) -> Distribution:
        """By os-release(5)."""
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
        """By its files."""
        return find_cloud_init(self.root)

    def set_hostname(self, name: HostName) -> None:
        """In /etc/hostname, in the machine's own line of /etc/hosts, and in what runs."""
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

    def network_stack_name(self, configuration: Configuration) -> str:
        """As stack_of() decides."""
        try:
            return stack_of(self, configuration).name
        except Unsuccessful:
            return ""

    def apply_network(self, data: NetworkData, configuration: Configuration) -> Applied:
        """By the renderer of the stack, unless cloud-init owns the network."""
        # Only here: most guests are asked once in their life or never, and it takes 5 MiB of an agent that waits.
        from ..network.configure import configure

        return configure(self, data, configuration)

    def minimum_password_length(self) -> int:
        """PASS_MIN_LEN of /etc/login.defs."""
        rule = _MINIMUM.search(read_file(self.root, _LOGIN_DEFS) or b"")
        return int(rule.group(1)) if rule else 0

    def put_file(self, path: str, content: bytes, *, mode: int | None, owner: tuple[str, str | None] | None) -> None:
        """As files.write_file."""
        parsed = GuestPath(path)
        found = None if owner is None else self.find_owner(*owner)
        write_file(self.root, parsed, content, mode=mode, owner=found)

    def change_ssh_keys(
        self, user: str, add: Sequence[AuthorizedKey], remove: Collection[AuthorizedKey]
    ) -> tuple[int, int]:
        """In the authorized_keys file of the account's home directory."""
        return change_keys(self.root, self.find_user(user), add, remove)

    @abc.abstractmethod
    def find_group(self, name: str) -> int:
        """The number of the group of that name. Refused (`no_such_group`) when there is none."""

    def find_owner(self, user: str, group: str | None) -> Owner:
        """The owner named by a user and a group; without a group, the user's own. Refused as above."""
        owner = self.find_user(user).owner
        return owner if group is None else Owner(owner.uid, self.find_group(group))
