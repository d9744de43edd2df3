"""Disks with Windows: directories that Wine takes for a drive C: and its registry (WINEPREFIX).

One is installed once for each version of Wine and of what is added to it, and kept in the user's cache: with the stand-
in for the Xen drivers, and the libraries that Wine lacks. A new disk is a copy of it, or of any other disk whose
machine does not run. Windows' own programs and libraries are hard links, where the file system lets them be.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tools.labs.cache import LabError, kept
from tools.labs.wine import parts
from tools.labs.wine.accounts import Accounts
from tools.labs.wine.programs import Wine, wine

_INSTALL_SECONDS = 300.0

_INSTALL = """\
set -e
ip link set lo up
"$WINELOADER" wineboot -i
"$WINESERVER" -w
"$WINELOADER" winecfg /v win10
"$WINELOADER" regedit /S 'C:\\settings.reg'
"$WINESERVER" -w
"""
"""The server is waited for, twice: it writes the registry when it ends, and what is asked of it before is forgotten."""

_SETTINGS = """\
REGEDIT4

[HKEY_CURRENT_USER\\Software\\Wine\\Drivers]
"Graphics"="null"
"Audio"=""

[HKEY_CURRENT_USER\\Software\\Wine\\DllOverrides]
"netapi32"="native"

[HKEY_LOCAL_MACHINE\\Software\\Microsoft\\Windows NT\\CurrentVersion\\AeDebug]
"Debugger"=""

[HKEY_LOCAL_MACHINE\\System\\CurrentControlSet\\Services\\xeniface]
"Type"=dword:00000001
"Start"=dword:00000002
"ErrorControl"=dword:00000001
"ImagePath"="C:\\\\windows\\\\system32\\\\drivers\\\\xeniface.sys"
"ObjectName"="LocalSystem"

[HKEY_LOCAL_MACHINE\\System\\CurrentControlSet\\Enum\\ROOT\\XENIFACE\\0000]
"Class"="System"
"ClassGUID"="{4d36e97d-e325-11ce-bfc1-08002be10318}"
"DeviceDesc"="XENIFACE"
"HardwareID"=hex(7):58,45,4e,49,46,41,43,45,00,00
"Service"="xeniface"
"""
"""No display and no sound; the shim of netapi32 in place of Wine's; no debugger that would keep a program that crashed;
and a device, for which Wine loads a driver."""

_SYSTEM = Path("drive_c/windows/system32")
_DRIVERS = _SYSTEM / "drivers"

_PROGRAMS = frozenset({".dll", ".exe", ".sys", ".drv", ".ocx", ".tlb", ".cpl", ".acm", ".ax", ".nls", ".com", ".ds"})


def installed() -> Path:
    """A disk with Windows and no agent. It is only for copies. LabError when it cannot be made."""
    program, added = wine(), parts.parts()
    made_from = f"{program.files}\0{added}\0{_INSTALL}\0{_SETTINGS}\0{sorted(_PROGRAMS)}"
    named = hashlib.sha256(made_from.encode()).hexdigest()[:16]
    return kept("wine-disks", named, lambda disk: _install(program, added, disk))


def _install(program: Wine, added: Path, disk: Path) -> None:
    (disk / _DRIVERS).mkdir(parents=True)
    shutil.copyfile(program.zlib, disk / _SYSTEM / program.zlib.name)
    settings = disk / "drive_c/settings.reg"
    settings.write_text(_SETTINGS, "ascii")
    namespaces = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    try:
        done = subprocess.run(
            ["unshare", *namespaces, "sh", "-c", _INSTALL],
            env=program.environment(disk),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"Windows was not installed within {_INSTALL_SECONDS:g} s") from None
    if done.returncode != 0:
        raise LabError(f"Windows cannot be installed: {done.stdout.decode('utf-8', 'replace')[-2000:]}")
    settings.unlink()
    for name in (parts.DRIVER, parts.DRIVER_LIBRARY):
        shutil.copyfile(added / name, disk / _DRIVERS / name)
    for name in parts.SHIMS:
        (disk / _SYSTEM / name).unlink(missing_ok=True)
        shutil.copyfile(added / name, disk / _SYSTEM / name)
    Accounts(disk).lay_out()


def copy(original: Path, disk: Path) -> None:
    """Make `disk`, which does not exist, a copy of another one, whose machine does not run and which stays."""
    unfinished = disk.with_name(disk.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(original, unfinished, symlinks=True, copy_function=_copy)
    unfinished.rename(disk)


def _copy(source: str, target: str) -> None:
    # 650 MB, none of which is ever written to: a program that is replaced is removed first. A symbolic link would not
    # do, since Wine removes what it leads to.
    if "/drive_c/windows/" in source and Path(source).suffix.lower() in _PROGRAMS:
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target, follow_symlinks=False)
