"""The Windows that this runs on, for the contracts."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from guest_agent.system.windows.api import CallError, Value, Windows
from guest_agent.system.windows.win32 import windows


class RealWorld:
    """A contract.World with a temporary directory, which goes at the end."""

    registry_key = "SOFTWARE\\xenward-test"

    def __init__(self) -> None:
        library: Any = ctypes
        self.wine = hasattr(library.WinDLL("ntdll"), "wine_get_version")
        self._api = windows()
        self.has_accounts = self._has_policy()
        self._winreg: Any = importlib.import_module("winreg")

    def _has_policy(self) -> bool:
        try:
            self._api.accounts.minimum_password_length()
        except CallError:
            return False
        return True

    @property
    def api(self) -> Windows:
        return self._api

    def __enter__(self) -> tuple[RealWorld, str]:
        self._directory = tempfile.mkdtemp()
        return self, "\\\\?\\" + self._directory

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            self._winreg.DeleteKey(self._winreg.HKEY_LOCAL_MACHINE, self.registry_key)

    @contextlib.contextmanager
    def use(self, path: str) -> Iterator[None]:
        # The C library shares files for reading and writing, and not for being removed.
        with open(path, "rb"):  # noqa: PTH123
            yield

    def make_junction(self, path: str, target: str) -> None:
        module: Any = importlib.import_module("_winapi")
        module.CreateJunction(target.removeprefix("\\\\?\\"), path.removeprefix("\\\\?\\"))

    def set_value(self, name: str, value: Value) -> None:
        kinds = {
            str: self._winreg.REG_SZ,
            int: self._winreg.REG_DWORD,
            bytes: self._winreg.REG_BINARY,
            list: self._winreg.REG_MULTI_SZ,
        }
        with self._winreg.CreateKey(self._winreg.HKEY_LOCAL_MACHINE, self.registry_key) as key:
            self._winreg.SetValueEx(key, name, 0, kinds[type(value)], value)
