"""Throw-away guests for the packages: what they hold before and after, and the agent that is installed in them."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.guest_agent.conftest import DEADLINE, Host, simulated_host
from tests.guest_agent.sealing import SealedHost
from tools.labs.roots import Root

STORE = "/mnt/xenstore"
"""Where a guest finds the sockets of the simulated store."""

IDENTITY = "/var/lib/xenward/identity.json"

_NOT_OURS = (
    "/proc",
    "/sys",
    "/dev",
    "/tmp",
    "/mnt",
    "/var/lib/dpkg",
    "/var/lib/rpm",
    "/root/.rpmdb",
    "/var/cache/ldconfig",
)
"""What packages do not own, or the packager's own books."""


@contextlib.contextmanager
def guest(base: Path, *packages: Path) -> Iterator[tuple[Root, Host]]:
    """A guest of a simulated host; the packages lie in its /mnt/packages. Its systemd does not run."""
    with simulated_host() as host:
        mounts = {host.guest_socket.parent: STORE}
        mounts.update({package.parent: f"/mnt/packages/{number}" for number, package in enumerate(packages)})
        with Root(base, mounts) as root:
            yield root, host


def placed(packages: Sequence[Path]) -> list[str]:
    """Where guest() put them."""
    return [f"/mnt/packages/{number}/{package.name}" for number, package in enumerate(packages)]


@contextlib.contextmanager
def agent(root: Root, host: Host, log: Path, *program: str) -> Iterator[SealedHost]:
    """The guest's agent while it runs, as its host sees it."""
    command = root.inside([*program, "--store", f"unix:{STORE}/{host.guest_socket.name}"])
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    with log.open("ab") as stderr:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr, env=environment)
    try:
        yield SealedHost(host)
    finally:
        # nsenter waits for its child and passes no signal on.
        if process.poll() is None:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            for pid in children:
                os.kill(int(pid), signal.SIGTERM)
        process.wait(DEADLINE)


def tree(root: Root) -> dict[str, tuple[int, int, int, str]]:
    """Mode, owner and content of everything that packages could have left behind, by path."""
    found = {}
    top = root.path("/")
    for directory, directories, files in os.walk(top):
        inside = "/" + os.path.relpath(directory, top)
        inside = "/" if inside == "/." else inside
        directories[:] = [name for name in directories if f"{inside.rstrip('/')}/{name}" not in _NOT_OURS]
        for name in (*directories, *files):
            path = Path(directory) / name
            status = path.lstat()
            content = ""
            if stat.S_ISLNK(status.st_mode):
                content = str(path.readlink())
            elif stat.S_ISREG(status.st_mode):
                content = f"{status.st_size} {status.st_mtime_ns}"
            found[f"{inside.rstrip('/')}/{name}"] = (status.st_mode, status.st_uid, status.st_gid, content)
    return found


def difference(before: dict[str, tuple[int, int, int, str]], after: dict[str, tuple[int, int, int, str]]) -> set[str]:
    """The paths that came, went or changed, but for logs and caches of what is installed."""
    changed = {path for path in {*before, *after} if before.get(path) != after.get(path)}
    return {path for path in changed if not path.startswith("/var/log/")}


def shadow(root: Root, user: str) -> list[str]:
    """The fields of an account in the guest's /etc/shadow."""
    lines = root.path("/etc/shadow").read_text().splitlines()
    return next(line.split(":") for line in lines if line.startswith(f"{user}:"))


_VERIFY = """\
import crypt, spwd, sys
user, password = sys.stdin.read().split("\\n")
hashed = spwd.getspnam(user).sp_pwdp
sys.exit(0 if crypt.crypt(password, hashed) == hashed else 3)
"""


def accepts(root: Root, user: str, password: str) -> bool:
    """Whether the guest's own libcrypt says that this is the account's password."""
    command = ["python3", "-W", "ignore", "-c", _VERIFY]
    return root.run(command, stdin=f"{user}\n{password}", check=False).returncode == 0
