"""A Windows guest that tests steer through the driver's parts and the dom0 plugin, and look into."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from tests.contract.house import House
from tests.contract.suite.guest import Guest
from tools.labs.wine import guest as wine_guest
from tools.labs.wine.accounts import Accounts
from tools.labs.wine.running import Running

SERVICE = "XenwardAgent"

PROGRAMS = r"C:\Program Files\xenward"

STATE = r"C:\ProgramData\xenward"

INSTALL_SECONDS = 120.0


class WindowsGuest(Guest):
    """One of a house over the wine lab. What the guest of another environment is looked into with, it does not have."""

    @classmethod
    @contextmanager
    def of(cls, home: House, instance: str) -> Iterator[WindowsGuest]:  # type: ignore[override]
        with super().of(home, cast(Any, None), instance) as guest:
            yield cast(WindowsGuest, guest)

    @property
    def disk(self) -> Path:
        return self.home.guest(self.instance) / wine_guest.DISK

    @property
    def running(self) -> Running:
        return wine_guest.running(self.home.guest(self.instance), self.home.agent_pid(self.instance))

    @property
    def accounts(self) -> Accounts:
        return Accounts(self.disk)

    @property
    def log(self) -> str:
        return self.running.path(STATE + r"\log\agent.log").read_text("utf-8")


def install(windows: Running, installer: Path, *properties: str) -> int:
    """Install or upgrade silently; what Windows Installer ends with."""
    shutil.copyfile(installer, windows.disk / "drive_c" / installer.name)
    command = ["msiexec.exe", "/qn", "/i", "C:\\" + installer.name, *properties]
    return windows.run(command, timeout=INSTALL_SECONDS, check=False).returncode


def uninstall(windows: Running, installer: Path) -> int:
    command = ["msiexec.exe", "/qn", "/x", "C:\\" + installer.name]
    return windows.run(command, timeout=INSTALL_SECONDS, check=False).returncode
