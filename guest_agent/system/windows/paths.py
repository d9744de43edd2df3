"""Paths of files in a Windows guest, as a host may name them."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent_protocol.messages import has_control_characters
from agent_protocol.outcomes import Refused

MAX_PATH = 32767
"""UTF-16 units of a path with its prefix and the NUL at its end: the longest that the system's calls take."""

MAX_PART = 255
"""UTF-16 units of one part of a path: NTFS's limit."""

_PREFIX = "\\\\?\\"
"""What switches off all that the system would otherwise read into a path: devices, short forms, the limit of 260."""

_FORBIDDEN = frozenset('<>:"|?*')
"""What file names cannot contain; a colon would begin the name of an alternate data stream."""

_DEVICES = frozenset(
    {"CON", "PRN", "AUX", "NUL", "CLOCK$", "CONIN$", "CONOUT$"}
    | {port + digit for port in ("COM", "LPT") for digit in "0123456789\u00b9\u00b2\u00b3"}
)
"""Names that stand for devices in every directory, also with an extension ("Naming Files, Paths, and Namespaces")."""


@dataclass(frozen=True)
class DrivePath:
    """An absolute path of a file on a drive, such as `C:\\Data\\a.txt`; slashes are taken for backslashes.

    No UNC path, none with a prefix, no device, no alternate data stream, and nothing that the system would read as
    another name. Refused (`bad_path`) otherwise.

    drive: such as `C:`. parents: the names on the way. name: the last part.
    """

    untrusted_text: str
    drive: str = field(init=False)
    parents: tuple[str, ...] = field(init=False)
    name: str = field(init=False)

    def __post_init__(self) -> None:
        text = self.untrusted_text.replace("/", "\\")
        drive, separator, rest = text[:2], text[2:3], text[3:]
        if not (drive[:1].isascii() and drive[:1].isalpha() and drive[1:] == ":" and separator == "\\"):
            raise _bad("the path must begin with a drive, as in C:\\Data\\a.txt")
        if not rest or rest.endswith("\\"):
            raise _bad("the path must end in a name")
        parts = [part for part in rest.split("\\") if part]
        for part in parts:
            check_name(part)
        object.__setattr__(self, "drive", drive.upper())
        object.__setattr__(self, "parents", tuple(parts[:-1]))
        object.__setattr__(self, "name", parts[-1])
        if _units(self.extended) >= MAX_PATH:
            raise _bad(f"a path has at most {MAX_PATH - len(_PREFIX) - 1} characters")

    @property
    def text(self) -> str:
        """The path as people know it."""
        return "\\".join([self.drive, *self.parents, self.name])

    @property
    def extended(self) -> str:
        """The path as the system's calls are to take it: literally."""
        return _PREFIX + self.text

    @property
    def directories(self) -> list[str]:
        """The directories on the way, from the drive's root on, in the extended form."""
        root = f"{_PREFIX}{self.drive}\\"
        return [root, *(root + "\\".join(self.parents[:depth]) for depth in range(1, len(self.parents) + 1))]


def check_name(part: str) -> None:
    """Refused (`bad_path`) unless this can be the name of a file or directory, and of nothing else."""
    try:
        size = _units(part)
    except UnicodeEncodeError:
        raise _bad("the path is not text that UTF-16 can hold") from None
    if size > MAX_PART:
        raise _bad(f"each part of a path has at most {MAX_PART} characters")
    if has_control_characters(part) or _FORBIDDEN & set(part):
        raise _bad('a path cannot contain control characters or any of <>"|?*, nor a colon but behind its drive')
    if part[-1:] in (".", " "):
        raise _bad("no part of a path can be . or .., or end in a dot or a space")
    if part.partition(".")[0].rstrip(" ").upper() in _DEVICES:
        raise _bad(f"{part[:64]!r} is the name of a device")


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def _bad(reason: str) -> Refused:
    return Refused("bad_path", reason)
