"""A guest that is only a directory: an image that is mounted, or a simulated guest. Nothing runs from it.

Its files are read and written directly; its policy is PASS_MIN_LEN of its etc/login.defs. When the agent is not
the superuser it cannot give files away: then everything in the directory is taken to belong to the agent's user.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Mapping, Sequence

from agent_protocol.messages import Password
from agent_protocol.outcomes import Failed, Refused, Unsupported

from .accounts import Owner, PasswordHash, User, no_such_group, no_such_user
from .files import read_file, write_file
from .hostname import HostName, read_hostname
from .lookup import names_in
from .paths import GuestPath
from .posix import PosixSystem

_PASSWD = GuestPath("/etc/passwd")
_GROUP = GuestPath("/etc/group")
_SHADOW = GuestPath("/etc/shadow")
_INTERFACES = GuestPath("/sys/class/net")

_HASH_ROUNDS = 5000
"""What sha512-crypt uses when nothing is said, so every libc's crypt() reads the result."""

_SECONDS_PER_DAY = 86400
"""shadow(5) counts the date of the last change in days since 1970."""


class DirectorySystem(PosixSystem):
    """The system below `root`, an absolute path."""

    administrator = "root"

    def __init__(self, root: str) -> None:
        self.root = root
        self._boot_id = str(uuid.uuid4())

    def boot_id(self) -> str:
        """What does not run boots whenever its agent is started."""
        return self._boot_id

    def find_user(self, name: str) -> User:
        """From etc/passwd."""
        fields = self._entry(_PASSWD, name, 7)
        if fields is None:
            raise no_such_user(name)
        return User(name, _owner(_number(fields[2]), _number(fields[3])), os.fsdecode(fields[5]))

    def find_group(self, name: str) -> int:
        """From etc/group."""
        fields = self._entry(_GROUP, name, 4)
        if fields is None:
            raise no_such_group(name)
        return _owner(0, _number(fields[2])).gid

    def hostname(self) -> str:
        """From etc/hostname."""
        return read_hostname(self.root)

    def _activate_hostname(self, name: HostName) -> None:
        """Nothing runs."""

    def interface_names(self) -> Mapping[str, Sequence[str]]:
        """From sys/class/net, where the directory has one: such as one that a system was unpacked into to run later."""
        found: dict[str, list[str]] = {}
        for name in names_in(self.root, _INTERFACES):
            try:
                content = read_file(self.root, GuestPath(f"{_INTERFACES.text}/{name}/address"))
            except Refused:
                continue
            if content is not None:
                found.setdefault(content.decode("ascii", "replace").strip().lower(), []).append(name)
        return found

    def kernel(self) -> str:
        """None runs."""
        return ""

    def addresses(self) -> Sequence[Mapping[str, str]]:
        """It has none."""
        return []

    def set_password(self, user: str, password: Password | PasswordHash, *, expire: bool = False) -> None:
        """Replace hash and date of last change in etc/shadow; every other byte stays, and so do mode and owner.

        The date 0 is how shadow(5) says that the password must be changed. Unsupported (`no_hash_library`) without
        libpass; Refused (`no_shadow_file`) when the directory has no etc/shadow.
        """
        self.find_user(user)
        if isinstance(password, PasswordHash):
            hashed = password.value.encode("ascii")
        else:
            self._check_policy(password)
            hashed = _hash(password)
        shadow = read_file(self.root, _SHADOW)
        if shadow is None:
            raise Refused("no_shadow_file", "this guest has no /etc/shadow")
        lines = shadow.split(b"\n")
        for number, line in enumerate(lines):
            fields = line.split(b":")
            if fields[0] != user.encode() or len(fields) < 3:
                continue
            fields[1] = hashed
            fields[2] = b"%d" % (0 if expire else time.time() // _SECONDS_PER_DAY)
            lines[number] = b":".join(fields)
            write_file(self.root, _SHADOW, b"\n".join(lines))
            return
        raise no_such_user(user)

    def _check_policy(self, password: Password) -> None:
        minimum = self.minimum_password_length()
        if len(password.value) < minimum:
            raise Refused("password_policy", f"PASS_MIN_LEN of /etc/login.defs wants {minimum} characters")

    def _entry(self, path: GuestPath, name: str, size: int) -> list[bytes] | None:
        for line in (read_file(self.root, path) or b"").split(b"\n"):
            fields = line.split(b":")
            if fields[0] == name.encode() and len(fields) == size:
                return fields
        return None


def _owner(uid: int, gid: int) -> Owner:
    return Owner(uid, gid) if os.geteuid() == 0 else Owner(os.geteuid(), os.getegid())


def _number(field: bytes) -> int:
    if not re.fullmatch(rb"[0-9]{1,10}", field):
        raise Failed("bad_account_file", "an account of this guest has no number")
    return int(field)


def _hash(password: Password) -> bytes:
    try:
        from passlib.hash import sha512_crypt
    except ImportError:
        raise Unsupported("no_hash_library", "libpass is not installed (the package's `simulator` extra)") from None
    return str(sha512_crypt.using(rounds=_HASH_ROUNDS).hash(password.value)).encode("ascii")
