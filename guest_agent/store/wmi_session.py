# mypy: disable-error-code="unreachable, import-untyped"
"""WMI itself, by pywin32: the calls to Windows, and nothing else.

Source: the Windows SDK's "Scripting API for WMI" (SWbemLocator, SWbemServices, SWbemObject, SWbemEventSource).
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("WMI is a part of Windows")

import contextlib
import gc
from collections.abc import Iterator, Mapping
from typing import Any

import pythoncom
import pywintypes
import win32api
import win32con
import win32event
import winerror
from win32com.client import dynamic

from .wmi_connection import WmiError

_NAMESPACE = "root\\wmi"
_IMPERSONATE = 3
"""wbemImpersonationLevelImpersonate: what providers ask for."""

_FORWARD_ONLY_AT_ONCE = 0x30
"""wbemFlagForwardOnly and wbemFlagReturnImmediately: what ExecNotificationQuery asks for."""

_TIMED_OUT = 0x80043001
"""wbemErrTimedout."""

_NOT_FOUND = 0x80041002
"""WBEM_E_NOT_FOUND."""


class ComConnection:
    """A connection to root\\wmi; a wmi_connection.WmiConnection."""

    def __init__(self) -> None:
        self._services: Any = _connect()
        self._objects: dict[tuple[str, int], Any] = {}

    def add_session(self, prefix: str, name: str) -> int:
        """AddSession of the one instance of the base class."""
        with _errors():
            for base in self._services.InstancesOf(f"{prefix}XenStoreBase"):
                return int(_execute(base, "AddSession", {"Id": name})["SessionId"])
        raise WmiError(_NOT_FOUND)

    def sessions(self, prefix: str) -> list[tuple[int, str]]:
        """The instances of the session class."""
        with _errors():
            found = self._services.InstancesOf(f"{prefix}XenStoreSession")
            return [(int(_property(session, "SessionId")), str(_property(session, "Id"))) for session in found]

    def call(self, prefix: str, session: int, method: str, arguments: Mapping[str, str]) -> Mapping[str, object]:
        """ExecMethod_ of the instance of this number."""
        with _errors():
            return _execute(self._object(prefix, session), method, arguments)

    def close(self) -> None:
        """Let go of all objects, then of COM."""
        self._objects.clear()
        self._services = None
        _leave_com()

    def _object(self, prefix: str, session: int) -> Any:
        key = (prefix, session)
        if key not in self._objects:
            query = f"SELECT * FROM {prefix}XenStoreSession WHERE SessionId = {session}"  # noqa: S608
            for found in self._services.ExecQuery(query):
                self._objects[key] = found
                break
            else:
                raise WmiError(_NOT_FOUND)
        return self._objects[key]


class ComEvents:
    """The events of all watches; a wmi_connection.WmiEvents."""

    def __init__(self, prefix: str) -> None:
        services = _connect()
        try:
            query = f"SELECT * FROM {prefix}XenStoreWatchEvent"  # noqa: S608
            with _errors():
                self._source: Any = services.ExecNotificationQuery(query, "WQL", _FORWARD_ONLY_AT_ONCE)
        except BaseException:
            del services
            _leave_com()
            raise

    def next(self, timeout: float) -> str | None:
        """NextEvent."""
        try:
            with _errors():
                return str(_property(self._source.NextEvent(int(timeout * 1000)), "EventId"))
        except WmiError as error:
            if error.hresult != _TIMED_OUT:
                raise
            return None

    def close(self) -> None:
        """Let go of the query, then of COM."""
        self._source = None
        _leave_com()


class ComService:
    """This machine's WMI; a wmi_connection.WmiService."""

    def connect(self) -> ComConnection:
        """A connection for the thread that calls."""
        return ComConnection()

    def subscribe(self, prefix: str) -> ComEvents:
        """The events for the thread that calls."""
        return ComEvents(prefix)


def process_is_running(number: int) -> bool:
    """Whether a process of this number runs."""
    try:
        process = win32api.OpenProcess(win32con.SYNCHRONIZE, False, number)
    except pywintypes.error as error:
        # 0 and numbers of nobody are invalid. What may not be opened is there.
        return bool(error.winerror != winerror.ERROR_INVALID_PARAMETER)
    try:
        return bool(win32event.WaitForSingleObject(process, 0) == win32event.WAIT_TIMEOUT)
    finally:
        process.Close()


def _connect() -> Any:
    with _errors():
        pythoncom.CoInitializeEx(pythoncom.COINIT_MULTITHREADED)
        try:
            # Not win32com.client.Dispatch, which would look for generated modules in a directory of the user's.
            services = dynamic.Dispatch("WbemScripting.SWbemLocator").ConnectServer(".", _NAMESPACE)
            services.Security_.ImpersonationLevel = _IMPERSONATE
            return services
        except BaseException:
            pythoncom.CoUninitialize()
            raise


def _leave_com() -> None:
    # An object that is let go of later would call into a COM that is gone.
    gc.collect()
    pythoncom.CoUninitialize()


def _execute(instance: Any, method: str, arguments: Mapping[str, str]) -> dict[str, Any]:
    given = None
    if arguments:
        # A method called by its name gives back no out parameters: pywin32 takes them for more arguments.
        given = instance.Methods_(method).InParameters.SpawnInstance_()
        for name, value in arguments.items():
            given.Properties_(name).Value = value
    answer = instance.ExecMethod_(method, given) if given is not None else instance.ExecMethod_(method)
    if answer is None:
        return {}
    return {str(each.Name): _plain(each.Value) for each in answer.Properties_}


def _plain(value: Any) -> Any:
    # GetChildren answers with an object of the class XenStoreNodes.
    if hasattr(value, "Properties_"):
        return [str(node) for node in _property(value, "ChildNodes") or ()]
    return value


def _property(instance: Any, name: str) -> Any:
    return instance.Properties_(name).Value


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except pywintypes.com_error as error:
        hresult = error.hresult
        # An error of the called object hides behind DISP_E_EXCEPTION.
        if hresult == winerror.DISP_E_EXCEPTION and error.excepinfo and error.excepinfo[5]:
            hresult = error.excepinfo[5]
        raise WmiError(hresult & 0xFFFFFFFF) from None
