"""Files of Debian packages without installing them: nothing is configured, and no service is added to this machine."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .cache import kept, run


def unpacked(packages: Sequence[str]) -> Path:
    """A directory with the files of exactly these packages, laid out as below `/`; not of what they depend on.

    They are fetched once, as apt is configured here, and kept. Needs dpkg-deb and apt's lists, not the superuser.
    What uses the directory must leave it as it is. LabError when a package cannot be had.
    """
    release = _release()
    named = hashlib.sha256("\0".join([release, *sorted(packages)]).encode()).hexdigest()[:16]

    def unpack(directory: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="xenward-packages") as downloads:
            run(["apt-get", "download", "-qq", "--", *packages], Path(downloads))
            directory.mkdir()
            for archive in sorted(Path(downloads).glob("*.deb")):
                run(["dpkg-deb", "-x", str(archive), str(directory)])

    return kept("packages", f"{release}-{named}", unpack)


def _release() -> str:
    lines = Path("/etc/os-release").read_text("utf-8").splitlines()
    return next((line.split("=")[1].strip() for line in lines if line.startswith("VERSION_CODENAME=")), "unknown")
