"""What XENIFACE, the driver that shows a Windows guest its XenStore, is asked and how it answers.

Source of codes, structures and rules: win-xeniface 9.1, include/xeniface_ioctls.h and src/xeniface/ioctl_store.c. The
structures are those of 64-bit Windows. Nothing here talks to a device.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from typing import Protocol

from agent_protocol.wire import MAX_PAYLOAD, Operation, check_path, check_watch, split_strings
from agent_protocol.xenstore import StoreError

READ = 0x222000
WRITE = 0x222004
DIRECTORY = 0x222008
REMOVE = 0x22200C
ADD_WATCH = 0x222014
REMOVE_WATCH = 0x222018

FIRST_OUTPUT = MAX_PAYLOAD + 2
"""Bytes offered for an answer at first: all that fits one packet of XenStore, and the NULs that the driver adds."""

WATCH_CONTEXT_SIZE = 8
"""Bytes of the PVOID that names a watch."""

ERROR_FILE_NOT_FOUND = 2
ERROR_PATH_NOT_FOUND = 3
ERROR_INVALID_HANDLE = 6
ERROR_NOT_READY = 21
ERROR_INVALID_PARAMETER = 87
ERROR_MORE_DATA = 234
ERROR_NO_SUCH_DEVICE = 433
ERROR_OPERATION_ABORTED = 995
ERROR_DEVICE_NOT_CONNECTED = 1167
ERROR_NOT_FOUND = 1168
ERROR_DEVICE_REMOVED = 1617
ERROR_INVALID_USER_BUFFER = 1784

GONE = {
    ERROR_INVALID_HANDLE: "its handle is no longer valid",
    ERROR_NOT_READY: "the driver has no connection to XenStore now",
    ERROR_NO_SUCH_DEVICE: "there is no such device any more",
    ERROR_OPERATION_ABORTED: "the driver gave up the call",
    ERROR_DEVICE_NOT_CONNECTED: "the device is not connected any more",
    ERROR_DEVICE_REMOVED: "the device was removed",
}
"""Errors after which nothing more can be had from this device; it has to be opened again."""

_CODES = {
    1: "ENOSYS",  # ERROR_INVALID_FUNCTION: also a call that an older driver does not know
    ERROR_FILE_NOT_FOUND: "ENOENT",
    ERROR_PATH_NOT_FOUND: "ENOENT",
    5: "EACCES",  # ERROR_ACCESS_DENIED
    8: "ENOMEM",  # ERROR_NOT_ENOUGH_MEMORY
    19: "EROFS",  # ERROR_WRITE_PROTECT
    50: "ENOSYS",  # ERROR_NOT_SUPPORTED
    80: "EEXIST",  # ERROR_FILE_EXISTS
    ERROR_INVALID_PARAMETER: "EINVAL",
    112: "ENOSPC",  # ERROR_DISK_FULL
    170: "EBUSY",  # ERROR_BUSY
    183: "EEXIST",  # ERROR_ALREADY_EXISTS
    231: "EBUSY",  # ERROR_PIPE_BUSY
    ERROR_NOT_FOUND: "ENOENT",
    1237: "EAGAIN",  # ERROR_RETRY
    1450: "ENOSPC",  # ERROR_NO_SYSTEM_RESOURCES
    ERROR_INVALID_USER_BUFFER: "EINVAL",
    1816: "EQUOTA",  # ERROR_NOT_ENOUGH_QUOTA
    5010: "EEXIST",  # ERROR_OBJECT_ALREADY_EXISTS
}
"""The errno's name for what Windows makes of an NTSTATUS that the driver makes of an errno (win-xenbus,
include/xen-errno.h, ERRNO_TO_STATUS). E2BIG gets lost on that way: it comes as ERROR_GEN_FAILURE, as others do."""

_ADD_WATCH_IN = struct.Struct("<QI4xQ")
"""XENIFACE_STORE_ADD_WATCH_IN: PCHAR Path, ULONG PathLength with the NUL, HANDLE Event."""

_CONTEXT = struct.Struct("<Q")


class DeviceError(Exception):
    """Raised when a call to Windows fails. winerror: what GetLastError says. needed: bytes that the answer has."""

    def __init__(self, winerror: int, needed: int = 0) -> None:
        super().__init__(f"Windows error {winerror}")
        self.winerror = winerror
        self.needed = needed


class Device(Protocol):
    """An open XENIFACE device and the events of Windows that its watches set. Every method may raise DeviceError.

    Handles are plain numbers. Several threads may use it; none may use what another one has closed.
    """

    def ioctl(self, code: int, data: bytes, out_size: int) -> bytes:
        """DeviceIoControl: what the driver answered, at most `out_size` bytes."""

    def new_event(self) -> int:
        """A new event, unset, that resets itself when one wait has seen it."""

    def set_event(self, event: int) -> None:
        """Set it."""

    def close_event(self, event: int) -> None:
        """Close it."""

    def wait(self, events: Sequence[int], timeout: float | None) -> int | None:
        """The index of the first event that is set, None after `timeout` seconds. At most MAXIMUM_WAIT_OBJECTS."""

    def close(self) -> None:
        """Close the device. The driver then removes all that this handle had."""


def check_printable(operation: Operation, path: str, value: bytes = b"") -> None:
    """StoreError EINVAL unless path and value are what the driver lets through: printable ASCII (isprint)."""
    if not (path.isascii() and path.isprintable() and value.isascii() and value.decode("ascii").isprintable()):
        raise StoreError(operation, path, "EINVAL")


def path_call(operation: Operation, path: str) -> bytes:
    """The input of READ, DIRECTORY and REMOVE. StoreError EINVAL as above, WireError for a path that can be none."""
    check_printable(operation, path)
    return check_path(path).encode("ascii") + b"\0"


def write_call(path: str, value: bytes) -> bytes:
    """The input of WRITE. StoreError E2BIG when it fits no packet: the daemon would cut off the whole guest."""
    check_printable(Operation.WRITE, path, value)
    name = check_path(path).encode("ascii") + b"\0"
    if len(name) + len(value) > MAX_PAYLOAD:
        raise StoreError(Operation.WRITE, path, "E2BIG")
    return name + value + b"\0\0"


def watch_text(operation: Operation, path: str) -> ctypes.Array[ctypes.c_char]:
    """The path of a watch as memory that the driver reads; it must live until the call has returned."""
    check_printable(operation, path)
    return ctypes.create_string_buffer(check_watch(path).encode("ascii"))


def add_watch_call(text: ctypes.Array[ctypes.c_char], event: int) -> bytes:
    """The input of ADD_WATCH: the driver sets `event` at each change below the path in `text`."""
    return _ADD_WATCH_IN.pack(ctypes.addressof(text), len(text), event)


def remove_watch_call(context: int) -> bytes:
    """The input of REMOVE_WATCH."""
    return _CONTEXT.pack(context)


def parse_value(path: str, untrusted: bytes) -> bytes:
    """The value in READ's output. StoreError EIO when it does not end."""
    value, end, _ = untrusted.partition(b"\0")
    if not end:
        raise StoreError(Operation.READ, path, "EIO")
    return value


def parse_names(path: str, untrusted: bytes) -> list[str]:
    """The names in DIRECTORY's output. StoreError EIO when the list does not end."""
    names = split_strings(untrusted)
    if b"" not in names:
        raise StoreError(Operation.DIRECTORY, path, "EIO")
    return [name.decode("utf-8", "replace") for name in names[: names.index(b"")]]


def parse_context(path: str, untrusted: bytes) -> int:
    """The context in ADD_WATCH's output. StoreError EIO when it is none."""
    if len(untrusted) != WATCH_CONTEXT_SIZE:
        raise StoreError(Operation.WATCH, path, "EIO")
    context: int = _CONTEXT.unpack(untrusted)[0]
    return context


def errno_name(error: DeviceError) -> str:
    """The name of the errno that the driver's error stands for; EIO for one that stands for none."""
    return _CODES.get(error.winerror, "EIO")
