from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_protocol.outcomes import Busy, Failed, Refused, Unknown, Unsupported
from guest_agent.system import freeze_guard, freezing
from guest_agent.system.freeze_guard import Kernel
from guest_agent.system.freezing import Freezer
from guest_agent.system.mounts import Mount

from .test_mounts import line, mount

REPOSITORY = Path(__file__).parents[3]
DEADLINE = 60.0
"""Seconds that anything may take before a test gives up on it."""


class FakeKernel(Kernel):
    """A kernel in a directory, because guards are processes of their own.

    errors, thaw_errors: of a device's calls. hanging: devices whose freezing waits until let_go(). lies_on: a device
    whose thawing waits for another one's. What is done is told line by line in a FIFO.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.errors: dict[str, int] = {}
        self.thaw_errors: dict[str, int] = {}
        self.hanging: set[str] = set()
        self.lies_on: dict[str, str] = {}
        self._devices: dict[int, str] = {}
        directory.mkdir(exist_ok=True)
        for name in ("told", "gate"):
            with contextlib.suppress(FileExistsError):
                os.mkfifo(directory / name)
        if not (directory / "clock").exists():
            self.set_clock(1000.0)

    def set_clock(self, now: float) -> None:
        (self.directory / "clock.new").write_text(str(now))
        (self.directory / "clock.new").replace(self.directory / "clock")

    def now(self) -> float:
        return float((self.directory / "clock").read_text())

    def open(self, mount: Mount) -> int:
        if mount.mount_id == 0:
            raise OSError(errno.ESTALE, "hidden")
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_CLOEXEC)
        self._devices[descriptor] = mount.device
        return descriptor

    def freeze(self, descriptor: int) -> None:
        device = self._devices[descriptor]
        self._tell(f"freeze {device}")
        self._raise(self.errors.get(device))
        try:
            self._state(device).touch(exist_ok=False)
        except FileExistsError:
            self._raise(errno.EBUSY)
        if device in self.hanging:
            os.close(os.open(self.directory / "gate", os.O_RDONLY))

    def thaw(self, descriptor: int) -> None:
        device = self._devices[descriptor]
        self._tell(f"thaw {device}")
        self._raise(self.thaw_errors.get(device))
        while self.lies_on.get(device) in self.frozen:
            time.sleep(0.001)
        try:
            self._state(device).unlink()
        except FileNotFoundError:
            self._raise(errno.EINVAL)

    @property
    def frozen(self) -> set[str]:
        return {path.name.partition("-")[2] for path in self.directory.glob("frozen-*")}

    def set_frozen(self, device: str, frozen: bool) -> None:
        if frozen:
            self._state(device).touch()
        else:
            self._state(device).unlink()

    def _state(self, device: str) -> Path:
        return self.directory / f"frozen-{device}"

    def _tell(self, what: str) -> None:
        with (self.directory / "told").open("w") as told:
            told.write(what + "\n")

    @staticmethod
    def _raise(number: int | None) -> None:
        if number is not None:
            raise OSError(number, os.strerror(number))


class Guest:
    """A guest with such a kernel: / is 8:1, /var 8:2 and /data 8:3."""

    MOUNTS = (mount("8:1", "/"), mount("0:9", "/run", "tmpfs", "tmpfs"), mount("8:2", "/var"), mount("8:3", "/data"))

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kernel = FakeKernel(directory / "kernel")
        self.root = directory / "root"
        self.root.mkdir(exist_ok=True)
        self.mark = self.root / "run/xenward/frozen.json"
        self.mountinfo = directory / "mountinfo"
        self.set_mounts(*self.MOUNTS)
        self.freezer = Freezer(str(self.root), self.mountinfo, directory, self.kernel)
        self._told = os.open(self.kernel.directory / "told", os.O_RDWR)
        self._pending = b""

    def set_mounts(self, *mounts: Mount) -> None:
        self.mountinfo.write_bytes(b"".join(line(entry) + b"\n" for entry in mounts))

    def told(self) -> list[str]:
        """What the kernel was asked to do since the last time."""
        while select.select([self._told], [], [], 0)[0]:
            self._pending += os.read(self._told, 65536)
        lines, self._pending = self._pending.decode().splitlines(), b""
        return lines

    def wait_until_told(self, what: str) -> None:
        while what not in self._pending.decode().splitlines():
            assert select.select([self._told], [], [], DEADLINE)[0], f"waited in vain for {what}"
            self._pending += os.read(self._told, 65536)

    def let_go(self) -> None:
        """End the wait of a kernel that hangs."""
        os.close(os.open(self.kernel.directory / "gate", os.O_WRONLY))

    def wait_for_guards(self) -> None:
        wait_for_guards(self.root)

    def end(self) -> None:
        for pid in guards(self.root):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.close(self._told)


def guards(root: Path) -> list[int]:
    """The processes that hold the lock: the guard, then its worker."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                for path in (entry / "fd").iterdir():
                    # A descriptor that is closed meanwhile is not the lock's.
                    with contextlib.suppress(FileNotFoundError):
                        if path.readlink() == root / "run/xenward":
                            found.append(int(entry.name))
                            break
    return sorted(found, key=lambda pid: os.getsid(pid) != pid)


