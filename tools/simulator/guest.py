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

    agent_command: as in Settings. xenbus: where the guest finds its XenStore, whatever domain it is in: a link to that
    domain's socket. A guest that is moved to another domain finds its connection broken, and another store there, as
    the kernel of a real one does after a migration.
    """

    def __init__(self, directory: Path, xenbus: Path, agent_command: tuple[str, ...], watchdog: Watchdog) -> None:
        self.root = directory / "root"
        self._directory = directory
        self._xenbus = xenbus
        self.agent_command = agent_command
        self._watchdog = watchdog
        self._guard = threading.Lock()
        self._agent: Program | None = None
        self._life: object | None = None  # another one after each boot, none while the guest is off
        self._is_kept = False
        self._is_begun = False

    def start(self, socket: Path, paused: bool) -> None:
        """Boot: start the agent, for which `socket` is the guest's XenStore, now or at unpause().

        OSError when it cannot be executed.
        """
        make_root(self.root)
        # What a host that lost its power may have left, when it was building this guest's domain.
        self.cut_power()
        self._connect(socket)
        self._is_begun = not paused
        self._life = object()
        if not paused:
            self._run_agent(self._life, None)

    def _connect(self, socket: Path) -> None:
        unfinished = self._xenbus.with_name(self._xenbus.name + "~")
        unfinished.unlink(missing_ok=True)
        unfinished.symlink_to(socket)
        unfinished.replace(self._xenbus)

    def kill_agent(self, restart: bool) -> None:
        """Let the agent, if there is one, be gone at once, as from a fault of its own; the guest runs on.

        restart: whether to run it again, or one that was killed before; not in a guest that went down meanwhile, nor
        beside the agent of its next boot. OSError when it cannot be executed.
        """
        with self._guard:
            life, agent = self._life, self._agent
        if agent is not None:
            agent.signal(signal.SIGKILL)
            agent.wait()
        if restart:
            self._run_agent(life, agent)

    def _run_agent(self, life: object | None, before: Program | None) -> None:
        """Run agent_command, if the guest still lives that life, and no other agent came after the one before."""
        with self._guard:
            if self.agent_command and life is not None and (self._life, self._agent) == (life, before):
                self._agent = self._execute()

    def _execute(self) -> Program:
        socket = str(self._xenbus)
        meanings = {"{root}": str(self.root), "{socket}": socket, "{store}": f"unix:{socket}"}
        arguments = [_replace(argument, meanings) for argument in self.agent_command]
        pid_file = self._directory / "agent.pid"
        pid_written = threading.Event()

        def ended() -> None:
            pid_written.wait()
            pid_file.unlink(missing_ok=True)

        with (self._directory / "agent.log").open("ab") as log:
            agent = Program(self._watchdog, arguments, agent_environment(), log, log, on_exit=ended)
        try:
            pid_file.write_text(f"{agent.pid}\n", "ascii")
        finally:
            pid_written.set()
        return agent

    def pause(self) -> None:
        """Freeze the guest's processes where they are."""
        self._signal(signal.SIGSTOP)

    def unpause(self) -> None:
        """Let them go on, or begin when the guest was started paused. OSError as of start()."""
        self._is_kept = False
        if self._is_begun:
            self._signal(signal.SIGCONT)
        else:
            self._run_agent(self._life, None)
            self._is_begun = True

    def keep(self) -> Path:
        """Freeze the guest's processes for longer than their domain lives; gives the socket of its XenStore."""
        self.pause()
        self._is_kept = True
        return self._xenbus.readlink()

    def go_on(self, socket: Path, paused: bool) -> None:
        """Let them go on in another domain, for which `socket` is the guest's XenStore, now or at unpause().

        Without anything that was kept it is start().
        """
        if not self._is_kept:
            self.start(socket, paused)
            return
        self._connect(socket)
        if not paused:
            self.unpause()

    def shut_down(self) -> None:
        """The guest's own way: its processes are asked to end, and killed when they do not."""
        self._stop(GUEST_STOP_TIMEOUT)

    def cut_power(self) -> None:
        """The host's way: its processes are gone in the middle of whatever they do."""
        self._stop(0)

    def delete(self) -> None:
        """Drop what the guest has in memory, and remove all that it has on disk."""
        self.cut_power()
        self._xenbus.unlink(missing_ok=True)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        with self._guard:
            agent = self._agent
        if agent is not None:
            agent.signal(number)

    def _stop(self, grace: float) -> None:
        self._is_kept = False
        with self._guard:
            self._life = None
            agent, self._agent = self._agent, None
        if agent is not None:
            agent.stop(grace)


class Guests:
    """The guests of a pool, by the uuid of their VMs. On which host one runs, if it does, makes no difference to it.

    state: the pool's directory, which exists. agent_command: as in Settings.
    """

    def __init__(self, state: Path, agent_command: tuple[str, ...], watchdog: Watchdog) -> None:
        self._directory = state / "guests"
        # Short names: a socket's path must not be long.
        self._xenbus = state / "xenbus"
        for directory in (self._directory, self._xenbus):
            directory.mkdir(exist_ok=True)
        self._agent_command = agent_command
        self._watchdog = watchdog
        self._guard = threading.Lock()
        self._guests: dict[str, Guest] = {}
        self._number = 0

    def of(self, vm_uuid: str) -> Guest:
        """The guest of a VM; one that was never asked for has not booted yet."""
        with self._guard:
            if vm_uuid not in self._guests:
                self._number += 1
                xenbus = self._xenbus / str(self._number)
                directory = self._directory / vm_uuid
                self._guests[vm_uuid] = Guest(directory, xenbus, self._agent_command, self._watchdog)
            return self._guests[vm_uuid]

    def forget(self, vm_uuid: str) -> None:
        """A VM is gone for good: delete what its guest has on disk."""
        self.of(vm_uuid).delete()
        with self._guard:
            del self._guests[vm_uuid]

    def stop(self) -> None:
        """Kill what is left: the processes of guests whose VMs are suspended."""
        with self._guard:
            guests = list(self._guests.values())
        for guest in guests:
            guest.cut_power()


def _replace(argument: str, meanings: dict[str, str]) -> str:
    for placeholder, meaning in meanings.items():
        argument = argument.replace(placeholder, meaning)
    return argument
