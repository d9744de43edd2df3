"""Installing the self-contained agent as a service, where there is no package: `xenward-agent.pyz --install`.

It works on the running system, and with `--root DIR` on an image that is mounted there; then nothing is started. The
program goes to /usr/local/sbin, its service to whichever of systemd and OpenRC is there, and its default configuration
to /etc/xenward, unless there is one. Doing it again replaces the program and the service, and restarts it.
Uninstalling leaves logs and the agent's identity, by which hosts know this guest.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from agent_protocol.outcomes import Refused, Unsuccessful

from ..places import CONFIGURATION_FILE, IDENTITY_FILE, RUN_DIRECTORY, STATE_DIRECTORY
from ..system.files import read_file, write_file
from ..system.lookup import is_there, names_in
from ..system.paths import GuestPath, failures, open_parent
from . import CONFIGURATION, OPENRC, UNIT, read, read_for

PROGRAM = GuestPath("/usr/local/sbin/xenward-agent")

UNIT_FILE = GuestPath(f"/etc/systemd/system/{UNIT}")
UNIT_LINK = GuestPath(f"/etc/systemd/system/multi-user.target.wants/{UNIT}")
OPENRC_FILE = GuestPath("/etc/init.d/xenward-agent")
OPENRC_LINK = GuestPath("/etc/runlevels/default/xenward-agent")

PACKAGED = GuestPath("/usr/lib/xenward-agent/guest_agent/__init__.py")
"""What a package of the agent brings."""

_SYSTEMD = tuple(GuestPath(f"{directory}/systemd/systemd") for directory in ("/usr/lib", "/lib"))
_OPENRC = GuestPath("/sbin/openrc-run")
_SYSTEMD_RUNS = GuestPath("/run/systemd/system")
"""There while systemd is the first process: sd_booted(3)."""
_OPENRC_RUNS = GuestPath("/run/openrc/softlevel")

_SECONDS = 60.0
"""How long a service manager may take; a stop waits for the command that the agent is carrying out."""


def install(root: str, program: bytes) -> list[str]:
    """Install the program whose content this is below `root`, and tell what was done, a line each.

    Refused (`package_installed`) where a package of the agent is installed, (`no_service_manager`) where there is
    neither systemd nor OpenRC; Failed as write_file.
    """
    if is_there(root, PACKAGED):
        raise Refused("package_installed", "a package of the agent is installed here; remove it first")
    systemd = any(is_there(root, path) for path in _SYSTEMD)
    if not systemd and not is_there(root, _OPENRC):
        raise Refused("no_service_manager", "here is neither systemd nor OpenRC")
    done = [_put(root, PROGRAM, program, 0o755)]
    if read_file(root, CONFIGURATION_FILE) is None:
        done.append(_put(root, CONFIGURATION_FILE, read(CONFIGURATION), 0o644))
    else:
        done.append(f"kept {CONFIGURATION_FILE.text}")
    if systemd:
        done.append(_put(root, UNIT_FILE, read_for(UNIT, PROGRAM.text), 0o644))
        done.append(_link(root, UNIT_LINK, UNIT_FILE.text))
    else:
        done.append(_put(root, OPENRC_FILE, read_for(OPENRC, PROGRAM.text), 0o755))
        done.append(_link(root, OPENRC_LINK, OPENRC_FILE.text))
    return done + _manage(root, start=True)


def uninstall(root: str) -> list[str]:
    """Stop the agent and remove all of it but its logs and its identity, and tell what was done. Errors as install."""
    if is_there(root, PACKAGED):
        raise Refused("package_installed", "a package of the agent is installed here; remove that")
    done = _manage(root, start=False)
    for path in (UNIT_LINK, UNIT_FILE, OPENRC_LINK, OPENRC_FILE, PROGRAM, CONFIGURATION_FILE):
        done += _remove(root, path)
    for name in names_in(root, STATE_DIRECTORY):
        if name != IDENTITY_FILE.name:
            done += _remove(root, GuestPath(f"{STATE_DIRECTORY.text}/{name}"))
    done += _remove(root, RUN_DIRECTORY)
    for directory in (STATE_DIRECTORY, GuestPath("/etc/xenward")):
        with contextlib.suppress(OSError, Refused), open_parent(root, directory) as parent:
            os.rmdir(directory.name, dir_fd=parent)
    if _is_running_system(root) and is_there(root, _SYSTEMD_RUNS):
        done += _run(["systemctl", "daemon-reload"])
    return done


def _put(root: str, path: GuestPath, content: bytes, mode: int) -> str:
    write_file(root, path, content, mode=mode)
    return f"wrote {path.text}"


def _link(root: str, path: GuestPath, target: str) -> str:
    # What systemctl and rc-update do; done here, it needs neither, and does not run what is in an image.
    with failures(path.text), open_parent(root, path, make=True) as directory:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path.name, dir_fd=directory)
        os.symlink(target, path.name, dir_fd=directory)
        os.fsync(directory)
    return f"enabled the service: {path.text}"


def _remove(root: str, path: GuestPath) -> list[str]:
    """Whatever stands there, with all that is in it."""
    if not is_there(root, path):
        return []
    with failures(path.text), open_parent(root, path) as directory:
        # By the descriptor, so that the way there cannot be swapped meanwhile.
        place = f"/proc/self/fd/{directory}/{path.name}"
        if os.path.isdir(place) and not os.path.islink(place):  # noqa: PTH112, PTH114
            shutil.rmtree(place)
        else:
            os.unlink(path.name, dir_fd=directory)
    return [f"removed {path.text}"]


def _is_running_system(root: str) -> bool:
    return os.path.realpath(root) == "/"


def _manage(root: str, *, start: bool) -> list[str]:
    """Start the agent anew, or stop it, where a service manager runs."""
    if not _is_running_system(root):
        return []
    if is_there(root, _SYSTEMD_RUNS):
        commands = [["daemon-reload"], ["restart", UNIT]] if start else [["stop", UNIT]]
        return [line for command in commands for line in _run(["systemctl", *command])]
    if is_there(root, _OPENRC_RUNS):
        return _run(["rc-service", "xenward-agent", "restart" if start else "stop"])
    return []


_FAILED = " ended with "
"""In the line that tells of a service manager's program which did not do its work."""


def _run(command: list[str]) -> list[str]:
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"{' '.join(command)}{_FAILED}{error}"]
    told = ended.stdout.decode("utf-8", "replace").strip()
    return [" ".join(command) + ("" if ended.returncode == 0 else f"{_FAILED}{ended.returncode}: {told}")]


def main(arguments: Sequence[str], program: Path) -> int:
    """`--install` and `--uninstall`, with `--root DIR`; `program` is the file that is copied.

    The exit status is 0 when all was done, 1 otherwise, 2 for a wrong command line.
    """
    parser = argparse.ArgumentParser(prog="xenward-agent.pyz", description="Install the agent as a service.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--install", action="store_true", help="install and start it; again, to bring it up to date")
    action.add_argument("--uninstall", action="store_true", help="remove all but logs and the agent's identity")
    parser.add_argument("--root", metavar="DIR", default="/", help="an image's root directory (default: /)")
    options = parser.parse_args(arguments)
    try:
        if not os.path.isdir(options.root):  # noqa: PTH112
            raise Refused("no_such_root", f"{options.root} is not a directory")
        done = install(options.root, program.read_bytes()) if options.install else uninstall(options.root)
    except (Unsuccessful, OSError) as error:
        print(f"xenward-agent: {error}", file=sys.stderr)
        return 1
    print("\n".join(done))
    return int(any(_FAILED in line for line in done))
