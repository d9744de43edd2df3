"""The Windows service `XenwardAgent`: `python.exe -B -m guest_agent.service.windows`, started by Windows alone.

This is the thin part that speaks to Windows, through pywin32; what it decides is in windows_life.py. Nothing of the
agent is loaded before the logs are there, so that whatever keeps it from being loaded is told in them.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from agent_protocol.outcomes import Failed

from .. import log_windows
from . import windows_recovery
from .windows_life import Crashed, Life, Runnable
from .windows_pywin32 import WindowsEvents, WindowsManager, WindowsSettings

NAME = "XenwardAgent"
"""Of the service, and of its source in the event log."""

DISPLAY_NAME = "xenward guest agent"

DESCRIPTION = "Carries out what the host of this Xen guest asks for."

_CRASHED = 1
"""The exit status of a process that ends without a word; nobody looks at it."""

_log = logging.getLogger(__name__)


def main() -> int:
    """Give this process to the service control manager. Returns 1, with a word, when it was not that who started it."""
    # By name: these modules exist on Windows alone.
    servicemanager: Any = importlib.import_module("servicemanager")
    pywintypes: Any = importlib.import_module("pywintypes")

    servicemanager.Initialize(NAME, None)
    servicemanager.PrepareToHostSingle(Service)
    try:
        servicemanager.StartServiceCtrlDispatcher()
    except pywintypes.error as error:
        if sys.stderr is not None:
            print(f"{NAME} is a service, which Windows starts (sc start {NAME}): {error.strerror}", file=sys.stderr)
        return 1
    return 0


class Service:
    """What pywin32 makes an object of in the service's own thread, and calls SvcRun of."""

    _svc_name_ = NAME
    _svc_display_name_ = DISPLAY_NAME

    def __init__(self, arguments: Sequence[str]) -> None:
        servicemanager: Any = importlib.import_module("servicemanager")
        handle = servicemanager.RegisterServiceCtrlHandler(arguments[0], self._control, True)
        self._life = Life(WindowsManager(handle), build)

    def SvcRun(self) -> None:  # noqa: N802 - the name that pywin32 calls
        """The whole life of the service. It does not return: threads of the agent must not keep the process alive."""
        log_windows.set_up(WindowsEvents())
        windows_recovery.ensure(WindowsSettings(NAME))
        try:
            self._life.run()
        except Crashed:
            os._exit(_CRASHED)
        os._exit(0)

    def _control(self, control: int, event: int, data: object) -> None:
        """Called in the process's first thread, which must not be kept waiting."""
        del event, data
        win32service: Any = importlib.import_module("win32service")
        if control in (
            win32service.SERVICE_CONTROL_STOP,
            win32service.SERVICE_CONTROL_SHUTDOWN,
            win32service.SERVICE_CONTROL_PRESHUTDOWN,
        ):
            self._life.stop()


def build() -> Runnable:
    """The agent for this Windows, as its configuration says, with its log in a file.

    Refused when the configuration cannot be followed, or when others have made the agent's directories. Any other
    exception may come too: this loads all of the agent.
    """
    from ..system.windows import places

    try:
        places.make_directories()
        log_windows.to_file(places.LOG_FILE)
    except Failed as error:
        # A full disk, for one: an agent that serves can be told to repair it.
        _log.warning("there is no log file: %s", error)

    from .. import system
    from ..start import prepared

    return prepared(system.choose("/"), None)


if __name__ == "__main__":
    sys.exit(main())
