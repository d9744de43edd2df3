"""What the commands need of an operating system. One implementation is chosen at start, see choose()."""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from agent_protocol.messages import Password
from agent_protocol.outcomes import Unsuccessful, Unsupported

from .accounts import PasswordHash, User

if TYPE_CHECKING:
    from ..commands import Context
    from ..configuration import Configuration
    from ..network.apply import Applied
    from ..network.data import NetworkData
    from ..network.live import LiveNetwork
    from ..network.stacks import Stack
    from .authorized_keys import AuthorizedKey
    from .cloud_init import CloudInit
    from .distributions import Distribution
    from .hostname import HostName


class System(abc.ABC):
    """A guest's operating system, as far as it differs from others.

    root: the directory that the guest sees as `/`. administrator: the name of its most powerful account.
    lacks: names of commands that it does not have: they are not announced, and end as not_on_this_system() says.
    configuration_name: where the agent's configuration is, for messages.
    live: its network, on which programs act; None for a system that does not run.
    network_stack: what network.stacks.stack_of() decided when it was asked first.
    """

    root: str
    administrator: str
    configuration_name: str
    lacks: frozenset[str] = frozenset()
    live: LiveNetwork | None = None
    network_stack: Stack | Unsuccessful | None = None

    # The agent's own

    @abc.abstractmethod
    def hold(self) -> None:
        """Keep other agents out of this guest as long as this process runs: two of them would answer for each other.

        Refused (`already_served`) when there is one.
        """

    def prepare(self, context: Context) -> None:
        """What is to be done before the agent serves: end what an earlier run left in the middle, look at the system.

        Nothing that goes wrong there is raised: an agent that serves can be told to repair the rest. The log tells.
        """
        del context

    @abc.abstractmethod
    def read_configuration(self) -> bytes | None:
        """The content of the agent's configuration, None when there is none. Refused or Failed when it cannot be read,
        or is not a regular file."""

    @abc.abstractmethod
    def read_state(self, name: str) -> bytes | None:
        """The content of a file of the agent's own, None when there is none.

        name: one that write_state was called with. Refused or Failed when it cannot be read.
        """

    @abc.abstractmethod
    def write_state(self, name: str, content: bytes) -> None:
        """Keep a file of the agent's own, whole or not at all, which outlasts a boot and which nobody else can read.

        name: a plain file name, a constant of the agent's. Refused or Failed when it cannot be kept.
        """

    # What it is

    @abc.abstractmethod
    def boot_id(self) -> str:
        """A text that changes with each boot of the guest."""

    @abc.abstractmethod
    def release(self) -> Mapping[str, str]:
        """ID, VERSION_ID and PRETTY_NAME in the sense of os-release(5), those that are there."""

    @abc.abstractmethod
    def distribution(self) -> Distribution:
        """Which distribution it is."""

    @abc.abstractmethod
    def kernel(self) -> str:
        """The running kernel's release; empty when nothing runs."""

    @abc.abstractmethod
    def cloud_init(self) -> CloudInit:
        """What cloud-init does in this guest, as of now."""

    def reboot_pending(self) -> bool:
        """Whether the system waits for a reboot to end a change that was made to it."""
        return False

    # Names and network

    @abc.abstractmethod
    def hostname(self) -> str:
        """What the system calls itself."""

    @abc.abstractmethod
    def set_hostname(self, name: HostName) -> None:
        """Make this the system's name, now (where it can change while it runs) and for its next boots: success means
        that it was read back.

        Unsupported (`unknown_distribution`) when the agent does not know where the name is kept; Failed
        (`hostname_failed`) with what went wrong and what became of the old name.
        """

    @abc.abstractmethod
    def interface_names(self) -> Mapping[str, Sequence[str]]:
        """The names of the network interfaces with each MAC address (lower case, with colons), those that can have
        addresses of their own: not what is part of a bond or stands upon another interface."""

    @abc.abstractmethod
    def addresses(self) -> Sequence[Mapping[str, str]]:
        """The `address` of each `interface`, but the loopback ones and IPv6's link-local ones."""

    @abc.abstractmethod
    def network_stack_name(self, configuration: Configuration) -> str:
        """What keeps the network's configuration, as a host is told; empty when it cannot be told."""

    @abc.abstractmethod
    def apply_network(self, data: NetworkData, configuration: Configuration) -> Applied:
        """Configure these interfaces: all of it, or nothing.

        Refused when nothing was changed: `no_such_interface` or `ambiguous_interface` when not exactly one has the MAC
        address, `bad_network_data` for what the system cannot express, `cloud_init_owns_network` when somebody else
        configures it. Failed (`network_failed`) when something went wrong and the old configuration is back; Failed
        (`network_lost`) when it is not, or not all of it.
        """

    # Accounts and files

    @abc.abstractmethod
    def find_user(self, name: str) -> User:
        """The account of that name. Refused (`no_such_user`) when there is none."""

    def minimum_password_length(self) -> int:
        """Characters that a password must have, as far as the system says so."""
        return 0

    @abc.abstractmethod
    def set_password(self, user: str, password: Password | PasswordHash, *, expire: bool = False) -> None:
        """Give the account this password, by the system's own means; an account that was locked is opened by it.

        expire: whether it must be changed at the next login. Refused with `no_such_user`, or with `password_policy`
        and the system's own words; no policy can be asked about a hash.
        """

    @abc.abstractmethod
    def put_file(self, path: str, content: bytes, *, mode: int | None, owner: tuple[str, str | None] | None) -> None:
        """Write a file, whole or not at all, making the directories on the way to it.

        path: as the host wrote it, unparsed. Refused (`bad_path`) when it can be no file's. mode, owner (a user and, if
        named, a group): those of the file that is replaced, or the system's choice for a new one, when they are None.
        Refused with `no_such_user` or `no_such_group`, `not_a_file` when something else is in its place; Failed with
        the system's own error.
        """

    @abc.abstractmethod
    def change_ssh_keys(
        self, user: str, add: Sequence[AuthorizedKey], remove: Collection[AuthorizedKey]
    ) -> tuple[int, int]:
        """Add keys to those that may log in to the account and remove others; returns how many were added and removed.

        A key that is there already is not added again. Refused with `no_such_user`, and for what stands in the way.
        """

    def activate(self, server: str | None) -> str:
        """Have the system's licence activated by a key management server; returns what the system says about it.

        server: host name or address with its port behind a colon, if it has one; None for the one that is configured.
        """
        del server
        raise not_on_this_system("kmsactivate")


def not_on_this_system(name: str) -> Unsupported:
    """The error for a command that the guest's operating system does not have."""
    return Unsupported("not_on_this_system", f"the operating system of this guest does not have {name}")
