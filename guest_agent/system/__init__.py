"""What differs between operating systems, behind one interface that is chosen once."""

from __future__ import annotations

import importlib
import os
import platform
import sys

from agent_protocol.outcomes import Refused, Unsupported

from .base import System


def choose(root: str) -> System:
    """The system whose `/` is `root`: the running one for `/`, else a directory that nothing runs from.

    Unsupported (`platform`) elsewhere than on Linux and Windows. Refused (`no_such_root`) when `root` is not a
    directory; in Windows, when it is anything but `/` or empty, for there is only the running system.
    """
    if sys.platform == "win32":
        return _windows(root)
    if platform.system() != "Linux":
        name = platform.system() or "an unknown system"
        raise Unsupported("platform", f"the agent serves Linux and Windows, this is {name}")
    # Imported here, because these modules need a POSIX system to be loaded at all.
    from .directory import DirectorySystem
    from .linux import LinuxSystem

    real = os.path.realpath(root)
    if not os.path.isdir(real):  # noqa: PTH112
        raise Refused("no_such_root", f"{root} is not a directory")
    return LinuxSystem() if real == "/" else DirectorySystem(real)


def _windows(root: str) -> System:
    if root not in ("", "/"):
        raise Refused("no_such_root", "in Windows the agent serves the running system only")
    # By name, because the package loads in Windows alone.
    system: System = importlib.import_module(".windows", __package__).WindowsSystem()
    return system
