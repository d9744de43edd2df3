"""Freezing of real file systems, in a namespace of their own.

Nothing but what is mounted below the test's own directory is ever frozen: the freezer gets no other mounts to see, and
its kernel looks at each once more.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_protocol.outcomes import Busy, Refused, Unknown
from guest_agent.system import freezing
from guest_agent.system.freeze_guard import Kernel
from guest_agent.system.freezing import Freezer
from guest_agent.system.mounts import Mount, parse_mountinfo

from .test_freezing import REPOSITORY, guards, wait_for_guards


class CarefulKernel(Kernel):
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def open(self, mount: Mount) -> int:
        assert mount.mount_point.startswith(f"{self.directory}/"), mount
        return self._check(super().open(mount))

    def freeze(self, descriptor: int) -> None:
        super().freeze(self._check(descriptor))

    def _check(self, descriptor: int) -> int:
        assert os.fstat(descriptor).st_dev not in {Path("/").stat().st_dev, self.directory.stat().st_dev}
        return descriptor


class Disks:
    """Loop devices below a directory: /a, /b within a file that lies on /a, /x with XFS where its tools are, and /c."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = directory / "root"
        self.root.mkdir(exist_ok=True)
        self.points = ["a", "b", *(["x"] if shutil.which("mkfs.xfs") else []), "c"]
        self.kernel = CarefulKernel(directory)

    def mount(self) -> None:
        self._make("a", self.directory / "a.img", "ext4", 64)
        self._make("b", self.directory / "a/b.img", "ext4", 16)
        if "x" in self.points:
            self._make("x", self.directory / "x.img", "xfs", 512)
        self._make("c", self.directory / "c.img", "ext4", 16)
        (self.directory / "bound").mkdir()
        subprocess.run(["mount", "--bind", self.directory / "a", self.directory / "bound"], check=True)

    def _make(self, name: str, image: Path, kind: str, megabytes: int) -> None:
        with image.open("wb") as file:
            file.truncate(megabytes * 1024 * 1024)
        subprocess.run([f"mkfs.{kind}", "-q", image], check=True)
        (self.directory / name).mkdir()
        subprocess.run(["mount", "-o", "loop", image, self.directory / name], check=True)

    def freezer(self) -> Freezer:
        prefix = os.fsencode(self.directory) + b"/"
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines(keepends=True)
        chosen = [entry for entry in lines if entry.split(b" ")[4].startswith(prefix)]
        (self.directory / "mountinfo").write_bytes(b"".join(chosen))
        mounts = parse_mountinfo(b"".join(chosen))
        assert len(mounts) == len(self.points) + 1
        assert all(entry.mount_point.startswith(f"{self.directory}/") for entry in mounts)
        return Freezer(str(self.root), self.directory / "mountinfo", kernel=self.kernel)

    @property
    def names(self) -> set[str]:
        return {str(self.directory / name) for name in self.points}

    def unmount(self) -> None:
        for name in self.points:
            with contextlib.suppress(OSError):
                descriptor = os.open(self.directory / name, os.O_RDONLY)
                with contextlib.suppress(OSError):
                    self.kernel.thaw(self.kernel._check(descriptor))
                os.close(descriptor)
        for name in ("bound", "c", "x", "b", "a"):
            subprocess.run(["umount", "-l", self.directory / name], check=False, stderr=subprocess.DEVNULL)


class Writer:
    """A process that makes a file, and tells when it has."""

    CODE = """
import sys, time
print("begin", flush=True)
with open(sys.argv[1], "w") as file:
    file.write("x")
print(time.clock_gettime(time.CLOCK_BOOTTIME), flush=True)
"""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen([sys.executable, "-ISBc", self.CODE, str(path)], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self._output = self.process.stdout
        assert self._output.readline() == b"begin\n"

    def wait_until_blocked(self) -> None:
        while True:
            state = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2][0]
            assert state != "Z", "it wrote to what is frozen"
            if state == "D":
                return

    def written(self) -> float:
        """When it was through, by the clock of the kernel."""
        return float(self._output.readline())


def freeze_blocks_and_thaw_lets_go(disks: Disks) -> None:
    freezer = disks.freezer()
    frozen = freezer.freeze(60)
    assert (set(frozen.file_systems), frozen.skipped) == (disks.names, ())
    assert frozen.file_systems.index(f"{disks.directory}/b") < frozen.file_systems.index(f"{disks.directory}/a")
    writers = [Writer(disks.directory / name / "new") for name in [*disks.points, "bound"]]
    for writer in writers:
        writer.wait_until_blocked()
    started = disks.kernel.now()
    assert set(freezer.thaw().file_systems) == disks.names
    assert min(writer.written() for writer in writers) > started


