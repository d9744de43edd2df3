"""windows_life.Manager, log_windows.EventLog and windows_recovery.ServiceSettings, for real: through pywin32."""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from .windows_life import Ended

EVENT_IDS = {logging.WARNING: 0xF001, logging.ERROR: 0xF002}
"""Those whose text in servicemanager.pyd, the source's message file, is what the agent says, and nothing else."""

_ERROR_SERVICE_SPECIFIC_ERROR = 1066

_log = logging.getLogger(__name__)


class WindowsManager:
    """handle: of the service's status, as RegisterServiceCtrlHandler gives it."""

    def __init__(self, handle: object) -> None:
        self._win32service: Any = importlib.import_module("win32service")
        self._handle = handle
        self._checkpoint = 0

    def running(self) -> None:
        self._tell(self._win32service.SERVICE_RUNNING)

    def stopping(self, seconds: float) -> None:
        self._tell(self._win32service.SERVICE_STOP_PENDING, seconds=seconds)

    def stopped(self, ended: Ended) -> None:
        error = _ERROR_SERVICE_SPECIFIC_ERROR if ended else 0
        self._tell(self._win32service.SERVICE_STOPPED, error=error, own=ended)

    def _tell(self, state: int, *, seconds: float = 0, error: int = 0, own: int = 0) -> None:
        service = self._win32service
        accepted = 0
        if state == service.SERVICE_RUNNING:
            # Not SHUTDOWN besides: Windows gives that five seconds, and this as many as the service asks for.
            accepted = service.SERVICE_ACCEPT_STOP | service.SERVICE_ACCEPT_PRESHUTDOWN
        self._checkpoint = self._checkpoint + 1 if seconds else 0
        status = (
            service.SERVICE_WIN32_OWN_PROCESS,
            state,
            accepted,
            error,
            int(own),
            self._checkpoint,
            round(seconds * 1000),
        )
        try:
            service.SetServiceStatus(self._handle, status)
        except service.error as problem:
            _log.warning("the service control manager does not listen: %s", problem.strerror)


class WindowsEvents:
    """The source is the one that main() has named."""

    def __init__(self) -> None:
        self._servicemanager: Any = importlib.import_module("servicemanager")

    def report(self, level: int, text: str) -> None:
        manager = self._servicemanager
        kind = manager.EVENTLOG_ERROR_TYPE if level >= logging.ERROR else manager.EVENTLOG_WARNING_TYPE
        manager.LogMsg(kind, EVENT_IDS[level], (text,))


class WindowsSettings:
    """name: of the service."""

    def __init__(self, name: str) -> None:
        self._win32service: Any = importlib.import_module("win32service")
        self._name = name

    def recovers(self) -> bool:
        service = self._win32service
        with self._opened() as handle:
            found = service.QueryServiceConfig2(handle, service.SERVICE_CONFIG_FAILURE_ACTIONS)
        return bool(found["Actions"])

    def set_recovery(self, restart_seconds: Sequence[int], reset_seconds: int) -> None:
        service = self._win32service
        actions = tuple((service.SC_ACTION_RESTART, seconds * 1000) for seconds in restart_seconds)
        told = {"ResetPeriod": reset_seconds, "RebootMsg": None, "Command": None, "Actions": actions}
        with self._opened() as handle:
            service.ChangeServiceConfig2(handle, service.SERVICE_CONFIG_FAILURE_ACTIONS, told)

    def set_shutdown_seconds(self, seconds: int) -> None:
        service = self._win32service
        with self._opened() as handle:
            service.ChangeServiceConfig2(handle, service.SERVICE_CONFIG_PRESHUTDOWN_INFO, seconds * 1000)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[object]:
        service = self._win32service
        # The right to start it is what Windows asks of whoever has it started again.
        rights = service.SERVICE_QUERY_CONFIG | service.SERVICE_CHANGE_CONFIG | service.SERVICE_START
        try:
            manager = service.OpenSCManager(None, None, service.SC_MANAGER_CONNECT)
            try:
                handle = service.OpenService(manager, self._name, rights)
                try:
                    yield handle
                finally:
                    service.CloseServiceHandle(handle)
            finally:
                service.CloseServiceHandle(manager)
        except service.error as problem:
            raise OSError(problem.winerror, problem.strerror) from None
