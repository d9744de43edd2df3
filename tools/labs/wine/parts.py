"""What Wine lacks for a Xen guest: compiled for Windows by mingw at first use, and kept in the user's cache."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tools.labs.cache import kept, run
from tools.labs.packages import unpacked

PACKAGES = (
    "gcc-mingw-w64-x86-64-win32",
    "gcc-mingw-w64-x86-64-win32-runtime",
    "gcc-mingw-w64-base",
    "binutils-mingw-w64-x86-64",
    "mingw-w64-x86-64-dev",
    "mingw-w64-common",
    "libisl23",
    "libmpc3",
    "libmpfr6",
)
"""The compiler, and those of its libraries that Debian's smallest systems do not have."""

_SOURCES = Path(__file__).with_name("sources")

_COMPILE = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-s")

_LIBRARY = (*_COMPILE, "-shared", "-Wl,--kill-at")

# A driver must not import ntdll or kernel32: Wine then takes it for an ordinary library. sprintf is the kernel's.
_DRIVER = (
    *_COMPILE,
    "-D__USE_MINGW_ANSI_STDIO=0",
    "-nostdlib",
    "-Wl,--subsystem,native",
    "-Wl,--entry,DriverEntry",
    "-Wl,--dynamicbase",
)

DRIVER = "xeniface.sys"
DRIVER_LIBRARY = "xenstore.dll"
SHIMS = ("netapi32.dll", "bcryptprimitives.dll")
"""Libraries that stand in for Wine's, or for one that it does not have."""


def parts() -> Path:
    """A directory with DRIVER, DRIVER_LIBRARY and SHIMS. The first time takes some seconds. LabError when it fails."""
    tools = unpacked(PACKAGES) / "usr"
    compiler = tools / "bin/x86_64-w64-mingw32-gcc-win32"
    kernel_headers = tools / "x86_64-w64-mingw32/include/ddk"

    def commands(directory: Path) -> list[list[str]]:
        library = str(directory / DRIVER_LIBRARY)
        return [
            [*_LIBRARY, "store.c", "process.c", "-o", library, "-lws2_32"],
            [
                *_DRIVER,
                "-isystem",
                str(kernel_headers),
                "xeniface.c",
                "-o",
                str(directory / DRIVER),
                library,
                "-lntoskrnl",
                "-lgcc",
            ],
            [
                *_LIBRARY,
                "netapi32.c",
                "accounts.c",
                "security.c",
                "netapi32.def",
                "-o",
                str(directory / "netapi32.dll"),
                "-lbcrypt",
            ],
            [*_LIBRARY, "bcryptprimitives.c", "-o", str(directory / "bcryptprimitives.dll"), "-lbcrypt"],
        ]

    def compile_them(directory: Path) -> None:
        directory.mkdir()
        for arguments in commands(directory):
            run([str(compiler), *arguments], _SOURCES)

    named = hashlib.sha256(str(compiler).encode())
    for source in sorted(_SOURCES.iterdir()):
        named.update(source.read_bytes())
    named.update(repr(commands(Path())).encode())
    return kept("wine-parts", named.hexdigest()[:16], compile_them)
