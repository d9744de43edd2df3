"""The self-contained agent: one executable file with the agent and cryptography in it, for guests without our packages.

It serves the versions of Python and the platforms that it was built for; zipapp_main.py says how it runs. The wheels
come from wherever pip is configured to get them. For the same wheels the file is the same, byte for byte.

A tool such as pex was measured beside it (2.105, --venv): that agent starts as fast and takes as much memory,
but at the first start in a guest it needed 1.2 to 1.7 s instead of 0.5 s, with 300 files of its own. What decided: it
takes settings from the environment and from files in home directories; it neither looks at who can write where it
unpacks to, nor goes elsewhere when nothing can be run from there; and it wants each of the other Pythons described in
full, because cryptography's requirements depend on the patch level.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from . import zipapp_main
from .agent_tree import PackageError, code

NAME = "xenward-agent.pyz"
INTERPRETER = "/usr/bin/python3"
MINORS = (9, 10, 11, 12, 13)
PLATFORMS = ("manylinux_2_28_x86_64",)

_PLATFORM = re.compile(r"(manylinux_2|musllinux_1)_([0-9]{1,2})_([a-z0-9_]+)")
_OLDEST_MANYLINUX = 17
"""PEP 600: manylinux_2_17 is the manylinux2014 of older wheels."""

_NOT_NEEDED = ("pycparser-",)
"""cffi's parser of C, which is for building."""

_EPOCH = (1980, 1, 1, 0, 0, 0)


def build(
    directory: Path,
    minors: Sequence[int] = MINORS,
    platforms: Sequence[str] = PLATFORMS,
    *,
    interpreter: str = INTERPRETER,
    wheels: Path | None = None,
) -> Path:
    """Write the file into a directory and return its path.

    minors: of the versions 3.x of CPython that it is to serve. platforms: manylinux_2_x_ARCH or musllinux_1_x_ARCH,
    the second for Alpine. interpreter: what the guest runs it with. wheels: a directory that pip takes the wheels from
    instead of where it is configured to. PackageError when pip cannot get them.
    """
    contents = {"__main__.py": Path(zipapp_main.__file__).read_bytes(), **code()}
    index: dict[str, dict[str, object]] = {}
    for platform in platforms:
        for minor in minors:
            library, least, machine = _parse(platform)
            with tempfile.TemporaryDirectory(prefix="xenward-wheels-") as name:
                found = _download(Path(name), minor, platform, wheels)
                contents.update({f"native/{path.name}": path.read_bytes() for path in found})
            glibc = [2, least] if library.startswith("many") else []
            index[f"cp3{minor}-{library.rpartition('_')[0]}-{machine}"] = {
                "glibc": glibc,
                "files": sorted(path.name for path in found),
            }
    digest = hashlib.sha256()
    for name, content in sorted(contents.items()):
        digest.update(f"{len(name)} {len(content)} {name}".encode() + content)
    contents[zipapp_main.INDEX] = json.dumps({"digest": digest.hexdigest(), "wheels": index}, sort_keys=True).encode()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        for name, content in sorted(contents.items()):
            # Wheels are compressed already.
            method = zipfile.ZIP_STORED if name.endswith(".whl") else zipfile.ZIP_DEFLATED
            opened.writestr(zipfile.ZipInfo(name, _EPOCH), content, method)
    directory.mkdir(parents=True, exist_ok=True)
    destination = directory / NAME
    destination.write_bytes(f"#!{interpreter} -I\n".encode() + archive.getvalue())
    destination.chmod(0o755)
    return destination


def _parse(platform: str) -> tuple[str, int, str]:
    found = _PLATFORM.fullmatch(platform)
    if found is None:
        raise PackageError(f"{platform} is no platform such as manylinux_2_28_x86_64 or musllinux_1_2_x86_64")
    return found[1], int(found[2]), found[3]


def _accepted(platform: str) -> list[str]:
    """The platform's name and those of all that it can run too: pip takes what it is told literally."""
    library, newest, machine = _parse(platform)
    many = library.startswith("many")
    oldest = _OLDEST_MANYLINUX if many else 1
    names = [f"{library}_{minor}_{machine}" for minor in range(newest, oldest - 1, -1)]
    return names + ([f"manylinux2014_{machine}"] if many else [])


def _download(directory: Path, minor: int, platform: str, wheels: Path | None) -> list[Path]:
    """The wheels of cryptography and of what it needs, for one Python and platform."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--dest", str(directory)]
    # A late patch level: cryptography does not take the first ones of 3.9.
    command += ["--python-version", f"3.{minor}.99"]
    command += [part for name in _accepted(platform) for part in ("--platform", name)]
    if wheels is not None:
        command += ["--no-index", "--find-links", str(wheels)]
    command.append("cryptography")
    if minor < 11:
        # What cryptography needs below 3.11. pip asks its own Python's version, and so would leave it out.
        command.append("typing-extensions")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PackageError(f"pip ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return sorted(path for path in directory.glob("*.whl") if not path.name.startswith(_NOT_NEEDED))