def wait_for_guards(root: Path) -> None:
    """Until all processes that had the lock are gone."""
    descriptor = os.open(root / "run/xenward", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.close(descriptor)
    while guards(root):
        time.sleep(0.001)


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guest]:
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    monkeypatch.setattr(freeze_guard, "CLOCK_SECONDS", 0.01)
    made = Guest(tmp_path)
    yield made
    made.end()


def test_freeze_and_thaw(guest: Guest) -> None:
    frozen = guest.freezer.freeze(10)
    assert frozen.file_systems == ("/data", "/var", "/")
    assert (frozen.skipped, frozen.until_seconds) == ((), 10.0)
    assert guest.kernel.frozen == {"8:1", "8:2", "8:3"}
    assert guest.told() == ["freeze 8:3", "freeze 8:2", "freeze 8:1"]
    assert json.loads(guest.mark.read_text()) == {"devices": ["8:3", "8:2", "8:1"]}
    guest.kernel.set_clock(1004.0)
    thawed = guest.freezer.thaw()
    assert (set(thawed.file_systems), thawed.seconds) == ({"/", "/var", "/data"}, 4.0)
    assert guest.told() == ["thaw 8:1", "thaw 8:2", "thaw 8:3"]
    assert guest.kernel.frozen == set()
    assert not guest.mark.exists()
    # And the lock is free at once.
    assert guest.freezer.freeze(10) == frozen
    guest.freezer.thaw()


def test_the_mark_stands_before_anything_is_frozen(guest: Guest) -> None:
    (guest.root / "run").mkdir()
    (guest.root / "run/xenward").write_text("in the way")
    with pytest.raises(Refused):
        guest.freezer.freeze(10)
    (guest.root / "run/xenward").unlink()
    guest.mark.mkdir(parents=True)
    with pytest.raises(Refused):
        guest.freezer.freeze(10)
    assert guest.told() == []


def test_a_mark_that_cannot_be_written(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(freezing, "replace", full)
    with pytest.raises(Failed) as caught:
        guest.freezer.freeze(10)
    assert caught.value.code == "enospc"
    assert guest.told() == []


def test_guards_depend_on_nothing_of_the_agents(guest: Guest) -> None:
    reader, writer = os.pipe()
    guest.freezer.freeze(10)
    pids = guards(guest.root)
    assert len(pids) == 2
    for pid in pids:
        links = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}
        expected = {"/dev/null", str(guest.kernel.directory), str(guest.root / "run/xenward")}
        # Now and then a guard reads the simulated kernel's clock.
        passing = str(guest.kernel.directory / "clock")
        assert {link for link in links if link != passing and not link.startswith("pipe:")} == expected
        assert os.getsid(pid) == pids[0]
        assert f"PPid:\t{os.getpid()}\n" not in Path(f"/proc/{pid}/status").read_text()
    # The agent's own descriptors are gone from them: its end is an end.
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)
    guest.freezer.thaw()


