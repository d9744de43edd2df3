"""Throw-away Debian systems in a directory: real programs, in namespaces of their own, and nothing of this machine's.

A base is installed once by debootstrap, from the mirror and release that apt is configured with here, and kept in the
user's cache directory. Each Root is a copy-on-write instance of a base, with its own mounts, processes, network, host
name and users; it is gone without trace when it is closed, or when the process that made it dies. Needs the superuser.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from .cache import LabError, kept, run

PACKAGES = (
    "ifupdown",
    "iproute2",
    "libpam-pwquality",
    "netplan.io",
    "network-manager",
    "procps",
    "python3",
    "python3-cryptography",
    "systemd",
    "udev",
)
"""What the default base has besides Debian's smallest: an agent's requirements, and the network stacks of Debian."""

_START_SECONDS = 30.0

_NO_SERVICES = "#!/bin/sh\nexit 101\n"
"""A policy-rc.d(8): packages that are being installed start no daemons."""

_INSTALL = """\
set -e
mount -t proc proc "$1/proc"
exec chroot "$1" sh -c 'apt-get update -qq && exec apt-get install -qq --no-install-recommends "$@"' sh {packages}
"""

_HOLD = """\
set -e
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
cd "$2/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm
for device in null zero full random urandom tty; do touch "dev/$device"; mount --bind "/dev/$device" "dev/$device"; done
ln -s /proc/self/fd dev/fd
shift 2
while [ $# -gt 0 ]; do mkdir -p "./$2"; mount --rbind "$1" "./$2"; shift 2; done
chroot . ip link set lo up
hostname guest
exec chroot . sh -c 'echo ready; while :; do sleep 3600; done'
"""
"""Builds an instance and stays its first process. Arguments: base, working directory, then pairs of what is mounted
from outside and where. It is ready when it is inside, and not before: others follow it to where its root is.
A shell, because it takes in the processes that lose their parents."""


class RootError(LabError):
    """Raise when a throw-away system cannot be made."""


def debian_root(packages: Sequence[str] = PACKAGES) -> Path:
    """The directory of a base with these packages; made if it is not in the cache yet, the first one in a minute.

    LabError when it cannot be.
    """
    uri, release = _mirror()
    smallest = kept("roots", _name(release, uri), lambda base: _bootstrap(release, uri, base))

    def install(base: Path) -> None:
        run(["cp", "--archive", str(smallest), str(base)])
        script = _INSTALL.format(packages=" ".join(packages))
        run(["unshare", "--mount", "--pid", "--fork", "sh", "-c", script, "sh", str(base)])

    return kept("roots", _name(release, uri, *packages), install)


def _name(release: str, *made_from: str) -> str:
    return f"{release}-{hashlib.sha256(chr(0).join(made_from).encode()).hexdigest()[:16]}"


def _bootstrap(release: str, uri: str, base: Path) -> None:
    run(["debootstrap", "--variant=minbase", release, str(base), uri])
    (base / "usr/sbin/policy-rc.d").write_text(_NO_SERVICES)
    (base / "usr/sbin/policy-rc.d").chmod(0o755)
    # What is lost in a crash is made anew.
    (base / "etc/dpkg/dpkg.cfg.d/unsafe-io").write_text("force-unsafe-io\n")
    shutil.copyfile("/etc/resolv.conf", base / "etc/resolv.conf")


def _mirror() -> tuple[str, str]:
    """Where apt gets this machine's release from, and the release's name."""
    with open("/etc/os-release", encoding="utf-8") as file:  # noqa: PTH123
        release = next((line.split("=")[1].strip() for line in file if line.startswith("VERSION_CODENAME=")), "")
    # The archive itself, rather than what is added to it for security or by other people, knows the package.
    targets = run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", f"Codename: {release}"]
    ).split()
    if not targets:
        raise RootError(f"apt is not configured with a mirror of {release or 'a Debian release'}")
    return targets[0], release


class Root:
    """A running instance of a base: nothing runs in it but what run() and start() do.

    base: as from debian_root(). mounts: directories of this machine, and where they stand in the instance.
    RootError when it cannot be made.
    """

    def __init__(self, base: Path, mounts: Mapping[Path, str] | None = None) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="xenward-root"))
        for name in ("upper", "work", "root"):
            (self._directory / name).mkdir()
        pairs = [part for outside, inside in (mounts or {}).items() for part in (str(outside), inside)]
        namespaces = ["--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child"]
        command = ["unshare", *namespaces, "sh", "-c", _HOLD, "sh", str(base), str(self._directory), *pairs]
        self._pid = 0
        self._holder = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            self.close()
            raise RootError("the instance cannot be made; are you the superuser?")
        # The one child of unshare is the instance's first process.
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text()
        self._pid = int(children.split()[0])

    def __enter__(self) -> Root:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every process in it and remove it."""
        if self._pid:
            # The kernel ends all of its processes before the first one's end is told.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        else:
            self._holder.kill()
        self._holder.wait(_START_SECONDS)
        if self._holder.stdout is not None:
            self._holder.stdout.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def path(self, inside: str) -> Path:
        """Where the instance's absolute path `inside` is found from outside; links are followed as if from here."""
        return Path(f"/proc/{self._pid}/root") / inside.lstrip("/")

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command with which this machine runs `command` as the instance's superuser."""
        return ["nsenter", f"--target={self._pid}", "--all", "--root", "--wd", "--", *command]

    def run(
        self, command: Sequence[str], *, stdin: str = "", timeout: float = 60.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with standard error behind standard output.

        timeout: seconds. check: whether AssertionError, with the output, is raised for an exit status other than 0.
        """
        done = subprocess.run(
            self.inside(command),
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "LC_ALL": "C",
                "HOME": "/root",
            },
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}")
        return done
