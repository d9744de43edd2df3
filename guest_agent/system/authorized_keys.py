"""An account's authorized_keys file, changed as the superuser in a directory that its user controls.

The user may swap anything below the home directory at any time. So nothing below it is reached through a symbolic
link, and what is entered, read or given away must be the user's already, or freshly made by the agent.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from agent_protocol.messages import has_control_characters
from agent_protocol.outcomes import Refused

from .accounts import Owner, User
from .files import read, replace
from .paths import GuestPath, enter, failures, open_directory

MAX_KEY_LINE = 16384
"""Characters in a key's line: OpenSSH's own limit, SSH_MAX_PUBKEY_BYTES."""

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600

_TYPE = re.compile(r"[a-z0-9@.\-]{1,64}\Z", re.ASCII)

Identity = tuple[str, bytes]
"""What makes two keys the same key: type and blob, whatever comment or options stand with them."""


@dataclass(frozen=True)
class AuthorizedKey:
    """One public key: `type base64 [comment]`, on one line, without options. Refused (`bad_key`) otherwise."""

    line: str
    identity: Identity = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.line) > MAX_KEY_LINE:
            raise Refused("bad_key", f"a key has at most {MAX_KEY_LINE} characters, this one {len(self.line)}")
        try:
            self.line.encode("utf-8")
        except UnicodeEncodeError:
            raise Refused("bad_key", "the key is not text that UTF-8 can hold") from None
        if has_control_characters(self.line):
            raise Refused("bad_key", "a key is one line without control characters")
        identity = _identity(self.line)
        if identity is None:
            raise Refused("bad_key", "a key is its type and base64 that begins with that type, maybe a comment")
        object.__setattr__(self, "identity", identity)


def change_keys(
    root: str, user: User, add: Sequence[AuthorizedKey], remove: Collection[AuthorizedKey]
) -> tuple[int, int]:
    """Add keys to the user's authorized_keys and remove others; returns how many were added and removed.

    A key that is there already is not added again, whatever its comment and options. Refused with `not_owner`
    when the home directory, .ssh or the file belongs to somebody else, `no_home` when there is no home directory,
    `not_a_directory` and `not_a_file` for anything unexpected; Failed with the system's errno name.
    """
    with failures(user.home), _ssh_directory(root, user, make=bool(add)) as directory:
        if directory is None:
            return 0, 0
        present = read(directory, "authorized_keys", owner=user.owner)
        content, added, removed = changed_lines(present or b"", add, remove)
        if added or removed:
            mode, owner = (FILE_MODE, user.owner) if present is None else (None, None)
            replace(directory, "authorized_keys", content, mode=mode, owner=owner)
        return added, removed


def changed_lines(
    present: bytes, add: Sequence[AuthorizedKey], remove: Collection[AuthorizedKey]
) -> tuple[bytes, int, int]:
    """The content of an authorized_keys file after the change, and how many keys were added and removed by it."""
    unwanted = {key.identity for key in remove}
    lines = present.splitlines(keepends=True)
    kept = [line for line in lines if identity_of_line(line) not in unwanted]
    known = {identity_of_line(line) for line in kept}
    added = []
    for key in add:
        if key.identity not in known:
            known.add(key.identity)
            added.append(key.line.strip().encode("utf-8") + b"\n")
    if added and kept and not kept[-1].endswith((b"\n", b"\r")):
        kept[-1] += b"\n"
    return b"".join([*kept, *added]), len(added), len(lines) - len(kept)


def identity_of_line(line: bytes) -> Identity | None:
    """The key in a line of an authorized_keys file, which may have options before it; None without a key."""
    text = line.decode("utf-8", "replace").strip()
    if text.startswith("#"):
        return None
    return _identity(text) or _identity(_without_options(text))


def _without_options(text: str) -> str:
    # As sshd(8) reads them: up to the first blank outside of double quotes, in which \" is a quote.
    quoted = False
    position = 0
    while position < len(text):
        character = text[position]
        if character == "\\" and text[position + 1 : position + 2] == '"':
            position += 1
        elif character == '"':
            quoted = not quoted
        elif character in " \t" and not quoted:
            return text[position:]
        position += 1
    return ""


def _identity(text: str) -> Identity | None:
    fields = text.split(None, 2)
    if len(fields) < 2 or not _TYPE.match(fields[0]):
        return None
    try:
        blob = base64.b64decode(fields[1], validate=True)
    except (binascii.Error, ValueError):
        return None
    # RFC 4253, section 6.6: the blob begins with the type, as a string with its length in four bytes before it.
    name = fields[0].encode("ascii")
    start = len(name).to_bytes(4, "big") + name
    return (fields[0], blob) if blob.startswith(start) and len(blob) > len(start) else None


@contextlib.contextmanager
def _ssh_directory(root: str, user: User, *, make: bool) -> Iterator[int | None]:
    try:
        with open_directory(root, GuestPath(user.home.rstrip("/"))) as home:
            _must_belong(home, user, "the home directory")
            directory = _enter_ssh(home, user, make)
    except FileNotFoundError:
        raise Refused("no_home", f"{user.name!r} has no home directory") from None
    try:
        yield directory
    finally:
        if directory is not None:
            os.close(directory)


def _enter_ssh(home: int, user: User, make: bool) -> int | None:
    made = False
    if make:
        with contextlib.suppress(FileExistsError):
            os.mkdir(".ssh", DIRECTORY_MODE, dir_fd=home)
            made = True
    try:
        directory = enter(home, ".ssh")
    except FileNotFoundError:
        if not make:
            return None
        raise
    try:
        if made:
            _hand_over(directory, user.owner)
            os.fsync(home)
        _must_belong(directory, user, ".ssh")
    except BaseException:
        os.close(directory)
        raise
    return directory


def _hand_over(directory: int, owner: Owner) -> None:
    # The user could have moved another directory here since it was made: only an empty one is given away.
    found = os.fstat(directory)
    if found.st_uid == os.geteuid() and not os.listdir(directory):
        os.fchmod(directory, DIRECTORY_MODE)
        if (found.st_uid, found.st_gid) != (owner.uid, owner.gid):
            os.fchown(directory, owner.uid, owner.gid)


def _must_belong(descriptor: int, user: User, what: str) -> None:
    if os.fstat(descriptor).st_uid != user.owner.uid:
        raise Refused("not_owner", f"{what} of {user.name!r} belongs to another user")
