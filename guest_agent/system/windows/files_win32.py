"""Files and directories, through kernel32, with their security through advapi32."""

# ruff: noqa: E402 - the checks of types are to stop where Windows is not
from __future__ import annotations

import sys

assert sys.platform == "win32", "this module calls Windows"

import contextlib
import ctypes
from collections.abc import Iterator
from ctypes import wintypes
from typing import Any

import ntsecuritycon
import pywintypes
import win32api
import win32con
import win32file
import win32security

from .api import CallError, Entry, Status
from .calls_win32 import calls, check_last
from .errors import MISSING

_LITERALLY = win32con.FILE_FLAG_BACKUP_SEMANTICS | win32file.FILE_FLAG_OPEN_REPARSE_POINT
"""Opens directories too, and a reparse point itself instead of what it leads to."""

_SHARE_ALL = win32con.FILE_SHARE_READ | win32con.FILE_SHARE_WRITE | win32con.FILE_SHARE_DELETE

_TOLD = win32security.OWNER_SECURITY_INFORMATION | win32security.DACL_SECURITY_INFORMATION

_ALLOWS = frozenset({0, 5, 9, 11})
"""ACCESS_ALLOWED_ACE_TYPE and its forms for objects and with conditions, winnt.h."""

_UNKNOWN = Entry(True, 0, 0xFFFFFFFF, "an entry that the agent cannot read")


class Win32Files:
    """api.Files. The agent may give files to anybody, as SYSTEM and administrators can."""

    def __init__(self) -> None:
        with calls():
            _enable(win32security.SE_RESTORE_NAME)

    def is_fixed(self, drive: str) -> bool:
        """By GetDriveType."""
        return bool(win32file.GetDriveType(drive + "\\") == win32con.DRIVE_FIXED)

    def hold(self, path: str, *, for_protection: bool = False) -> Win32Held:
        """Without FILE_SHARE_DELETE, which only counts for who opens more than attributes."""
        access = ntsecuritycon.FILE_LIST_DIRECTORY | win32con.READ_CONTROL | ntsecuritycon.FILE_READ_ATTRIBUTES
        if for_protection:
            access |= win32con.WRITE_DAC | win32con.WRITE_OWNER
        with calls():
            return Win32Held(_open(path, access, win32con.FILE_SHARE_READ | win32con.FILE_SHARE_WRITE))

    def look(self, path: str) -> Status | None:
        """By handle."""
        access = win32con.READ_CONTROL | ntsecuritycon.FILE_READ_ATTRIBUTES
        try:
            with calls(), _closing(_open(path, access, _SHARE_ALL)) as handle:
                return _status(handle)
        except CallError as error:
            if error.number in MISSING:
                return None
            raise

    def read(self, path: str, limit: int) -> tuple[Status, bytes] | None:
        """By one handle for both."""
        try:
            with calls(), _closing(_open(path, win32con.GENERIC_READ, _SHARE_ALL)) as handle:
                # One call is enough: of a file on a disk it reads all that there is.
                return _status(handle), bytes(win32file.ReadFile(handle, limit)[1])
        except CallError as error:
            if error.number in MISSING:
                return None
            raise

    def make_directory(self, path: str, dacl: str | None) -> None:
        """With its security from the first moment on."""
        with calls():
            win32file.CreateDirectoryW(path, _attributes(dacl))

    def create(self, path: str, content: bytes, *, dacl: str | None, owner: str | None) -> None:
        """Shared with nobody until it is closed."""
        access = win32con.GENERIC_WRITE | win32con.WRITE_OWNER | win32con.READ_CONTROL
        with calls():
            handle = win32file.CreateFile(
                path, access, 0, _attributes(dacl), win32con.CREATE_NEW, win32con.FILE_ATTRIBUTE_NORMAL, None
            )
            try:
                with _closing(handle):
                    _write(handle, content)
                    if owner is not None and owner != _status(handle).owner:
                        sid = win32security.ConvertStringSidToSid(owner)
                        _set_security(handle, win32security.OWNER_SECURITY_INFORMATION, sid, None)
                    win32file.FlushFileBuffers(handle)
            except BaseException:
                win32file.DeleteFile(path)
                raise

    def replace(self, path: str, replacement: str, backup: str) -> None:
        """By ReplaceFile. Not by pywin32's, which exchanges its first two arguments."""
        check_last("ReplaceFile", _replace_file()(path, replacement, backup, 0, None, None))

    def move(self, source: str, target: str, *, replace: bool) -> None:
        """By MoveFileEx."""
        flags = win32file.MOVEFILE_WRITE_THROUGH | (win32file.MOVEFILE_REPLACE_EXISTING if replace else 0)
        with calls():
            win32file.MoveFileExW(source, target, flags)

    def remove(self, path: str) -> None:
        """By DeleteFile."""
        with calls():
            win32file.DeleteFile(path)

    def remove_at_boot(self, path: str) -> None:
        """By MoveFileEx."""
        with calls():
            win32file.MoveFileExW(path, None, win32file.MOVEFILE_DELAY_UNTIL_REBOOT)

    def set_attributes(self, path: str, attributes: int) -> None:
        """By SetFileAttributes."""
        with calls():
            win32file.SetFileAttributesW(path, attributes)

    def flush(self, path: str) -> None:
        """By FlushFileBuffers, which for a file on NTFS has its name written too."""
        with calls(), _closing(_open(path, win32con.GENERIC_WRITE, _SHARE_ALL)) as handle:
            win32file.FlushFileBuffers(handle)


