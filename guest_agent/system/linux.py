"""The running Linux: its accounts through the name service, its passwords through chpasswd."""

from __future__ import annotations

import grp
import pwd
from pathlib import Path

from agent_protocol.messages import Password
from agent_protocol.outcomes import Failed, Refused

from .. import process
from .base import Owner, System, User, no_such_group, no_such_user

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

    def set_password(self, user: str, password: Password) -> None:
        """Through chpasswd, which goes through PAM where the distribution has it do so.

        PAM's modules state a broken rule in a line of their own; chpasswd then adds lines that start with its
        name, and the general text of PAM's error behind one that ends in `error:`. A modules' line makes it a
        refusal, anything else (a locked or read-only /etc) a failure.
        """
        self.find_user(user)
        ended = process.run(
            ["chpasswd"],
            stdin=f"{user}:{password.value}\n".encode(),
            timeout=CHPASSWD_SECONDS,
            secrets=[password.value],
            allowed_exit_codes=range(256),
        )
        if ended.exit_code == 0:
            return
        lines = [line.strip() for line in ended.output.splitlines() if line.strip()]
        rules = [
            line
            for before, line in zip(["", *lines], lines)
            if not line.startswith("chpasswd:") and not before.endswith("error:")
        ]
        if rules:
            raise Refused("password_policy", " ".join(rules))
        raise Failed("chpasswd_failed", f"chpasswd ended with {ended.exit_code}: " + " ".join(lines))