def test_a_second_freeze(guest: Guest) -> None:
    guest.freezer.freeze(10)
    for freezer in (guest.freezer, Freezer(str(guest.root), guest.mountinfo, guest.directory, guest.kernel)):
        with pytest.raises(Busy) as caught:
            freezer.freeze(10)
        assert caught.value.code == "frozen"
    assert guest.kernel.frozen == {"8:1", "8:2", "8:3"}
    guest.freezer.thaw()


def test_frozen_by_somebody_else(guest: Guest) -> None:
    guest.kernel.set_frozen("8:2", True)
    with pytest.raises(Busy, match="/var") as caught:
        guest.freezer.freeze(10)
    assert caught.value.code == "already_frozen"
    assert guest.kernel.frozen == {"8:2"}
    assert guest.told() == ["freeze 8:3", "freeze 8:2", "thaw 8:3"]
    assert not guest.mark.exists()


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOTTY])
def test_what_cannot_be_frozen_is_named(guest: Guest, number: int) -> None:
    guest.kernel.errors["8:2"] = number
    guest.set_mounts(*guest.MOUNTS, mount("8:4", "/hidden", mount_id=0), mount("0:50", "/tank", "zfs", "tank"))
    frozen = guest.freezer.freeze(10)
    assert (frozen.file_systems, set(frozen.skipped)) == (("/data", "/"), {"/var", "/hidden", "/tank"})
    assert set(guest.freezer.thaw().file_systems) == {"/data", "/"}
    assert "thaw 8:2" not in guest.told()


def test_another_mount_of_what_is_hidden(guest: Guest) -> None:
    guest.set_mounts(mount("8:4", "/hidden", mount_id=0), mount("8:4", "/seen", root="/piece"))
    assert guest.freezer.freeze(10).skipped == ()
    assert guest.kernel.frozen == {"8:4"}
    guest.freezer.thaw()


@pytest.mark.parametrize("number", [errno.EPERM, errno.EIO])
def test_an_error_undoes_all(guest: Guest, number: int) -> None:
    guest.kernel.errors["8:1"] = number
    with pytest.raises(Failed) as caught:
        guest.freezer.freeze(10)
    assert caught.value.code == errno.errorcode[number].lower()
    assert guest.kernel.frozen == set()
    assert not guest.mark.exists()


@pytest.mark.parametrize("mounts", [(), (mount("0:9", "/run", "tmpfs", "tmpfs"),), (mount("8:1", "/"),)])
def test_nothing_to_freeze(guest: Guest, mounts: tuple[Mount, ...]) -> None:
    guest.kernel.errors["8:1"] = errno.EOPNOTSUPP
    guest.set_mounts(*mounts)
    with pytest.raises(Unsupported) as caught:
        guest.freezer.freeze(10)
    assert caught.value.code == "nothing_to_freeze"
    assert not guest.mark.exists()


def test_thaw_of_nothing(guest: Guest) -> None:
    with pytest.raises(Refused) as caught:
        guest.freezer.thaw()
    assert caught.value.code == "not_frozen"


def assert_thawed_before(guest: Guest) -> None:
    guest.wait_for_guards()
    assert guest.kernel.frozen == set()
    assert not guest.mark.exists()
    for code in ("thawed_by_deadline", "not_frozen"):
        with pytest.raises(Refused) as caught:
            guest.freezer.thaw()
        assert caught.value.code == code


def test_the_deadline(guest: Guest) -> None:
    guest.freezer.freeze(10)
    guest.kernel.set_clock(1009.9)
    assert guest.kernel.frozen == {"8:1", "8:2", "8:3"}
    # As after a suspend: the time that went by was not waited for.
    guest.kernel.set_clock(1010.0)
    assert_thawed_before(guest)


def test_a_freeze_after_the_deadline(guest: Guest) -> None:
    guest.freezer.freeze(10)
    guest.kernel.set_clock(1010.0)
    guest.wait_for_guards()
    guest.freezer.freeze(10)
    guest.freezer.thaw()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("which", [0, 1], ids=["guard", "worker"])
def test_a_signal(guest: Guest, which: int, number: int) -> None:
    guest.freezer.freeze(10)
    os.kill(guards(guest.root)[which], number)
    assert_thawed_before(guest)


def test_the_guard_is_killed(guest: Guest) -> None:
    guest.freezer.freeze(10)
    os.kill(guards(guest.root)[0], signal.SIGKILL)
    assert_thawed_before(guest)


