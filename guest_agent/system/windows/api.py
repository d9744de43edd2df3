"""The calls of the operating system that the agent needs, as interfaces: the real ones are in the modules `*_win32`.

Whatever goes wrong in any of them is a CallError. Paths are those of paths.DrivePath.extended or below such a one,
security is in the text form of the Security Descriptor Definition Language (SDDL), keys are below HKEY_LOCAL_MACHINE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Callable, Protocol, Union

Value = Union[str, int, bytes, "list[str]"]
"""What a value of the registry holds: REG_SZ, REG_DWORD and REG_QWORD, REG_BINARY, REG_MULTI_SZ."""


class CallError(Exception):
    """Raise when a call of the operating system fails.

    call: its name. number: of the error, see winerror.h and lmerr.h. words: the system's own, in its language; they may
    be missing, but hold no secret.
    """

    def __init__(self, call: str, number: int, words: str = "") -> None:
        super().__init__(call, number, words)
        self.call = call
        self.number = number
        self.words = words.strip()

    def __str__(self) -> str:
        return f"{self.call} ended with error {self.number}" + (f": {self.words}" if self.words else "")


@dataclass(frozen=True)
class Account:
    """A local account. rid, group: the last number of its own SID and that of its primary group.

    flags: the UF_ ones of lmaccess.h. password_expired: whether the password must be changed at the next logon.
    """

    sid: str
    rid: int
    group: int
    flags: int
    password_expired: bool


class Accounts(Protocol):
    """The local accounts. Names that nobody has: error 2221 from those calls that take an account's name."""

    def own_sid(self) -> str:
        """The SID of the account that the agent runs as."""

    def machine_sid(self) -> str:
        """The SID that those of the machine's own accounts begin with; a domain controller's is its domain's."""

    def name_of(self, sid: str) -> str:
        """The name of whoever has that SID, without a domain. Error 1332 for nobody."""

    def sid_of(self, name: str) -> str:
        """The SID of the user or group of that name. Error 1332 for nobody."""

    def account(self, name: str) -> Account:
        """What is known about an account."""

    def set_password(self, name: str, password: str) -> None:
        """Give the account a password, without knowing the old one; the system's policy is asked."""

    def set_flags(self, name: str, flags: int) -> None:
        """Give the account these flags in place of those that it has."""

    def expire_password(self, name: str) -> None:
        """Let the password have to be changed at the next logon."""

    def minimum_password_length(self) -> int:
        """Characters, by the policy."""


@dataclass(frozen=True)
class Entry:
    """An entry of an access control list. allows: whether it gives the rights in mask or denies them.

    flags: how it is inherited; see the constants in private.py for those and for the rights.
    """

    allows: bool
    flags: int
    mask: int
    sid: str


@dataclass(frozen=True)
class Status:
    """What stands at a path. attributes: the FILE_ATTRIBUTE_ flags. owner: a SID.

    dacl: its discretionary access control list, in SDDL. entries: those of that list; None when there is no list, which
    lets everybody do everything.
    """

    attributes: int
    owner: str
    dacl: str
    entries: tuple[Entry, ...] | None


class Held(Protocol):
    """A directory that is kept open, and that nobody can rename or remove for as long."""

    def status(self) -> Status:
        """What it is now."""

    def protect(self, owner: str, dacl: str) -> None:
        """Give it to that owner, with that list. Only after it was held `for_protection`."""

    def close(self) -> None:
        """Let go of it."""


class Files(Protocol):
    """Files and directories. Nothing here follows a reparse point (symbolic link, junction) at the end of a path."""

    def is_fixed(self, drive: str) -> bool:
        """Whether the drive, such as `C:`, is a disk of this machine that is always there."""

    def hold(self, path: str, *, for_protection: bool = False) -> Held:
        """Keep a directory, or what is in its place, open. Error 2 or 3 when nothing is there."""

    def look(self, path: str) -> Status | None:
        """What is there, None when nothing is."""

    def read(self, path: str, limit: int) -> tuple[Status, bytes] | None:
        """A file with its content, at most `limit` bytes of it; None when nothing is there."""

    def make_directory(self, path: str, dacl: str | None) -> None:
        """Make a directory; without a list it inherits that. Error 183 when something is there already."""

    def create(self, path: str, content: bytes, *, dacl: str | None, owner: str | None) -> None:
        """Make a file, which nobody else can open until it is whole and on the disk. Error 80 when something is there.

        dacl: its list; without one it inherits that. owner: a SID; None for the agent's own. Nothing is left of it when
        it fails.
        """

    def replace(self, path: str, replacement: str, backup: str) -> None:
        """Let the file `replacement` take the place of the one at `path`, which then is at `backup`.

        Error 1177: nothing is at `path` now, and the old file is at `backup`. Everything is as before after any other.
        """

    def move(self, source: str, target: str, *, replace: bool) -> None:
        """Rename a file within its volume; on the disk when it returns. Error 183 when `target` is there, and is not to
        be replaced."""

    def remove(self, path: str) -> None:
        """Remove a file."""

    def remove_at_boot(self, path: str) -> None:
        """Have a file removed at the next boot."""

    def set_attributes(self, path: str, attributes: int) -> None:
        """Set those FILE_ATTRIBUTE_ flags that can be set so."""

    def flush(self, path: str) -> None:
        """Have a file, and what is known about it, on the disk."""


class Registry(Protocol):
    """The registry, for reading."""

    def value(self, key: str, name: str) -> Value | None:
        """A value, None when it is not there."""

    def has_key(self, key: str) -> bool:
        """Whether there is such a key."""


@dataclass(frozen=True)
class Adapter:
    """A network adapter that IP is bound to.

    name: the one that people see, such as `Ethernet 2`. mac: its bytes, empty where it has none. type: IANA's ifType.
    up: whether it works now. addresses: of both families, without prefix and scope.
    """

    name: str
    mac: bytes
    type: int
    up: bool
    addresses: tuple[str, ...]


class Machine(Protocol):
    """What is known about the machine as a whole."""

    def version(self) -> tuple[int, int, int]:
        """Major and minor version and build of Windows, whatever this program is declared to know."""

    def boot_time(self) -> int:
        """When it booted, in units of 100 ns. Setting the clock does not change it."""

    def hostname(self) -> str:
        """The DNS host name that is in use, without domain."""

    def set_hostname(self, name: str) -> None:
        """Have this DNS host name, and what fits of it as the NetBIOS name, from the next boot on."""

    def in_domain(self) -> bool:
        """Whether it is a member of a domain."""

    def adapters(self) -> Sequence[Adapter]:
        """Its network adapters."""

    def system_directory(self) -> str:
        """Such as `C:\\Windows\\System32`."""

    def licensed(self) -> bool:
        """Whether Windows is activated."""


@dataclass(frozen=True)
class Ended:
    """How a program ended: its exit code, and standard output and error together, trimmed and shortened."""

    exit_code: int
    output: str


Run = Callable[[Sequence[str], Mapping[str, str], float], Ended]
"""programs.run."""


@dataclass(frozen=True)
class Windows:
    """All of it together."""

    accounts: Accounts
    files: Files
    registry: Registry
    machine: Machine
    run: Run = field(repr=False)
