"""The device of XENIFACE, opened in Windows with nothing but ctypes: what the driver's tests speak to it through.

Its own code, not the agent's: that is tried against this driver, so the driver is not tried by it.
"""

from __future__ import annotations

import ctypes
import struct
import uuid
from ctypes import wintypes
from typing import Any, cast

READ, WRITE, DIRECTORY, REMOVE, SET_PERMISSIONS, ADD_WATCH, REMOVE_WATCH = range(0x222000, 0x22201C, 4)

_GUID = uuid.UUID("b2cfb085-aa5e-47e1-8bf7-9793f3154565").bytes_le
_PRESENT_INTERFACES = 0x12

_kernel = cast(Any, ctypes).WinDLL("kernel32", use_last_error=True)
_setup = cast(Any, ctypes).WinDLL("setupapi", use_last_error=True)


class _Interface(ctypes.Structure):
    _fields_ = [
        ("size", wintypes.DWORD),
        ("guid", ctypes.c_char * 16),
        ("flags", wintypes.DWORD),
        ("reserved", ctypes.c_void_p),
    ]


def path() -> str:
    """Where the interface is. OSError when there is none."""
    guid = ctypes.create_string_buffer(_GUID, 16)
    _setup.SetupDiGetClassDevsW.restype = wintypes.HANDLE
    devices = wintypes.HANDLE(_setup.SetupDiGetClassDevsW(guid, None, None, _PRESENT_INTERFACES))
    found = _Interface(ctypes.sizeof(_Interface))
    _check(_setup.SetupDiEnumDeviceInterfaces(devices, None, guid, 0, ctypes.byref(found)))
    detail = ctypes.create_string_buffer(1024)
    struct.pack_into("=I", detail, 0, 8)
    _check(_setup.SetupDiGetDeviceInterfaceDetailW(devices, ctypes.byref(found), detail, 1024, None, None))
    return ctypes.wstring_at(ctypes.addressof(detail) + 4)


class Device:
    """An open device. Requests give what the driver answered: bytes, or its error's number, or that and the length."""

    def __init__(self) -> None:
        _kernel.CreateFileW.restype = wintypes.HANDLE
        self._handle = wintypes.HANDLE(_kernel.CreateFileW(path(), 0xC0000000, 3, None, 3, 0, None))
        _check(self._handle.value not in (None, wintypes.HANDLE(-1).value))

    def ask(self, code: int, given: bytes, room: int = 0) -> bytes | int | tuple[int, int]:
        buffer, length = ctypes.create_string_buffer(room) if room else None, wintypes.DWORD()
        done = _kernel.DeviceIoControl(self._handle, code, given, len(given), buffer, room, ctypes.byref(length), None)
        if done:
            return buffer.raw[: length.value] if buffer is not None else b""
        error = int(cast(Any, ctypes).get_last_error())
        return (error, length.value) if length.value else error

    def watch(self, name: bytes, event: int, size: int = 24) -> bytes | int | tuple[int, int]:
        text = ctypes.create_string_buffer(name)
        given = struct.pack("=QIxxxxQ", ctypes.addressof(text), len(name) + 1, event)
        return self.ask(ADD_WATCH, given[:size].ljust(size, b"\0"), 8)

    def permit(self, name: bytes, *entries: tuple[int, int]) -> bytes | int | tuple[int, int]:
        text = ctypes.create_string_buffer(name)
        given = struct.pack("=QII", ctypes.addressof(text), len(name) + 1, len(entries))
        return self.ask(SET_PERMISSIONS, given + b"".join(struct.pack("=Hxxi", *entry) for entry in entries))

    def close(self) -> None:
        _kernel.CloseHandle(self._handle)


def event() -> int:
    """A new event, which resets itself."""
    _kernel.CreateEventW.restype = wintypes.HANDLE
    return int(_kernel.CreateEventW(None, False, False, None))


def fired(handle: int, milliseconds: int = 10000) -> bool:
    """Whether an event was set, or is within that time."""
    return int(_kernel.WaitForSingleObject(wintypes.HANDLE(handle), milliseconds)) == 0


def _check(succeeded: object) -> None:
    if not succeeded:
        raise OSError(cast(Any, ctypes).get_last_error(), "the device cannot be opened")