def test_the_worker_is_killed(guest: Guest) -> None:
    guest.freezer.freeze(10)
    os.kill(guards(guest.root)[1], signal.SIGKILL)
    assert set(guest.freezer.thaw().file_systems) == {"/data", "/var", "/"}
    assert guest.kernel.frozen == set()


def kill_both(guest: Guest) -> None:
    # The worker first, or it would thaw.
    for pid in reversed(guards(guest.root)):
        os.kill(pid, signal.SIGKILL)
    guest.wait_for_guards()


def test_both_are_killed_and_the_agent_is_not(guest: Guest) -> None:
    guest.freezer.freeze(10)
    kill_both(guest)
    assert guest.kernel.frozen == {"8:1", "8:2", "8:3"}
    guest.kernel.set_clock(1004.0)
    thawed = guest.freezer.thaw()
    assert (set(thawed.file_systems), thawed.seconds) == ({"/data", "/var", "/"}, 4.0)
    assert guest.kernel.frozen == set()


def test_both_are_killed_and_somebody_thaws(guest: Guest) -> None:
    guest.freezer.freeze(10)
    kill_both(guest)
    guest.kernel.set_frozen("8:2", False)
    with pytest.raises(Failed) as caught:
        guest.freezer.thaw()
    assert caught.value.code == "guard_killed"
    assert guest.kernel.frozen == set()


def test_what_is_left_is_thawed_at_the_next_start(guest: Guest) -> None:
    guest.freezer.freeze(10)
    kill_both(guest)
    guest.told()
    next_run = Freezer(str(guest.root), guest.mountinfo, guest.directory, guest.kernel)
    assert next_run.thaw_leftovers() == ("/", "/var", "/data")
    assert guest.told() == ["thaw 8:1", "thaw 8:2", "thaw 8:3"]
    assert not guest.mark.exists()
    assert next_run.thaw_leftovers() == ()


def test_leftovers_that_go_on_already(guest: Guest) -> None:
    guest.freezer.freeze(10)
    kill_both(guest)
    guest.kernel.set_frozen("8:1", False)
    guest.set_mounts(*guest.MOUNTS[:3])
    assert guest.freezer.thaw_leftovers() == ("/var",)
    assert not guest.mark.exists()


def test_leftovers_that_stay_frozen_keep_their_mark(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    guest.freezer.freeze(10)
    kill_both(guest)
    guest.kernel.thaw_errors["8:2"] = errno.EIO
    assert guest.freezer.thaw_leftovers() == ("/", "/data")
    assert guest.mark.exists()
    assert "cannot be thawed" in caplog.text


def test_the_next_run_leaves_alone_what_is_guarded(guest: Guest) -> None:
    guest.freezer.freeze(10)
    assert Freezer(str(guest.root), guest.mountinfo, guest.directory, guest.kernel).thaw_leftovers() == ()
    assert guest.kernel.frozen == {"8:1", "8:2", "8:3"}
    guest.freezer.thaw()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"devices": [1]}', "[" * 100000])
def test_a_bad_mark_does_not_end_the_start(guest: Guest, content: str) -> None:
    guest.mark.parent.mkdir(parents=True)
    guest.mark.write_text(content)
    assert guest.freezer.thaw_leftovers() == ()


def test_somebody_else_thaws(guest: Guest) -> None:
    guest.freezer.freeze(10)
    guest.kernel.set_frozen("8:2", False)
    with pytest.raises(Failed, match="/var") as caught:
        guest.freezer.thaw()
    assert caught.value.code == "thawed_early"
    assert guest.kernel.frozen == set()
    assert not guest.mark.exists()


def test_a_kernel_that_does_not_thaw(guest: Guest) -> None:
    guest.kernel.thaw_errors["8:2"] = errno.EIO
    guest.freezer.freeze(10)
    with pytest.raises(Failed, match="/var") as caught:
        guest.freezer.thaw()
    assert caught.value.code == "thaw_failed"
    assert guest.kernel.frozen == {"8:2"}
    assert guest.mark.exists()


# The agent and its freezer in a process of their own


