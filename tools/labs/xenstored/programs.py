"""The daemons and the library below them: fetched and compiled at first use, then kept in the user's cache."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from tools.labs.cache import kept, run
from tools.labs.packages import unpacked

PACKAGES = (
    "xen-utils-4.17",
    "xen-utils-common",
    "libxencall1",
    "libxendevicemodel1",
    "libxenevtchn1",
    "libxenforeignmemory1",
    "libxengnttab1",
    "libxenmisc4.17",
    "libxentoolcore1",
    "libxentoollog1",
)
"""Both daemons, the configuration that Debian gives to oxenstored, and the libraries that they are linked with."""

_SOURCE = Path(__file__).with_name("standin.c")

_COMPILE = ("gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread")


@dataclass(frozen=True)
class Programs:
    """Where everything lies. `libraries` is a directory, `standin` the library to preload."""

    xenstored: Path
    oxenstored: Path
    oxenstored_configuration: Path
    libraries: Path
    standin: Path


def programs() -> Programs:
    """All programs, ready to run; the first time takes some seconds. LabError when they cannot be had."""
    files = unpacked(PACKAGES)
    return Programs(
        xenstored=files / "usr/lib/xen-4.17/bin/xenstored",
        oxenstored=files / "usr/lib/xen-4.17/bin/oxenstored",
        oxenstored_configuration=files / "etc/xen/oxenstored.conf",
        libraries=files / "usr/lib/x86_64-linux-gnu",
        standin=_standin(),
    )


def _standin() -> Path:
    headers = unpacked(["libxen-dev"]) / "usr/include"
    command = [*_COMPILE, "-isystem", str(headers)]
    named = hashlib.sha256(_SOURCE.read_bytes() + " ".join(command).encode()).hexdigest()[:16]

    def compile_it(directory: Path) -> None:
        directory.mkdir()
        run([*command, "-o", str(directory / "standin.so"), str(_SOURCE)])

    return kept("standin", named, compile_it) / "standin.so"
