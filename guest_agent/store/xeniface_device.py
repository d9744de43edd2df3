# mypy: disable-error-code="unreachable"
"""The XENIFACE device itself: the calls to Windows, and nothing else.

Source of functions, structures and constants: the Windows SDK's setupapi.h, fileapi.h, ioapiset.h and synchapi.h.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("XENIFACE is a driver of Windows")

import ctypes
import math
from collections.abc import Sequence
from ctypes import wintypes

from agent_protocol.xenstore import StoreClosed

from .xeniface_calls import DeviceError

_INTERFACE = "{b2cfb085-aa5e-47e1-8bf7-9793f3154565}"
"""GUID_INTERFACE_XENIFACE of win-xeniface's include/xeniface_ioctls.h."""

_DIGCF_PRESENT_DEVICEINTERFACE = 0x02 | 0x10
_GENERIC_READ_WRITE = 0x80000000 | 0x40000000
_FILE_SHARE_READ_WRITE = 0x1 | 0x2
_OPEN_EXISTING = 3
_WAIT_TIMEOUT = 0x102
_WAIT_FAILED = 0xFFFFFFFF
_INFINITE = 0xFFFFFFFF
_LONGEST_WAIT = 0xFFFFFFFE
_INVALID_HANDLE = ctypes.c_void_p(-1).value

_ERROR_ACCESS_DENIED = 5
_ERROR_INVALID_USER_BUFFER = 1784


class _Guid(ctypes.Structure):
    _fields_ = (
        ("Data1", wintypes.DWORD),
        ("Data2", wintypes.WORD),
        ("Data3", wintypes.WORD),
        ("Data4", ctypes.c_ubyte * 8),
    )


class _DeviceInterfaceData(ctypes.Structure):
    """SP_DEVICE_INTERFACE_DATA: 32 bytes."""

    _fields_ = (
        ("cbSize", wintypes.DWORD),
        ("InterfaceClassGuid", _Guid),
        ("Flags", wintypes.DWORD),
        ("Reserved", ctypes.c_size_t),
    )


_DETAIL_SIZE = 8
"""What SP_DEVICE_INTERFACE_DETAIL_DATA_W.cbSize must say on 64-bit Windows, however long its path is."""

_DETAIL_PATH = 4
"""Where in it the path begins, in bytes."""

_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_setupapi = ctypes.WinDLL("setupapi", use_last_error=True)
_ole32 = ctypes.WinDLL("ole32")

_CLSIDFromString = _ole32.CLSIDFromString
_CLSIDFromString.argtypes = (wintypes.LPCWSTR, ctypes.POINTER(_Guid))
_CLSIDFromString.restype = ctypes.c_long

_SetupDiGetClassDevs = _setupapi.SetupDiGetClassDevsW
_SetupDiGetClassDevs.argtypes = (ctypes.POINTER(_Guid), wintypes.LPCWSTR, wintypes.HWND, wintypes.DWORD)
_SetupDiGetClassDevs.restype = wintypes.HANDLE

_SetupDiEnumDeviceInterfaces = _setupapi.SetupDiEnumDeviceInterfaces
_SetupDiEnumDeviceInterfaces.argtypes = (
    wintypes.HANDLE,
    ctypes.c_void_p,
    ctypes.POINTER(_Guid),
    wintypes.DWORD,
    ctypes.POINTER(_DeviceInterfaceData),
)
_SetupDiEnumDeviceInterfaces.restype = wintypes.BOOL

_SetupDiGetDeviceInterfaceDetail = _setupapi.SetupDiGetDeviceInterfaceDetailW
_SetupDiGetDeviceInterfaceDetail.argtypes = (
    wintypes.HANDLE,
    ctypes.POINTER(_DeviceInterfaceData),
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.POINTER(wintypes.DWORD),
    ctypes.c_void_p,
)
_SetupDiGetDeviceInterfaceDetail.restype = wintypes.BOOL

_SetupDiDestroyDeviceInfoList = _setupapi.SetupDiDestroyDeviceInfoList
_SetupDiDestroyDeviceInfoList.argtypes = (wintypes.HANDLE,)
_SetupDiDestroyDeviceInfoList.restype = wintypes.BOOL

_CreateFile = _kernel32.CreateFileW
_CreateFile.argtypes = (
    wintypes.LPCWSTR,
    wintypes.DWORD,
    wintypes.DWORD,
    ctypes.c_void_p,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.HANDLE,
)
_CreateFile.restype = wintypes.HANDLE

_DeviceIoControl = _kernel32.DeviceIoControl
_DeviceIoControl.argtypes = (
    wintypes.HANDLE,
    wintypes.DWORD,
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.POINTER(wintypes.DWORD),
    ctypes.c_void_p,
)
_DeviceIoControl.restype = wintypes.BOOL

_CreateEvent = _kernel32.CreateEventW
_CreateEvent.argtypes = (ctypes.c_void_p, wintypes.BOOL, wintypes.BOOL, wintypes.LPCWSTR)
_CreateEvent.restype = wintypes.HANDLE

_SetEvent = _kernel32.SetEvent
_SetEvent.argtypes = (wintypes.HANDLE,)
_SetEvent.restype = wintypes.BOOL

