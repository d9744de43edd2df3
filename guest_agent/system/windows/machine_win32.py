"""The machine as a whole, through ntdll, kernel32 and netapi32."""

# ruff: noqa: E402 - the checks of types are to stop where Windows is not
from __future__ import annotations

import sys

assert sys.platform == "win32", "this module calls Windows"

import ctypes
from collections.abc import Sequence
from ctypes import wintypes

import win32api
import win32net

from . import adapters_win32, licensing_win32
from .api import Adapter
from .calls_win32 import calls, check, check_last

_COMPUTER_NAME_DNS_HOSTNAME = 1
_COMPUTER_NAME_PHYSICAL_DNS_HOSTNAME = 5
"""COMPUTER_NAME_FORMAT, sysinfoapi.h."""

_NET_SETUP_DOMAIN_NAME = 3
"""NETSETUP_JOIN_STATUS, lmjoin.h."""

_SYSTEM_TIME_OF_DAY_INFORMATION = 3
"""SYSTEM_INFORMATION_CLASS, winternl.h."""


class _Version(ctypes.Structure):
    """OSVERSIONINFOW."""

    _fields_ = [
        ("size", wintypes.ULONG),
        ("major", wintypes.ULONG),
        ("minor", wintypes.ULONG),
        ("build", wintypes.ULONG),
        ("platform", wintypes.ULONG),
        ("service_pack", wintypes.WCHAR * 128),
    ]


class _TimeOfDay(ctypes.Structure):
    """SYSTEM_TIMEOFDAY_INFORMATION. When the clock is set, boot_time and boot_time_bias change by the same."""

    _fields_ = [
        ("boot_time", ctypes.c_int64),
        ("current_time", ctypes.c_int64),
        ("time_zone_bias", ctypes.c_int64),
        ("time_zone", wintypes.ULONG),
        ("reserved", wintypes.ULONG),
        ("boot_time_bias", ctypes.c_int64),
        ("sleep_time_bias", ctypes.c_int64),
    ]


class Win32Machine:
    """api.Machine."""

    def version(self) -> tuple[int, int, int]:
        """By RtlGetVersion, which tells everybody the same."""
        found = _Version(ctypes.sizeof(_Version))
        check("RtlGetVersion", ctypes.WinDLL("ntdll").RtlGetVersion(ctypes.byref(found)))
        return found.major, found.minor, found.build

    def boot_time(self) -> int:
        """By NtQuerySystemInformation."""
        found = _TimeOfDay()
        function = ctypes.WinDLL("ntdll").NtQuerySystemInformation
        check(
            "NtQuerySystemInformation",
            function(_SYSTEM_TIME_OF_DAY_INFORMATION, ctypes.byref(found), ctypes.sizeof(found), None),
        )
        return int(found.boot_time - found.boot_time_bias)

    def hostname(self) -> str:
        """By GetComputerNameEx."""
        with calls():
            return str(win32api.GetComputerNameEx(_COMPUTER_NAME_DNS_HOSTNAME))

    def set_hostname(self, name: str) -> None:
        """By SetComputerNameEx."""
        function = ctypes.WinDLL("kernel32", use_last_error=True).SetComputerNameExW
        function.argtypes = [ctypes.c_int, wintypes.LPCWSTR]
        check_last("SetComputerNameEx", function(_COMPUTER_NAME_PHYSICAL_DNS_HOSTNAME, name))

    def in_domain(self) -> bool:
        """By NetGetJoinInformation."""
        with calls():
            return bool(win32net.NetGetJoinInformation()[1] == _NET_SETUP_DOMAIN_NAME)

    def adapters(self) -> Sequence[Adapter]:
        """By GetAdaptersAddresses."""
        return adapters_win32.adapters()

    def system_directory(self) -> str:
        """By GetSystemDirectory."""
        with calls():
            return str(win32api.GetSystemDirectory())

    def licensed(self) -> bool:
        """By SLGetLicensingStatusInformation."""
        return licensing_win32.licensed()
