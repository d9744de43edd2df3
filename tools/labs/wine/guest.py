"""Windows as the guest of a simulated XenServer, in place of the agent's process that its guests have otherwise.

    python -m tools.labs.wine.guest IMAGE WINE ROOT SOCKET

IMAGE: a disk (disk.py) that a new guest gets a copy of, at ROOT/windows. WINE: the files of Wine (programs.py). SOCKET:
of the guest's XenStore. command() is for the simulator's --agent-command. The guest shuts down on SIGTERM.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.labs.cache import LabError
from tools.labs.wine.disk import copy
from tools.labs.wine.machine import Machine
from tools.labs.wine.programs import Wine, wine
from tools.labs.wine.running import Running, children

SERVICES = ("XenwardAgent",)
"""What is asked to stop when the guest shuts down."""

DISK = "windows"
"""Below a guest's root directory."""


def command(image: Path) -> list[str]:
    """What the simulator is to run in each guest. LabError when Wine cannot be had."""
    return [sys.executable, "-m", __spec__.name, str(image), str(wine().files), "{root}", "{socket}"]


def running(root: Path, pid: int) -> Running:
    """The Windows of a guest that runs. root: the guest's root directory. pid: of its process.

    LookupError when it is off.
    """
    for below in children(pid):
        for first in children(below):
            return Running(root / DISK, first)
    raise LookupError("the guest's Windows is off")


def main(arguments: Sequence[str]) -> int:
    """See above. Returns 1 when Windows does not boot or ends by itself."""
    image, files, root, socket = map(Path, arguments)
    # Before it boots: a guest may be asked to shut down at any time.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    disk = root / DISK
    if not disk.exists():
        copy(image, disk)
    try:
        machine = Machine(disk, socket, program=Wine(files))
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    signal.sigwait([signal.SIGTERM])
    machine.shut_down(SERVICES)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
