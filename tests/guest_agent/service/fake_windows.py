"""The service control manager and the event log, as the service meets them; and stand-ins for pywin32's
modules."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest

from guest_agent.service.windows_life import Ended


class FakeManager:
    """Remembers what it was told. stops: set once it was told that the service stops."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.stops = threading.Event()

    def running(self) -> None:
        self.told.append(("running",))

    def stopping(self, seconds: float) -> None:
        self.told.append(("stopping", seconds))
        self.stops.set()

    def stopped(self, ended: Ended) -> None:
        self.told.append(("stopped", ended))


class FakeSettings:
    """What Windows keeps about the service. `failure`: what every call raises."""

    def __init__(self, recovery: tuple[Sequence[int], int] | None = None, failure: OSError | None = None) -> None:
        self.recovery = recovery
        self.failure = failure
        self.shutdown_seconds = 0

    def recovers(self) -> bool:
        self._fail()
        return self.recovery is not None

    def set_recovery(self, restart_seconds: Sequence[int], reset_seconds: int) -> None:
        self._fail()
        self.recovery = (restart_seconds, reset_seconds)

    def set_shutdown_seconds(self, seconds: int) -> None:
        self._fail()
        self.shutdown_seconds = seconds

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


class FakeWindowsError(Exception):
    """pywintypes.error."""

    def __init__(self, winerror: int, function: str, strerror: str) -> None:
        super().__init__(winerror, function, strerror)
        self.winerror, self.funcname, self.strerror = winerror, function, strerror


class Windows:
    """What the modules below were asked for, and how they answer.

    statuses: each SERVICE_STATUS. events: type, id and text of each. settings: by level, as ChangeServiceConfig2 had
    them. open: the handles that are open. failures: by the name of a function, what it raises.
    """

    def __init__(self) -> None:
        self.statuses: list[tuple[int, ...]] = []
        self.events: list[tuple[int, int, str]] = []
        self.settings: dict[int, Any] = {}
        self.open: list[str] = []
        self.rights = 0
        self.failures: dict[str, FakeWindowsError] = {}
        self.handler: Any = None
        self.hosted: Any = None
        self.source = ""
        self._modules: dict[str, ModuleType] = {}

    def called(self, function: str) -> None:
        if function in self.failures:
            raise self.failures[function]

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the modules where an import finds them."""
        self._win32service()
        self._servicemanager()
        self._pywintypes()
        for name, module in self._modules.items():
            monkeypatch.setitem(sys.modules, name, module)

    def _module(self, name: str) -> ModuleType:
        return self._modules.setdefault(name, ModuleType(name))

    def _win32service(self) -> None:
        module: Any = self._module("win32service")
        # winsvc.h
        module.SERVICE_WIN32_OWN_PROCESS = 0x10
        module.SERVICE_STOPPED, module.SERVICE_STOP_PENDING, module.SERVICE_RUNNING = 1, 3, 4
        module.SERVICE_ACCEPT_STOP, module.SERVICE_ACCEPT_SHUTDOWN, module.SERVICE_ACCEPT_PRESHUTDOWN = 1, 4, 0x100
        module.SERVICE_CONTROL_STOP, module.SERVICE_CONTROL_INTERROGATE = 1, 4
        module.SERVICE_CONTROL_SHUTDOWN, module.SERVICE_CONTROL_PRESHUTDOWN = 5, 0xF
        module.SERVICE_QUERY_CONFIG, module.SERVICE_CHANGE_CONFIG, module.SERVICE_START = 1, 2, 0x10
        module.SC_MANAGER_CONNECT, module.SC_ACTION_RESTART = 1, 1
        module.SERVICE_CONFIG_FAILURE_ACTIONS, module.SERVICE_CONFIG_PRESHUTDOWN_INFO = 2, 7
        module.error = FakeWindowsError

        def set_status(handle: object, status: tuple[int, ...]) -> None:
            assert handle == "status handle"
            self.called("SetServiceStatus")
            self.statuses.append(status)

        def open_manager(machine: object, database: object, rights: int) -> str:
            assert (machine, database, rights) == (None, None, module.SC_MANAGER_CONNECT)
            self.open.append("manager")
            return "manager"

        def open_service(manager: str, name: str, rights: int) -> str:
            assert manager in self.open
            self.called("OpenService")
            self.rights = rights
            self.open.append(name)
            return name

        def query(handle: str, level: int) -> Any:
            assert handle in self.open
            assert self.rights & module.SERVICE_QUERY_CONFIG
            self.called("QueryServiceConfig2")
            nothing = {"ResetPeriod": 0, "RebootMsg": "", "Command": "", "Actions": ()}
            return self.settings.get(level, nothing)

        def change(handle: str, level: int, value: Any) -> None:
            assert handle in self.open
            assert self.rights & module.SERVICE_CHANGE_CONFIG
            self.called("ChangeServiceConfig2")
            if level == module.SERVICE_CONFIG_FAILURE_ACTIONS:
                assert self.rights & module.SERVICE_START
            self.settings[level] = value

        module.SetServiceStatus = set_status
        module.OpenSCManager, module.OpenService = open_manager, open_service
        module.CloseServiceHandle = self.open.remove
        module.QueryServiceConfig2, module.ChangeServiceConfig2 = query, change

    def _servicemanager(self) -> None:
        module: Any = self._module("servicemanager")
        module.EVENTLOG_ERROR_TYPE, module.EVENTLOG_WARNING_TYPE = 1, 2

        def register(name: str, handler: object, extended: bool) -> str:
            assert extended
            self.handler = handler
            return "status handle"

        def initialize(source: str, file: object) -> None:
            assert file is None
            self.source = source

        def host(service: object) -> None:
            self.hosted = service

        def log(kind: int, event: int, inserts: tuple[str, ...]) -> None:
            # A C long of Windows.
            assert -(2**31) <= event < 2**31
            self.called("LogMsg")
            self.events.append((kind, event, *inserts))  # type: ignore[arg-type]

        module.RegisterServiceCtrlHandler = register
        module.Initialize, module.PrepareToHostSingle = initialize, host
        module.StartServiceCtrlDispatcher = lambda: self.called("StartServiceCtrlDispatcher")
        module.LogMsg = log

    def _pywintypes(self) -> None:
        module: Any = self._module("pywintypes")
        module.error = FakeWindowsError
