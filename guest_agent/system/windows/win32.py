"""The real calls of Windows, all together."""

from __future__ import annotations

import sys

from agent_protocol.outcomes import Unsupported

from .api import Windows
from .errors import failures
from .network_model import WindowsNetwork
from .programs import run


def windows() -> Windows:
    """Those of the Windows that the agent runs on. Unsupported (`platform`) elsewhere."""
    if sys.platform == "win32":
        from .accounts_win32 import Win32Accounts
        from .files_win32 import Win32Files
        from .machine_win32 import Win32Machine
        from .registry_win32 import Win32Registry

        with failures():
            return Windows(Win32Accounts(), Win32Files(), Win32Registry(), Win32Machine(), run)
    raise Unsupported("platform", "the calls of Windows are there in Windows only")


def running_network(windows: Windows) -> WindowsNetwork:
    """The network of the Windows that the agent runs on. Unsupported (`platform`) elsewhere."""
    if sys.platform == "win32":
        from .network_win32 import network

        return network(windows)
    raise Unsupported("platform", "the network of Windows is there in Windows only")
