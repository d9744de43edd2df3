"""The errors of Windows' calls, however Python has them."""

# ruff: noqa: E402 - the checks of types are to stop where Windows is not
from __future__ import annotations

import sys

assert sys.platform == "win32", "this module calls Windows"

import contextlib
import ctypes
from collections.abc import Iterator

import pywintypes

from .api import CallError

_NO_WORDS = "No error message is available"
"""What pywin32 says when the system says nothing."""


@contextlib.contextmanager
def calls(name: str = "") -> Iterator[None]:
    """Turn what pywin32, winreg and ctypes raise into a CallError. name: of the call, where the error has none."""
    try:
        yield
    except pywintypes.error as error:
        words = error.strerror or ""
        raise CallError(error.funcname or name, error.winerror, "" if words == _NO_WORDS else words) from None
    except OSError as error:
        raise CallError(name, error.winerror or 0, error.strerror or "") from None


def check(name: str, number: int) -> None:
    """CallError unless the number is zero; a negative one, an HRESULT or NTSTATUS, has its usual form in it."""
    if number != 0:
        words = ctypes.FormatError(number) if number > 0 else f"0x{number & 0xFFFFFFFF:08x}"
        raise CallError(name, number, words)


def check_last(name: str, succeeded: int) -> None:
    """CallError with the thread's last error unless a call that was made with use_last_error succeeded."""
    if not succeeded:
        check(name, ctypes.get_last_error() or -1)
