"""Agents of a few files, for installing: the real launcher, what it relies on, and a program that a test makes up."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path

from agent_protocol.identity import Identity
from guest_agent.update.artefact import MANIFEST
from tools.packages.update import signed_arguments

SOURCES = Path(__file__).parents[3]

CRASHES = 'raise RuntimeError("this agent is broken")\n'

SERVES = """\
import sys
from guest_agent import VERSION
from guest_agent.update.running import PROCESS

def main(options):
    PROCESS.confirm()
    print(VERSION, *options)
    return 0
"""

GIVES_UP = SERVES.replace("    PROCESS.confirm()\n", "").replace("return 0", "return 1")

HANGS = "import signal\n\ndef main(options):\n    signal.pause()\n"


def small_agent(version: str, program: str = SERVES, rehearsal: str = "def rehearse(root): pass\n") -> dict[str, bytes]:
    """The files of an agent whose main module is `program`."""
    files = {
        "agent_protocol/__init__.py": "",
        "guest_agent/__init__.py": f'VERSION = "{version}"\n',
        "guest_agent/__main__.py": program,
        "guest_agent/update/__init__.py": "",
        "guest_agent/update/rehearsal.py": rehearsal,
    }
    real = {name: (SOURCES / name).read_bytes() for name in ("guest_agent/launch.py", "guest_agent/update/running.py")}
    return {**{name: content.encode() for name, content in files.items()}, **real}


def put(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write the files of an agent, as packages or an installation have them."""
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for path in [directory, *directory.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def taken(directory: Path) -> dict[str, bytes]:
    """The sources below a directory."""
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*.py")}


def manifest(version: str, **members: object) -> bytes:
    return json.dumps({"version": version, "python": ">=3.9", "minimum": "0.1.0", **members}).encode()


def pack(files: Mapping[str, bytes], manifest: bytes | None, kinds: Mapping[str, int] = {}) -> bytes:
    """An artefact of these files, whatever they are. kinds: of files that are noted as something else than files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {**files, **({} if manifest is None else {MANIFEST: manifest})}.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (kinds.get(name, stat.S_IFREG) | 0o600) << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def artefact(version: str, program: str = SERVES, rehearsal: str = "def rehearse(root): pass\n") -> bytes:
    return pack(small_agent(version, program, rehearsal), manifest(version))


def signed(key: Identity, version: str, content: bytes) -> dict[str, str]:
    """The command's arguments, but for where the artefact is."""
    return signed_arguments(key, version, content)