_WaitForMultipleObjects = _kernel32.WaitForMultipleObjects
_WaitForMultipleObjects.argtypes = (
    wintypes.DWORD,
    ctypes.POINTER(wintypes.HANDLE),
    wintypes.BOOL,
    wintypes.DWORD,
)
_WaitForMultipleObjects.restype = wintypes.DWORD

_CloseHandle = _kernel32.CloseHandle
_CloseHandle.argtypes = (wintypes.HANDLE,)
_CloseHandle.restype = wintypes.BOOL


class XenifaceDevice:
    """An open device; a xeniface_calls.Device. Its calls wait for each other: the handle is a synchronous one."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def ioctl(self, code: int, data: bytes, out_size: int) -> bytes:
        """DeviceIoControl."""
        given = ctypes.create_string_buffer(data, len(data))
        answer = ctypes.create_string_buffer(out_size) if out_size else None
        returned = wintypes.DWORD(0)
        if not _DeviceIoControl(self._handle, code, given, len(data), answer, out_size, ctypes.byref(returned), None):
            raise DeviceError(ctypes.get_last_error(), returned.value)
        if answer is None:
            return b""
        if returned.value > out_size:
            raise DeviceError(_ERROR_INVALID_USER_BUFFER, returned.value)
        return answer.raw[: returned.value]

    def new_event(self) -> int:
        """CreateEvent, with automatic reset."""
        event = _CreateEvent(None, False, False, None)
        if not event:
            raise DeviceError(ctypes.get_last_error())
        return int(event)

    def set_event(self, event: int) -> None:
        """SetEvent."""
        _check(_SetEvent(event))

    def close_event(self, event: int) -> None:
        """CloseHandle."""
        _check(_CloseHandle(event))

    def wait(self, events: Sequence[int], timeout: float | None) -> int | None:
        """WaitForMultipleObjects, for any of them."""
        # Rounded up, or the last fraction of a millisecond would be spent spinning.
        milliseconds = _INFINITE if timeout is None else min(math.ceil(timeout * 1000), _LONGEST_WAIT)
        handles = (wintypes.HANDLE * len(events))(*events)
        result = _WaitForMultipleObjects(len(events), handles, False, milliseconds)
        if result < len(events):
            return int(result)
        if result == _WAIT_TIMEOUT:
            return None
        raise DeviceError(ctypes.get_last_error() if result == _WAIT_FAILED else int(result))

    def close(self) -> None:
        """CloseHandle."""
        _check(_CloseHandle(self._handle))


def open_device() -> XenifaceDevice:
    """The guest's XENIFACE device. StoreClosed when there is none, or when this account may not open it."""
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        raise StoreClosed("XENIFACE needs a 64-bit Python")
    try:
        paths = _device_paths()
    except DeviceError as error:
        raise StoreClosed(f"the XENIFACE device cannot be looked for: {error}") from None
    if not paths:
        raise StoreClosed("there is no XENIFACE device: the Xen guest drivers are not installed, or not started")
    handle = _CreateFile(paths[0], _GENERIC_READ_WRITE, _FILE_SHARE_READ_WRITE, None, _OPEN_EXISTING, 0, None)
    if handle is None or handle == _INVALID_HANDLE:
        code = ctypes.get_last_error()
        hint = "; only SYSTEM and Administrators may" if code == _ERROR_ACCESS_DENIED else ""
        raise StoreClosed(f"the XENIFACE device cannot be opened: Windows error {code}{hint}")
    return XenifaceDevice(int(handle))


def _device_paths() -> list[str]:
    interface = _Guid()
    if _CLSIDFromString(_INTERFACE, ctypes.byref(interface)) != 0:
        raise DeviceError(_ERROR_INVALID_USER_BUFFER)
    devices = _SetupDiGetClassDevs(ctypes.byref(interface), None, None, _DIGCF_PRESENT_DEVICEINTERFACE)
    if devices is None or devices == _INVALID_HANDLE:
        raise DeviceError(ctypes.get_last_error())
    try:
        paths: list[str] = []
        found = _DeviceInterfaceData(cbSize=ctypes.sizeof(_DeviceInterfaceData))
        while _SetupDiEnumDeviceInterfaces(devices, None, ctypes.byref(interface), len(paths), ctypes.byref(found)):
            paths.append(_path_of(devices, found))
        return paths
    finally:
        _SetupDiDestroyDeviceInfoList(devices)


def _path_of(devices: int, found: _DeviceInterfaceData) -> str:
    size = wintypes.DWORD(0)
    # Without room it fails, and tells how much it needs.
    _SetupDiGetDeviceInterfaceDetail(devices, ctypes.byref(found), None, 0, ctypes.byref(size), None)
    if size.value <= _DETAIL_PATH:
        raise DeviceError(ctypes.get_last_error())
    detail = ctypes.create_string_buffer(max(size.value, _DETAIL_SIZE) + ctypes.sizeof(ctypes.c_wchar))
    ctypes.cast(detail, ctypes.POINTER(wintypes.DWORD))[0] = _DETAIL_SIZE
    _check(_SetupDiGetDeviceInterfaceDetail(devices, ctypes.byref(found), detail, size.value, ctypes.byref(size), None))
    return ctypes.wstring_at(ctypes.addressof(detail) + _DETAIL_PATH)


def _check(succeeded: int) -> None:
    if not succeeded:
        raise DeviceError(ctypes.get_last_error())
