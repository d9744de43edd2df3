"""How a test looks into a guest of each environment, by ways in which neither the agent nor XenStore has a part."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import ctypes.util
import io
import os
import select
import shlex
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent_protocol.xenstore import connect
from tools.labs.xen.host import XenHost
from tools.simulator.guest import agent_environment
from tools.simulator.process import SimulatorProcess

CONSOLE_SECONDS = 120.0
"""For a command on a real guest's console."""

_END_SECONDS = 20.0


@dataclass(frozen=True)
class FileStatus:
    """Permission bits, and the names that the guest has for its owner and group."""

    mode: int
    owner: str
    group: str


class Inside(Protocol):
    """The inside of one guest, whatever domain it has at the moment."""

    def read(self, path: str) -> bytes:
        """A file's content. FileNotFoundError when there is none."""

    def status(self, path: str) -> FileStatus:
        """Of a file that is there."""

    def names(self, path: str) -> list[str]:
        """What a directory holds."""

    def write(self, path: str, content: str, mode: int) -> None:
        """Write a file that belongs to root, as an administrator of the guest would."""

    def refuse_passwords(self) -> contextlib.AbstractContextManager[str]:
        """Give the guest a rule that refuses the password `short`, while the block runs; the rule's own words."""

    def life(self) -> tuple[str, ...]:
        """What is another one after each boot of the guest, and after each start of its agent."""

    def run_client(self, script: str) -> str:
        """What a script in Python prints that has `store`, a client of the guest's own XenStore, and `StoreError`."""

    def halt_agent(self) -> None:
        """Let the agent stand still where it is."""

    def let_agent_go_on(self) -> None:
        """End that."""

    def replace_agent(self) -> None:
        """Kill the agent in the middle of what it does, and have another one started, as the guest's system does."""

    def close(self) -> bool:
        """End what was started in the guest for the test. Whether it has to boot now, since it is without its agent."""


def password_opens(inside: Inside, user: str, password: str) -> bool:
    """Whether the hash in the guest's own /etc/shadow is one of this password."""
    stored = stored_hash(inside, user)
    return stored[:1] == "$" and _crypt(password, stored) == stored


def stored_hash(inside: Inside, user: str) -> str:
    """What the guest's own /etc/shadow has for a user."""
    lines = inside.read("/etc/shadow").decode().splitlines()
    return next(line.split(":")[1] for line in lines if line.startswith(f"{user}:"))


def _crypt(password: str, stored: str) -> str:
    # The C library's crypt(3), which knows every kind of hash that Debian has.
    library = ctypes.CDLL(ctypes.util.find_library("crypt"))
    library.crypt.restype = ctypes.c_char_p
    hashed = library.crypt(password.encode(), stored.encode())
    return hashed.decode() if hashed else ""


