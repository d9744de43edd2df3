"""Starts agents that die at a chosen step: a process that has everything imported, and forks one agent for each line.

    python -m tests.guest_agent.fault_child

Reads JSON lines {"root", "socket", "log", "counters", "request", "at"}; answers {"pid"}, and {"status"} when the agent
has ended. `counters` is a file of two numbers that outlive the agent: steps that it took since it claimed the request
named `request`, and commands that it carried out. Right before step number `at` it is killed; never for 0.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
from typing import Any, Callable

from agent_protocol.xenstore import Client
from guest_agent import __main__ as agent
from guest_agent.commands import Command

STEPS = (
    (os, "fsync fdatasync rename replace unlink remove rmdir mkdir link symlink fchmod chmod fchown chown setxattr"),
    (os, "write ftruncate"),
    (socket, "sethostname"),
    (subprocess, "Popen"),
    (Client, "write remove mkdir watch unwatch"),
)
"""What changes anything outside of the agent. Opening a file is a step as well when that makes one."""

COUNTERS = struct.Struct("<QQ")


class Counted:
    """The steps of one agent, counted in shared memory."""

    def __init__(self, counters: str, request: str, at: int) -> None:
        with open(counters, "r+b") as file:  # noqa: PTH123
            self._memory = mmap.mmap(file.fileno(), COUNTERS.size)
        self._request = request
        self._at = at
        self._counting = False

    def step(self, arguments: tuple[Any, ...]) -> None:
        """One step is about to be taken."""
        if not self._counting:
            # The claim's own write is the first step.
            self._counting = any(isinstance(it, str) and it.endswith(f"claims/{self._request}") for it in arguments)
        if self._counting:
            self._add(0)
            if COUNTERS.unpack_from(self._memory)[0] == self._at:
                os.kill(os.getpid(), signal.SIGKILL)

    def carried_out(self) -> None:
        """A command begins."""
        self._add(1)

    def _add(self, index: int) -> None:
        numbers = list(COUNTERS.unpack_from(self._memory))
        numbers[index] += 1
        COUNTERS.pack_into(self._memory, 0, *numbers)


def wrap(counted: Counted) -> None:
    """Count every step of this process from now on."""

    def before(function: Callable[..., Any], counts: Callable[..., bool]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            if counts(*arguments):
                counted.step(arguments)
            return function(*arguments, **options)

        return wrapped

    for owner, names in STEPS:
        for name in names.split():
            setattr(owner, name, before(getattr(owner, name), lambda *arguments: True))
    makes = os.O_CREAT | os.O_TRUNC
    os.open = before(os.open, lambda path, flags, *rest: bool(flags & makes))
    call = Command.__call__

    def carry_out(self: Command, context: Any, value: str) -> Any:
        counted.carried_out()
        return call(self, context, value)

    Command.__call__ = carry_out  # type: ignore[method-assign]


def serve(said: dict[str, Any]) -> int:
    """Be the agent."""
    log = os.open(said["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 2)
    wrap(Counted(said["counters"], said["request"], said["at"]))
    return agent.main(["--root", said["root"], "--store", f"unix:{said['socket']}"])


def main() -> None:
    """One agent after the other."""
    for line in sys.stdin:
        said = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(serve(said))
        print(json.dumps({"pid": child}), flush=True)
        _, status = os.waitpid(child, 0)
        print(json.dumps({"status": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    main()
