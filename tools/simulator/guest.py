"""A simulated guest: a root directory that outlives reboots, and one process in it, the agent.

The guest's kernel is the simulator's own business (lifecycle.py). What the agent changes, it changes in files below
the root directory, where tests can look at them.
"""

from __future__ import annotations

import os
import shutil
import signal
import site
import threading
from pathlib import Path

from .processes import Program
from .settings import GUEST_STOP_TIMEOUT
from .watchdog import Watchdog

_CHECKOUT = Path(__file__).resolve().parents[2]


def _skeleton() -> list[tuple[str, int, str]]:
    # The superuser of this guest is whoever runs the simulator: an ordinary user cannot give files to uid 0, so root's
    # line names the real user. Then "belongs to root" can be proven in a guest without being the superuser.
    owner = f"{os.getuid()}:{os.getgid()}"
    return [
        ("etc/passwd", 0o644, f"root:x:{owner}:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n"),
        ("etc/shadow", 0o600, "root:*:19700:0:99999:7:::\nuser:!:19700:0:99999:7:::\n"),
        ("etc/group", 0o644, f"root:x:{os.getgid()}:\nuser:x:1000:\n"),
        ("etc/os-release", 0o644, 'ID=xenward-simulated\nNAME="xenward simulated guest"\nVERSION_ID="1"\n'),
        ("etc/hostname", 0o644, "simulated-guest\n"),
        ("etc/login.defs", 0o644, "PASS_MIN_LEN\t5\n"),
    ]


_DIRECTORIES = (
    ("etc", 0o755),
    ("root", 0o700),
    ("home", 0o755),
    ("home/user", 0o755),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("var/log", 0o755),
    ("var/lib", 0o755),
    ("run", 0o755),
)


def make_root(root: Path) -> None:
    """Lay out a new guest's root directory, unless it is there already."""
    if root.exists():
        return
    # Made aside and renamed: a root directory that exists is complete.
    unfinished = root.with_name("root.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for name, mode in _DIRECTORIES:
        (unfinished / name).mkdir()
        (unfinished / name).chmod(mode)
    for name, mode, content in _skeleton():
        descriptor = os.open(unfinished / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
    unfinished.rename(root)


def agent_environment() -> dict[str, str]:
    """What an agent's process knows: PATH, and where this checkout is if nothing is installed."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONDONTWRITEBYTECODE": "1"}
    installed = [Path(directory).resolve() for directory in site.getsitepackages()]
    if _CHECKOUT not in installed:
        environment["PYTHONPATH"] = str(_CHECKOUT)
    return environment


class Guest:
    """The guest of one VM: `directory`/root, and `directory`/agent.pid and agent.log while and since an agent runs.

    agent_command: as in Settings.
    """

    def __init__(self, directory: Path, agent_command: tuple[str, ...], watchdog: Watchdog) -> None:
        self.root = directory / "root"
        self._directory = directory
        self._agent_command = agent_command
        self._watchdog = watchdog
        self._guard = threading.Lock()
        self._agent: Program | None = None
        self._not_begun: Path | None = None

    def start(self, socket: Path, paused: bool) -> None:
        """Boot: start the agent, for which `socket` is the guest's XenStore, now or at unpause().

        OSError when it cannot be executed.
        """
        make_root(self.root)
        self._not_begun = socket if paused else None
        if self._agent_command and not paused:
            self._start_agent(socket)

    def _start_agent(self, socket: Path) -> None:
        meanings = {"{root}": str(self.root), "{socket}": str(socket), "{store}": f"unix:{socket}"}
        arguments = [_replace(argument, meanings) for argument in self._agent_command]
        pid_file = self._directory / "agent.pid"
        pid_written = threading.Event()

        def ended() -> None:
            pid_written.wait()
            pid_file.unlink(missing_ok=True)

        with (self._directory / "agent.log").open("ab") as log:
            agent = Program(self._watchdog, arguments, agent_environment(), log, log, on_exit=ended)
        with self._guard:
            self._agent = agent
        try:
            pid_file.write_text(f"{agent.pid}\n", "ascii")
        finally:
            pid_written.set()

    def pause(self) -> None:
        """Freeze the guest's processes where they are."""
        self._signal(signal.SIGSTOP)

    def unpause(self) -> None:
        """Let them go on, or begin when the guest was started paused. OSError as of start()."""
        if self._not_begun is not None:
            self.start(self._not_begun, paused=False)
        else:
            self._signal(signal.SIGCONT)

    def shut_down(self) -> None:
        """The guest's own way: its processes are asked to end, and killed when they do not."""
        self._stop(GUEST_STOP_TIMEOUT)

    def cut_power(self) -> None:
        """The host's way: its processes are gone in the middle of whatever they do."""
        self._stop(0)

    def delete(self) -> None:
        """Remove all that the guest has on disk."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        with self._guard:
            agent = self._agent
        if agent is not None:
            agent.signal(number)

    def _stop(self, grace: float) -> None:
        with self._guard:
            agent, self._agent = self._agent, None
        if agent is not None:
            agent.stop(grace)


def _replace(argument: str, meanings: dict[str, str]) -> str:
    for placeholder, meaning in meanings.items():
        argument = argument.replace(placeholder, meaning)
    return argument