@contextlib.contextmanager
def frozen_by_somebody_else(disks: Disks, name: str) -> Iterator[None]:
    descriptor = os.open(disks.directory / name, os.O_RDONLY)
    try:
        disks.kernel.freeze(descriptor)
        try:
            yield
        finally:
            disks.kernel.thaw(descriptor)  # an error if it was not frozen any more
    finally:
        os.close(descriptor)


def others_freeze_is_left(disks: Disks) -> None:
    with frozen_by_somebody_else(disks, "b"):
        with pytest.raises(Busy) as caught:
            disks.freezer().freeze(60)
        assert caught.value.code == "already_frozen"
        for name in set(disks.points) - {"b"}:
            assert Writer(disks.directory / name / "new").written() > 0


def kernel_hangs(disks: Disks) -> None:
    freezing.UNDO_SECONDS = 0.0
    # /b cannot come to a halt while what it lies on stands still.
    with frozen_by_somebody_else(disks, "a"):
        with pytest.raises(Unknown) as caught:
            disks.freezer().freeze(1)
        assert caught.value.code == "freeze_stuck"
        # What was frozen before is thawed although the kernel still waits.
        assert Writer(disks.directory / "c" / "new").written() > 0
        assert guards(disks.root)
    wait_for_guards(disks.root)
    for name in disks.points:
        assert Writer(disks.directory / name / "later").written() > 0


def deadline_thaws(disks: Disks) -> None:
    freezer = disks.freezer()
    started = disks.kernel.now()
    freezer.freeze(3)
    assert Writer(disks.directory / "b" / "new").written() >= started + 3
    wait_for_guards(disks.root)
    with pytest.raises(Refused) as caught:
        freezer.thaw()
    assert caught.value.code == "thawed_by_deadline"


def agent_for(disks: Disks) -> subprocess.Popen[bytes]:
    code = f"import sys; from {__name__} import frozen_agent; frozen_agent(sys.argv[1])"
    agent = subprocess.Popen(
        [sys.executable, "-c", code, disks.directory], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert agent.stdout is not None
    assert agent.stdout.readline() == b"frozen\n"
    return agent


def frozen_agent(directory: str) -> None:
    freezer = Disks(Path(directory)).freezer()
    freezer.freeze(60)
    print("frozen", flush=True)
    sys.stdin.read()


def killed_agent_thaws(disks: Disks) -> None:
    agent = agent_for(disks)
    writer = Writer(disks.directory / "b" / "new")
    writer.wait_until_blocked()
    started = disks.kernel.now()
    agent.kill()
    agent.communicate()
    assert started < writer.written() < started + 60
    wait_for_guards(disks.root)
    assert disks.freezer().thaw_leftovers() == ()


def all_killed_and_started_again(disks: Disks) -> None:
    agent = agent_for(disks)
    for pid in reversed(guards(disks.root)):
        os.kill(pid, signal.SIGKILL)
    agent.kill()
    agent.communicate()
    wait_for_guards(disks.root)
    writer = Writer(disks.directory / "b" / "new")
    writer.wait_until_blocked()
    started = disks.kernel.now()
    assert set(disks.freezer().thaw_leftovers()) == disks.names
    assert writer.written() > started


SCENARIOS = {
    function.__name__: function
    for function in (
        freeze_blocks_and_thaw_lets_go,
        others_freeze_is_left,
        kernel_hangs,
        deadline_thaws,
        killed_agent_thaws,
        all_killed_and_started_again,
    )
}


def in_namespace(scenario: str, directory: str) -> None:
    """Run a scenario with file systems that nobody else sees."""
    disks = Disks(Path(directory))
    try:
        disks.mount()
        SCENARIOS[scenario](disks)
    finally:
        disks.unmount()


@pytest.mark.services
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_real_file_systems(tmp_path: Path, scenario: str) -> None:
    code = f"import sys; from {__name__} import in_namespace; in_namespace(*sys.argv[1:])"
    program = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", code, scenario, str(tmp_path)]
    ended = subprocess.run(program, cwd=REPOSITORY, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stderr
