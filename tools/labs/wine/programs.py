"""Wine itself: fetched at first use, then kept in the user's cache, and run from there."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tools.labs.cache import kept
from tools.labs.packages import unpacked

PACKAGES = ("wine64", "libwine", "libz-mingw-w64")
"""Wine for 64-bit programs, and the one library of Windows' side that Debian has outside of it."""

_PROGRAMS = "usr/lib/wine"


@dataclass(frozen=True)
class Wine:
    """Where everything lies. `files` is a directory as below `/`."""

    files: Path

    @property
    def loader(self) -> Path:
        """The program that runs Windows programs."""
        return self.files / _PROGRAMS / "wine64"

    @property
    def server(self) -> Path:
        """The program that is their kernel; one for each disk."""
        return self.files / _PROGRAMS / "wineserver"

    @property
    def zlib(self) -> Path:
        """zlib1.dll, which Wine's own libraries need."""
        return self.files / "usr/x86_64-w64-mingw32/lib/zlib1.dll"

    def environment(self, disk: Path) -> dict[str, str]:
        """All that a program needs to run Windows programs of this disk."""
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(disk),
            # Names of files are UTF-8.
            "LC_ALL": "C.UTF-8",
            "WINEPREFIX": str(disk),
            "WINELOADER": str(self.loader),
            "WINESERVER": str(self.server),
            "WINEDLLPATH": str(self.files / "usr/lib/x86_64-linux-gnu/wine"),
            "WINEDEBUG": "-all",
            # No .NET and no browser, which Wine would ask for when a disk is made; no menus for a desktop.
            "WINEDLLOVERRIDES": "mscoree,mshtml=;winemenubuilder.exe=d",
        }


def wine() -> Wine:
    """Wine, ready to run; the first time takes a minute. LabError when it cannot be had."""
    packages = unpacked(PACKAGES)
    return Wine(kept("wine", packages.name, lambda directory: _lay_out(packages, directory)))


def _lay_out(packages: Path, directory: Path) -> None:
    shutil.copytree(packages, directory, symlinks=True, copy_function=os.link)
    # The loader starts what bears this name beside it, whatever WINESERVER says. Debian has a script there, which looks
    # for the server of a Wine that is installed.
    server = directory / _PROGRAMS / "wineserver"
    server.unlink()
    os.link(server.with_name("wineserver64"), server)
