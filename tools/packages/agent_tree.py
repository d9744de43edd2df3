"""What of this checkout a guest gets, and where it stands there: the same for every kind of package."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from guest_agent import places, service
from tools.commands.environment import CHECKOUT

PACKAGES = ("agent_protocol", "guest_agent")
LIBRARY = "/usr/lib/xenward-agent"
UNIT_DIRECTORY = "/usr/lib/systemd/system"
"""Also Debian 12's systemd reads it, whose own packages still use /lib."""
CONFIGURATION_FILE = places.CONFIGURATION_FILE.text

PROGRAM = f"""\
#!/bin/sh
# The launcher is started by its path, and isolated: no variable and no directory but its own leads to other modules.
exec /usr/bin/python3 -I {LIBRARY}/guest_agent/launch.py "$@"
"""

SUMMARY = "Carries out what the host of a Xen guest asks for"
DESCRIPTION = """\
The guest agent of xenward. It sets passwords, puts files, keeps SSH keys,
configures the network, freezes file systems and updates itself, as the host
asks it to through XenStore. It needs no network."""

_MODULE = re.compile(r"[a-z_][a-z0-9_]*\.py")
_DATA = {service.UNIT, service.OPENRC, service.CONFIGURATION}

_PRE_RELEASE = re.compile(r"\.?(a|b|rc|dev)(?=[0-9])")


class PackageError(Exception):
    """Raise when a package cannot be built; the text tells what is missing or what a program said."""


@dataclass(frozen=True)
class File:
    """A file of the guest: its content, and its mode for the superuser's file."""

    content: bytes
    mode: int = 0o644


def version() -> str:
    """The distribution's version, from setup.cfg."""
    setup = configparser.ConfigParser()
    setup.read(CHECKOUT / "setup.cfg", encoding="utf-8")
    return setup["metadata"]["version"]


def native_version(version: str) -> str:
    """As dpkg and rpm write it: both take `~` for what comes before a release, so that 1.0rc1 is older than 1.0."""
    return _PRE_RELEASE.sub(r"~\1", version)


def source_date_epoch() -> int:
    """Seconds since 1970 that every package is dated with: SOURCE_DATE_EPOCH where it is set, else the last commit's.

    PackageError when it is neither set to a number nor told by git.
    """
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is None:
        require("git", "git")
        given = run(["git", "-C", str(CHECKOUT), "log", "-1", "--format=%ct"]).strip()
    if not re.fullmatch(r"[0-9]{1,11}", given):
        raise PackageError("SOURCE_DATE_EPOCH is not a number, and no commit tells one")
    return int(given)


def code() -> dict[str, bytes]:
    """The agent's modules and the files beside them, by their path below the directory of its packages."""
    found = {}
    for package in PACKAGES:
        for path in sorted((CHECKOUT / package).rglob("*")):
            if path.is_file() and (_MODULE.fullmatch(path.name) or path.name in _DATA):
                found[path.relative_to(CHECKOUT).as_posix()] = path.read_bytes()
    return found


def installed_files() -> dict[str, File]:
    """All that a package puts into a guest, by absolute path."""
    files = {f"{LIBRARY}/{name}": File(content) for name, content in code().items()}
    files[service.PROGRAM] = File(PROGRAM.encode(), 0o755)
    files[f"{UNIT_DIRECTORY}/{service.UNIT}"] = File(service.read(service.UNIT))
    files[CONFIGURATION_FILE] = File(service.read(service.CONFIGURATION))
    files["/usr/share/doc/xenward-agent/copyright"] = File((CHECKOUT / "LICENSE").read_bytes())
    return files


def write_tree(directory: Path, files: dict[str, File]) -> None:
    """Lay the files out below a directory, with their modes whatever the umask is."""
    for name, file in files.items():
        path = directory / name.lstrip("/")
        for parent in reversed(path.relative_to(directory).parents):
            if not (directory / parent).is_dir():
                (directory / parent).mkdir()
            (directory / parent).chmod(0o755)
        path.write_bytes(file.content)
        path.chmod(file.mode)


def date_tree(directory: Path, epoch: int) -> None:
    """Give everything in a directory, and itself, one time of modification."""
    for path in (directory, *directory.rglob("*")):
        if not stat.S_ISLNK(path.lstat().st_mode):
            os.utime(path, (epoch, epoch))


def require(program: str, package: str) -> None:
    """PackageError, which names Debian's package, when a program is missing."""
    if shutil.which(program) is None:
        raise PackageError(f"{program} is missing; it is in Debian's package {package}")


def run(command: list[str], epoch: int | None = None) -> str:
    """Run a program, and return what it printed. PackageError, with its words, when it fails."""
    environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    if epoch is not None:
        environment["SOURCE_DATE_EPOCH"] = str(epoch)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise PackageError(f"{command[0]} ended with {done.returncode}: {(done.stderr + done.stdout).strip()[-2000:]}")
    return done.stdout
