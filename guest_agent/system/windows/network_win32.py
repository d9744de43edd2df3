"""The calls behind network_windows.RunningNetwork: WMI by its scripting objects, through pywin32."""

# ruff: noqa: E402 - the checks of types are to stop where Windows is not
from __future__ import annotations

import sys

assert sys.platform == "win32", "this module calls Windows"

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pythoncom
import pywintypes
import win32com.client

from agent_protocol.outcomes import Failed

from .api import Windows
from .network_cim import AF_INET, IP_INTERFACE, Row
from .network_windows import RunningNetwork

_STANDARD, _CLASSIC = "root\\StandardCimv2", "root\\cimv2"
_CONFIGURATION = "Win32_NetworkAdapterConfiguration"

_READ_ONCE = 0x30
"""wbemFlagForwardOnly and wbemFlagReturnImmediately."""

_REBOOT_NEEDED = 1
"""Beside 0, what methods of Win32_NetworkAdapterConfiguration return when they succeeded."""


def network(windows: Windows) -> RunningNetwork:
    """That of the running Windows."""
    return RunningNetwork(_Wmi(), windows.registry, windows.run, windows.machine.system_directory())


class _Wmi:
    """A network_cim.Cim. Each call connects anew, so that any thread can make it."""

    def rows(self, class_name: str, index: int | None = None, *, stored: bool = False) -> Sequence[Row]:
        """By SWbemServices.ExecQuery; PolicyStore goes with it as context, which WMI hands on to the provider."""
        with _service(_STANDARD) as service:
            context = win32com.client.Dispatch("WbemScripting.SWbemNamedValueSet")
            if stored:
                context.Add("PolicyStore", "PersistentStore")
            found = service.ExecQuery(_query(class_name, index), "WQL", _READ_ONCE, context)
            return [{each.Name: each.Value for each in row.Properties_} for row in found]

    def disable_dhcp(self, index: int) -> None:
        """By SWbemObject.Put_."""
        with _service(_STANDARD) as service:
            for row in service.ExecQuery(_query(IP_INTERFACE, index)):
                if row.Properties_("AddressFamily").Value == AF_INET:
                    row.Properties_("Dhcp").Value = 0
                    row.Put_()

    def set_suffix(self, index: int, suffix: str) -> None:
        """By the method of the adapter's object."""
        with _service(_CLASSIC) as service:
            for row in service.ExecQuery(_query(_CONFIGURATION, index)):
                _call(row, "SetDNSDomain", "DNSDomain", suffix)

    def set_search_list(self, domains: Sequence[str]) -> None:
        """By the method of the class."""
        with _service(_CLASSIC) as service:
            method, parameter = "SetDNSSuffixSearchOrder", "DNSDomainSuffixSearchOrder"
            _call(service.Get(_CONFIGURATION), method, parameter, list(domains))


def _query(class_name: str, index: int | None) -> str:
    condition = "" if index is None else f" WHERE InterfaceIndex = {index:d}"
    return f"SELECT * FROM {class_name}{condition}"  # noqa: S608  # a name of ours and a number


@contextmanager
def _service(namespace: str) -> Iterator[Any]:
    # Without CoUninitialize: what the caller still holds would be released after it.
    pythoncom.CoInitialize()
    try:
        yield win32com.client.Dispatch("WbemScripting.SWbemLocator").ConnectServer(".", namespace)
    except pywintypes.com_error as error:
        raise Failed("network_failed", f"WMI ended with {error.hresult & 0xFFFFFFFF:#010x} in {namespace}") from None


def _call(target: Any, method: str, parameter: str, value: object) -> None:
    parameters = target.Methods_(method).InParameters.SpawnInstance_()
    parameters.Properties_(parameter).Value = value
    returned = target.ExecMethod_(method, parameters).Properties_("ReturnValue").Value
    if returned not in (0, _REBOOT_NEEDED):
        raise Failed("network_failed", f"{method} of WMI returned {returned}")