class Win32Held:
    """api.Held."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def status(self) -> Status:
        """By handle."""
        with calls():
            return _status(self._handle)

    def protect(self, owner: str, dacl: str) -> None:
        """The list first: an owner can always change it."""
        protected = win32security.DACL_SECURITY_INFORMATION | win32security.PROTECTED_DACL_SECURITY_INFORMATION
        with calls():
            _set_security(self._handle, protected, None, _descriptor(dacl).GetSecurityDescriptorDacl())
            sid = win32security.ConvertStringSidToSid(owner)
            _set_security(self._handle, win32security.OWNER_SECURITY_INFORMATION, sid, None)

    def close(self) -> None:
        """By CloseHandle."""
        with calls():
            self._handle.Close()


@contextlib.contextmanager
def _closing(handle: Any) -> Iterator[Any]:
    try:
        yield handle
    finally:
        handle.Close()


def _open(path: str, access: int, share: int) -> Any:
    return win32file.CreateFile(path, access, share, None, win32con.OPEN_EXISTING, _LITERALLY, None)


def _replace_file() -> Any:
    function = ctypes.WinDLL("kernel32", use_last_error=True).ReplaceFileW
    function.argtypes = [wintypes.LPCWSTR] * 3 + [wintypes.DWORD, ctypes.c_void_p, ctypes.c_void_p]
    return function


def _write(handle: Any, content: bytes) -> None:
    remaining = memoryview(content)
    while remaining:
        remaining = remaining[win32file.WriteFile(handle, remaining)[1] :]


def _status(handle: Any) -> Status:
    descriptor = win32security.GetSecurityInfo(handle, win32security.SE_FILE_OBJECT, _TOLD)
    entries = descriptor.GetSecurityDescriptorDacl()
    return Status(
        win32file.GetFileInformationByHandle(handle)[0],
        win32security.ConvertSidToStringSid(descriptor.GetSecurityDescriptorOwner()),
        win32security.ConvertSecurityDescriptorToStringSecurityDescriptor(
            descriptor, win32security.SDDL_REVISION_1, win32security.DACL_SECURITY_INFORMATION
        ),
        None if entries is None else tuple(_entry(entries, index) for index in range(entries.GetAceCount())),
    )


def _entry(entries: Any, index: int) -> Entry:
    try:
        (kind, flags), mask, *_, sid = entries.GetAce(index)
    except (NotImplementedError, pywintypes.error):
        return _UNKNOWN
    return Entry(kind in _ALLOWS, flags, mask & 0xFFFFFFFF, win32security.ConvertSidToStringSid(sid))


def _descriptor(text: str) -> Any:
    return win32security.ConvertStringSecurityDescriptorToSecurityDescriptor(text, win32security.SDDL_REVISION_1)


def _attributes(text: str | None) -> Any:
    if text is None:
        return None
    attributes = win32security.SECURITY_ATTRIBUTES()
    attributes.SECURITY_DESCRIPTOR = _descriptor(text)
    return attributes


def _set_security(handle: Any, what: int, owner: Any, entries: Any) -> None:
    win32security.SetSecurityInfo(handle, win32security.SE_FILE_OBJECT, what, owner, None, entries, None)


def _enable(privilege: str) -> None:
    """Switch on a privilege that this process has."""
    access = win32con.TOKEN_ADJUST_PRIVILEGES | win32con.TOKEN_QUERY
    token = win32security.OpenProcessToken(win32api.GetCurrentProcess(), access)
    wanted = [(win32security.LookupPrivilegeValue(None, privilege), win32con.SE_PRIVILEGE_ENABLED)]
    adjust: Any = win32security.AdjustTokenPrivileges
    adjust(token, False, wanted)
