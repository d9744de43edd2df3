"""The running Linux: its accounts through the name service, its passwords through chpasswd."""

from __future__ import annotations

import grp
import os
import pwd
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent_protocol.messages import Password
from agent_protocol.outcomes import Failed, Refused, Unsupported

from .. import process
from .accounts import Owner, PasswordHash, User, no_such_group, no_such_user
from .addresses import interface_addresses
from .base import System

CHPASSWD_SECONDS = 30.0
"""How long chpasswd may take. Hashing takes 25 ms; what can take longer is a module of PAM that asks a network."""


class LinuxSystem(System):
    """The system that the agent itself runs on."""

    root = "/"
    administrator = "root"

    def boot_id(self) -> str:
        """The kernel's own."""
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()

    def find_user(self, name: str) -> User:
        """From whatever the name service knows, so that accounts of a directory service are found too."""
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            raise no_such_user(name) from None
        return User(name, Owner(entry.pw_uid, entry.pw_gid), entry.pw_dir)

    def find_group(self, name: str) -> int:
        """As find_user."""
        try:
            return grp.getgrnam(name).gr_gid
        except KeyError:
            raise no_such_group(name) from None

    def hostname(self) -> str:
        """The kernel's own."""
        return socket.gethostname()

    def kernel(self) -> str:
        """As uname -r."""
        return os.uname().release

    def addresses(self) -> Sequence[Mapping[str, str]]:
        """Of all interfaces of the agent's network namespace."""
        return interface_addresses()

    def set_password(self, user: str, password: Password | PasswordHash, *, expire: bool = False) -> None:
        """Through chpasswd, which goes through PAM where the distribution has it do so, but not for a hash.

        PAM's modules state a broken rule in a line of their own; chpasswd then adds lines that start with its
        name, and the general text of PAM's error behind one that ends in `error:`. A modules' line makes it a
        refusal, anything else (a locked or read-only /etc) a failure. Failed (`expire_failed`) when the password was
        set and could not be made to expire.
        """
        self.find_user(user)
        ended = process.run(
            ["chpasswd", *(["-e"] if isinstance(password, PasswordHash) else [])],
            stdin=f"{user}:{password.value}\n".encode(),
            timeout=CHPASSWD_SECONDS,
            secrets=[password.value],
            allowed_exit_codes=range(256),
        )
        if ended.exit_code != 0:
            raise _chpasswd_error(ended)
        if expire:
            _expire(user)


def _chpasswd_error(ended: process.Completed) -> Refused | Failed:
    lines = [line.strip() for line in ended.output.splitlines() if line.strip()]
    rules = [
        line
        for before, line in zip(["", *lines], lines)
        if not line.startswith("chpasswd:") and not before.endswith("error:")
    ]
    if rules:
        return Refused("password_policy", " ".join(rules))
    return Failed("chpasswd_failed", f"chpasswd ended with {ended.exit_code}: " + " ".join(lines))


def _expire(user: str) -> None:
    # After chpasswd, which sets the date of the last change to today.
    try:
        try:
            process.run(["chage", "-d", "0", "--", user], timeout=CHPASSWD_SECONDS)
        except Unsupported:
            # Systems without shadow's chage may still have a passwd that can do it.
            process.run(["passwd", "-e", "--", user], timeout=CHPASSWD_SECONDS)
    except (Unsupported, Failed) as error:
        raise Failed("expire_failed", f"the password is set, but does not expire: {error.message}") from None
