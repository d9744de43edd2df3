"""The directories that Windows knows by an identifier, shlobj_core.h."""

# ruff: noqa: E402 - the checks of types are to stop where Windows is not
from __future__ import annotations

import sys

assert sys.platform == "win32", "this module calls Windows"

import ctypes
import uuid
from ctypes import wintypes

_PROGRAM_DATA = uuid.UUID("62ab5d82-fdc1-4dc3-a9dd-070d1d495d97")
"""FOLDERID_ProgramData, knownfolders.h."""

_DONT_VERIFY = 0x4000
"""KF_FLAG_DONT_VERIFY: where it is, whether it is there or not."""


def program_data() -> str:
    """Where programs keep data that belongs to no user. OSError when the system does not tell."""
    identifier = (ctypes.c_ubyte * 16).from_buffer_copy(_PROGRAM_DATA.bytes_le)
    found = ctypes.c_void_p()
    function = ctypes.WinDLL("shell32").SHGetKnownFolderPath
    function.argtypes = [ctypes.c_void_p, wintypes.DWORD, wintypes.HANDLE, ctypes.POINTER(ctypes.c_void_p)]
    function.restype = ctypes.HRESULT
    free = ctypes.WinDLL("ole32").CoTaskMemFree
    free.argtypes = [ctypes.c_void_p]
    free.restype = None
    try:
        function(identifier, _DONT_VERIFY, None, ctypes.byref(found))
        return ctypes.wstring_at(found.value or 0)
    finally:
        free(found)
