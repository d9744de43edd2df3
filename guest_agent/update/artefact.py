"""An artefact: the agent's Python code in a zip file, and a manifest that says whom it is for.

It is looked at only after its checksum and the signature over that were found right. Even so nothing in it is taken for
granted: a name that is not a module of ours, a link, or a file that is larger than it says refuses the whole.
"""

from __future__ import annotations

import io
import re
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent_protocol.messages import MessageError
from agent_protocol.outcomes import Refused
from agent_protocol.strict import Members

from ..launch import parse_version

MAX_SIZE = 8 * 1024 * 1024
"""Bytes of an artefact; today's have about a hundredth of it."""

MAX_FILES = 500
MAX_FILE_SIZE = 1024 * 1024
MAX_TOTAL_SIZE = 16 * 1024 * 1024
"""Files in an artefact, bytes in each and in all of them together; today's agent has 100, 20,000 and 500,000."""

MANIFEST = "xenward-update.json"

PACKAGES = ("agent_protocol", "guest_agent")
"""What an artefact brings: the two packages that the agent consists of."""

_WORD = r"[a-z_][a-z0-9_]{0,63}"
_NAME = re.compile(rf"(?:{'|'.join(PACKAGES)})/(?:{_WORD}/){{0,4}}{_WORD}\.py", re.ASCII)
_REQUIRED = ("agent_protocol/__init__.py", "guest_agent/__init__.py", "guest_agent/launch.py")

_PYTHON = re.compile(r">=3\.([0-9]{1,3})", re.ASCII)

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
"""Bit of a zip entry's flags (APPNOTE.TXT 4.4.4)."""


@dataclass(frozen=True)
class Artefact:
    """What an artefact brings. Refused (`bad_artefact`) where it cannot be installed as it stands.

    version: of the agent in it. python: the minor version of Python 3 that it needs at least. minimum: the oldest agent
    that can install it. files: content by name; the names are relative, of modules, and none leads elsewhere.
    """

    version: str
    python: int
    minimum: tuple[int, ...]
    files: Mapping[str, bytes] = field(repr=False)

    def __post_init__(self) -> None:
        if parse_version(self.version) is None:
            raise unfit("its version is none")
        for name in self.files:
            if not _NAME.fullmatch(name):
                raise unfit(f"{name[:200]!r} is no module of the agent's")
        for name in _REQUIRED:
            if name not in self.files:
                raise unfit(f"{name} is missing")


def read_artefact(untrusted_content: bytes) -> Artefact:
    """The artefact in a file's content. Refused (`bad_artefact`) when it is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(untrusted_content)) as archive:
            files = _read_files(archive)
    except Refused:
        raise
    except Exception as error:
        # Python's module meets damage with a dozen kinds of errors.
        raise unfit(f"it is not a zip file that can be read ({type(error).__name__})") from None
    try:
        members = Members.loads(files.pop(MANIFEST, b""), "manifest")
        version, python = members.text("version"), _PYTHON.fullmatch(members.text("python"))
        minimum = parse_version(members.text("minimum"))
    except MessageError as error:
        raise unfit(error.message) from None
    if python is None or minimum is None:
        raise unfit("its manifest needs python as >=3.9, and minimum as a version")
    return Artefact(version, int(python.group(1)), minimum, files)


def _read_files(archive: zipfile.ZipFile) -> dict[str, bytes]:
    entries = archive.infolist()
    if len(entries) > MAX_FILES:
        raise unfit(f"it has more than {MAX_FILES} files")
    if sum(entry.file_size for entry in entries) > MAX_TOTAL_SIZE:
        raise unfit(f"its files have more than {MAX_TOTAL_SIZE} bytes")
    files: dict[str, bytes] = {}
    for entry in entries:
        name = entry.filename
        if name in files:
            raise unfit(f"{name[:200]!r} is there twice")
        # The kind of a file as unix notes it; 0 where the archive was not made by a unix.
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            raise unfit(f"{name[:200]!r} is not a regular file")
        if entry.compress_type not in _METHODS or entry.flag_bits & _ENCRYPTED:
            raise unfit(f"{name[:200]!r} is packed in another way than deflate")
        if entry.file_size > MAX_FILE_SIZE:
            raise unfit(f"{name[:200]!r} has more than {MAX_FILE_SIZE} bytes")
        with archive.open(entry) as file:
            # No more than that is unpacked, whatever the entry's own size is.
            files[name] = file.read(MAX_FILE_SIZE + 1)
        if len(files[name]) != entry.file_size:
            raise unfit(f"{name[:200]!r} has not the size that it says")
    return files


def unfit(reason: str) -> Refused:
    """The error for an artefact that cannot be installed as it stands."""
    return Refused("bad_artefact", f"the artefact cannot be installed: {reason}")
