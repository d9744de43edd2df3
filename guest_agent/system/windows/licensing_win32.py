"""Whether Windows is activated, through the Software Licensing Client."""

# ruff: noqa: E402 - the checks of types are to stop where Windows is not
from __future__ import annotations

import sys

assert sys.platform == "win32", "this module calls Windows"

import ctypes
import uuid
from ctypes import wintypes

from .calls_win32 import check

_WINDOWS = uuid.UUID("55c92734-d682-4d71-983e-d6ec3f16059f")
"""The application ID of Windows itself: WINDOWS_SLID, slpublic.h."""

_LICENSED = 1
"""SL_LICENSING_STATUS_LICENSED, slpublic.h."""


class _LicensingStatus(ctypes.Structure):
    """SL_LICENSING_STATUS."""

    _fields_ = [
        ("sku", ctypes.c_ubyte * 16),
        ("status", ctypes.c_int),
        ("grace_minutes", wintypes.DWORD),
        ("total_grace_days", wintypes.DWORD),
        ("reason", ctypes.c_long),
        ("expiration", ctypes.c_uint64),
    ]


def licensed() -> bool:
    """Whether one of the editions of Windows that have a product key here is licensed."""
    library = ctypes.WinDLL("slc")
    handle = ctypes.c_void_p()
    count = wintypes.UINT()
    statuses = ctypes.POINTER(_LicensingStatus)()
    application = (ctypes.c_ubyte * 16).from_buffer_copy(_WINDOWS.bytes_le)
    check("SLOpen", library.SLOpen(ctypes.byref(handle)))
    try:
        number = library.SLGetLicensingStatusInformation(
            handle, application, None, None, ctypes.byref(count), ctypes.byref(statuses)
        )
        check("SLGetLicensingStatusInformation", number)
        try:
            return any(statuses[index].status == _LICENSED for index in range(count.value))
        finally:
            free = ctypes.WinDLL("kernel32").LocalFree
            free.argtypes = [ctypes.c_void_p]
            free(statuses)
    finally:
        library.SLClose(handle)
