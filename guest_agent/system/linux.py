"""The running Linux: its accounts through the name service, its passwords through chpasswd."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent_protocol.messages import Password
from agent_protocol.outcomes import Failed, Refused, Unsupported

from .. import process
from ..network.live import RunningNetwork
from .accounts import Owner, PasswordHash, User, no_such_group, no_such_user
from .addresses import interface_addresses
from .cloud_init import CloudInit, find_cloud_init
from .hostname import HostName
from .posix import PosixSystem

CHPASSWD_SECONDS = 30.0
"""How long chpasswd may take. Hashing takes 25 ms; what can take longer is a module of PAM that asks a network."""

_COMMAND_LINE = Path("/proc/cmdline")


class LinuxSystem(PosixSystem):
    """The system that the agent itself runs on."""

    root = "/"
    administrator = "root"

    def __init__(self) -> None:
        self._network = RunningNetwork()
        self.live = self._network

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

    def interface_names(self) -> Mapping[str, Sequence[str]]:
        """As the kernel tells."""
        return self._network.names()

    def cloud_init(self) -> CloudInit:
        """Of this boot."""
        return find_cloud_init(
            self.root,
            command_line=_COMMAND_LINE.read_text("utf-8", "replace"),
            seconds_since_boot=time.clock_gettime(time.CLOCK_BOOTTIME),
        )

    def _activate_hostname(self, name: HostName) -> None:
        """By sethostname(2). systemd-hostnamed, where it runs, reads /etc/hostname again when it is asked."""
        try:
            socket.sethostname(name.value)
        except OSError as error:
            raise Failed("hostname_failed", f"the kernel does not take the name: {error.strerror}") from None
        if self.hostname() != name.value:
            raise Failed("hostname_failed", "the kernel took the name and has another one nevertheless")

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