class SimulatedInside:
    """A guest that is a directory and a process.

    domid: gives that of its present domain.
    """

    def __init__(self, simulator: SimulatorProcess, vm: str, domid: Callable[[], int]) -> None:
        self._simulator = simulator
        self._vm = vm
        self._domid = domid
        self._replacement: subprocess.Popen[bytes] | None = None

    def _path(self, path: str) -> Path:
        return self._simulator.guest_root(self._vm) / path.lstrip("/")

    def read(self, path: str) -> bytes:
        """As in Inside."""
        return self._path(path).read_bytes()

    def status(self, path: str) -> FileStatus:
        """As in Inside."""
        found = self._path(path).stat()
        return FileStatus(
            stat.S_IMODE(found.st_mode), self._name("passwd", found.st_uid), self._name("group", found.st_gid)
        )

    def _name(self, database: str, number: int) -> str:
        lines = self._path(f"etc/{database}").read_text().splitlines()
        return next(line.split(":")[0] for line in lines if line.split(":")[2] == str(number))

    def names(self, path: str) -> list[str]:
        """As in Inside."""
        return sorted(child.name for child in self._path(path).iterdir())

    def write(self, path: str, content: str, mode: int) -> None:
        """As in Inside."""
        self._path(path).parent.mkdir(parents=True, exist_ok=True)
        self._path(path).write_text(content)
        self._path(path).chmod(mode)

    @contextlib.contextmanager
    def refuse_passwords(self) -> Iterator[str]:
        """As in Inside: by PASS_MIN_LEN."""
        rules = self._path("etc/login.defs")
        before = rules.read_text()
        rules.write_text("PASS_MIN_LEN\t12\n")
        try:
            yield "PASS_MIN_LEN of /etc/login.defs wants 12 characters"
        finally:
            rules.write_text(before)

    def life(self) -> tuple[str, ...]:
        """As in Inside: the agent's process, and when it began."""
        pid = self._simulator.agent_pid(self._vm)
        return str(pid), Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]

    def run_client(self, script: str) -> str:
        """As in Inside, in this process."""
        said = io.StringIO()
        socket = self._simulator.xenstore_socket.with_name(f"domain-{self._domid()}")
        with connect(str(socket)) as store, contextlib.redirect_stdout(said):
            exec(_CLIENT + script, {"store": store})
        return said.getvalue()

    def halt_agent(self) -> None:
        """As in Inside."""
        os.kill(self._simulator.agent_pid(self._vm), signal.SIGSTOP)

    def let_agent_go_on(self) -> None:
        """As in Inside."""
        os.kill(self._simulator.agent_pid(self._vm), signal.SIGCONT)

    def replace_agent(self) -> None:
        """As in Inside. The simulator does not know the new one, and cannot suspend or reboot it."""
        pid = self._simulator.agent_pid(self._vm)
        descriptor = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGKILL)
            assert _ended(descriptor)
        finally:
            os.close(descriptor)
        root, socket = self._path(""), self._simulator.xenstore_socket.with_name(f"domain-{self._domid()}")
        self._replacement = subprocess.Popen(
            [sys.executable, "-m", "guest_agent", "--root", str(root), "--store", f"unix:{socket}"],
            env=agent_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def close(self) -> bool:
        """As in Inside."""
        replacement, self._replacement = self._replacement, None
        if replacement is None:
            return False
        replacement.kill()
        replacement.wait()
        return True


def _ended(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(_END_SECONDS * 1000))


_CLIENT = "from agent_protocol.xenstore import StoreError\n"


class RealInside:
    """A guest with a kernel of its own: a shell on its console.

    domid: gives that of its present domain.
    """

    def __init__(self, host: XenHost, domid: Callable[[], int]) -> None:
        self._host = host
        self._domid = domid

    def run(self, command: str) -> str:
        """What a shell command prints. LabError unless it ends with 0."""
        return self._host.guest_run(self._domid(), command, CONSOLE_SECONDS)

    def read(self, path: str) -> bytes:
        """As in Inside."""
        quoted = shlex.quote(path)
        told = self.run(f"test -e {quoted} || exit 0; echo there; base64 {quoted}")
        if not told.startswith("there"):
            raise FileNotFoundError(path)
        return base64.b64decode(told.partition("\n")[2])

    def status(self, path: str) -> FileStatus:
        """As in Inside."""
        mode, owner, group = self.run(f"stat -c '%a %U %G' {shlex.quote(path)}").split()
        return FileStatus(int(mode, 8), owner, group)

    def names(self, path: str) -> list[str]:
        """As in Inside."""
        return sorted(self.run(f"ls -A {shlex.quote(path)}").split())

    def write(self, path: str, content: str, mode: int) -> None:
        """As in Inside."""
        quoted = shlex.quote(path)
        self.run(f"mkdir -p $(dirname {quoted}); printf %s {shlex.quote(content)} >{quoted}; chmod {mode:o} {quoted}")

    @contextlib.contextmanager
    def refuse_passwords(self) -> Iterator[str]:
        """As in Inside: by a program that PAM asks, and whose words it repeats."""
        rules, program = "/etc/pam.d/common-password", "/opt/rule"
        before = self.read(rules).decode()
        words = "this house wants longer passwords"
        self.write(program, f"#!/bin/sh\necho {words}\nexit 1\n", 0o755)
        self.write(rules, f"password requisite pam_exec.so stdout {program}\n{before}", 0o644)
        try:
            yield words
        finally:
            self.write(rules, before, 0o644)

    def life(self) -> tuple[str, ...]:
        """As in Inside: the kernel's boot id, and the agent's process id."""
        return tuple(self.run("cat /proc/sys/kernel/random/boot_id /run/agent.pid").split())

    def run_client(self, script: str) -> str:
        """As in Inside."""
        opening = "from agent_protocol.xenstore import connect\nstore = connect('/dev/xen/xenbus')\n"
        return self.run(f"cd / && python3.11 -c {shlex.quote(opening + _CLIENT + textwrap.dedent(script))}")

    def halt_agent(self) -> None:
        """As in Inside."""
        self.run("kill -STOP $(cat /run/agent.pid)")

    def let_agent_go_on(self) -> None:
        """As in Inside."""
        self.run("kill -CONT $(cat /run/agent.pid)")

    def replace_agent(self) -> None:
        """As in Inside: the guest's first process starts another."""
        self.run("kill -KILL $(cat /run/agent.pid)")

    def close(self) -> bool:
        """As in Inside. The guest is as it was."""
        return False
