"""The registry, through winreg."""

# ruff: noqa: E402 - the checks of types are to stop where Windows is not
from __future__ import annotations

import sys

assert sys.platform == "win32", "this module calls Windows"

import winreg

from .api import CallError, Value
from .calls_win32 import calls
from .errors import MISSING

_ACCESS = winreg.KEY_READ | winreg.KEY_WOW64_64KEY


class Win32Registry:
    """api.Registry."""

    def value(self, key: str, name: str) -> Value | None:
        """By RegQueryValueEx."""
        try:
            with calls("RegQueryValueEx"), winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key, 0, _ACCESS) as opened:
                value: Value | None = winreg.QueryValueEx(opened, name)[0]
                return value
        except CallError as error:
            if error.number in MISSING:
                return None
            raise

    def has_key(self, key: str) -> bool:
        """By RegOpenKeyEx."""
        try:
            with calls("RegOpenKeyEx"), winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key, 0, _ACCESS):
                return True
        except CallError as error:
            if error.number in MISSING:
                return False
            raise