class AgentProcess:
    """An agent that freezes what the guest has and then waits. `hanging`: a device at which the kernel hangs."""

    CODE = """
import sys
from pathlib import Path
from tests.guest_agent.system.test_freezing import Guest
guest = Guest(Path(sys.argv[1]))
guest.kernel.hanging.update(sys.argv[2:])
print("ready", flush=True)
print(guest.freezer.freeze(10), flush=True)
sys.stdin.read()
"""

    def __init__(self, guest: Guest, *hanging: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.CODE, str(guest.directory), *hanging],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.line() == "ready\n"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_agent_ends(guest: Guest, number: int) -> None:
    agent = AgentProcess(guest)
    try:
        assert agent.line().startswith("Frozen(")
        assert guest.kernel.frozen == {"8:1", "8:2", "8:3"}
        agent.process.send_signal(number)
        # Nothing of the guard's holds the agent's output open.
        assert agent.line() == ""
    finally:
        agent.end()
    guest.wait_for_guards()
    assert guest.kernel.frozen == set()
    assert not guest.mark.exists()


def test_the_agent_is_killed_while_the_kernel_hangs(guest: Guest) -> None:
    agent = AgentProcess(guest, "8:2")
    try:
        guest.wait_until_told("freeze 8:2")
    finally:
        agent.end()
    # Before the kernel comes back, which is another file system's matter.
    guest.wait_until_told("thaw 8:3")
    guest.let_go()
    guest.wait_for_guards()
    assert guest.kernel.frozen == set()
    assert set(guest.told()) == {"freeze 8:3", "freeze 8:2", "thaw 8:3", "thaw 8:2"}


def test_the_kernel_does_not_come_back(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    # The agent waits until the kernel hangs, and no longer.
    monkeypatch.setattr(freeze_guard.Watch, "receive", lambda *_: guest.wait_until_told("freeze 8:2"))
    guest.kernel.hanging.add("8:2")
    # Somebody else's, which the worker does not come to any more.
    guest.kernel.set_frozen("8:1", True)
    with pytest.raises(Unknown) as caught:
        guest.freezer.freeze(10)
    assert caught.value.code == "freeze_stuck"
    guest.wait_until_told("thaw 8:3")
    with pytest.raises(Busy) as busy:
        guest.freezer.freeze(10)
    assert busy.value.code == "frozen"
    guest.let_go()
    guest.wait_for_guards()
    assert guest.kernel.frozen == {"8:1"}
    assert set(guest.told()) == {"freeze 8:3", "freeze 8:2", "thaw 8:3", "thaw 8:2"}
    assert not guest.mark.exists()


def test_the_kernel_waits_for_what_it_freezes(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    # /data lies in a file on /var, and cannot be thawed before.
    monkeypatch.setattr(freeze_guard.Watch, "receive", lambda *_: guest.wait_until_told("freeze 8:2"))
    guest.kernel.hanging.add("8:2")
    guest.kernel.lies_on["8:3"] = "8:2"
    with pytest.raises(Unknown):
        guest.freezer.freeze(10)
    guest.wait_until_told("thaw 8:3")
    guest.let_go()
    guest.wait_for_guards()
    assert guest.kernel.frozen == set()


def test_the_kernel_comes_back_after_the_deadline(guest: Guest) -> None:
    guest.kernel.hanging.add("8:2")
    helper = subprocess.Popen(
        [sys.executable, "-c", HELPER, str(guest.directory)], cwd=REPOSITORY, stdout=subprocess.PIPE
    )
    try:
        assert helper.stdout is not None
        assert helper.stdout.readline() == b"ready\n"
        with pytest.raises(Failed) as caught:
            guest.freezer.freeze(10)
    finally:
        helper.kill()
        helper.communicate()
    assert caught.value.code == "freeze_timeout"
    assert guest.kernel.frozen == set()
    assert not guest.mark.exists()


HELPER = """
import sys
from pathlib import Path
from tests.guest_agent.system.test_freezing import Guest
guest = Guest(Path(sys.argv[1]))
print("ready", flush=True)
guest.wait_until_told("freeze 8:2")
guest.kernel.set_clock(1010.0)
guest.wait_until_told("thaw 8:3")
guest.let_go()
"""
