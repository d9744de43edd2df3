"""What differs between operating systems, behind one interface that is chosen once."""

from __future__ import annotations

import os
import platform

from agent_protocol.outcomes import Refused, Unsupported

from .base import System


def choose(root: str) -> System:
    """The system whose `/` is `root`: the running Linux for `/`, else a directory that nothing runs from.

    Unsupported (`platform`) elsewhere than on Linux; Refused (`no_such_root`) when `root` is not a directory.
    """
    if platform.system() != "Linux":
        raise Unsupported("platform", f"the agent serves Linux, this is {platform.system() or 'an unknown system'}")
    # Imported here, because these modules need a POSIX system to be loaded at all.
    from .directory import DirectorySystem
    from .linux import LinuxSystem

    real = os.path.realpath(root)
    if not os.path.isdir(real):  # noqa: PTH112
        raise Refused("no_such_root", f"{root} is not a directory")
    return LinuxSystem() if real == "/" else DirectorySystem(real)
