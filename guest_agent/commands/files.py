"""Putting a file into the guest: one implementation under today's name and both of the old ones."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from agent_protocol.digests import sha256_hex
from agent_protocol.outcomes import Refused

from ..system.accounts import check_account_name
from ..system.paths import MAX_PATH
from .arguments import MAX_FILE, bad, from_base64, json_object, optional_text, text
from .table import BOTH, CLEAR, Context, Result, command

MAX_FILE_VALUE = 2 * MAX_FILE
"""Characters of file_put's value: MAX_FILE in base64 takes two thirds of it, path and all else much less than the rest.
"""

_MODE = re.compile(r"[0-7]{3,4}\Z", re.ASCII)
_SHA256 = re.compile(r"[0-9a-fA-F]{64}\Z", re.ASCII)


@dataclass(frozen=True)
class File:
    """A file to be put. mode and owner (a user and, if named, a group) are kept or made up when they are None.

    untrusted_path: as the host wrote it; what a path is differs between systems.
    """

    untrusted_path: str
    content: bytes = field(repr=False)
    mode: int | None = None
    owner: tuple[str, str | None] | None = None


def _parse_file_put(untrusted_value: str) -> File:
    members = json_object(untrusted_value, ["path", "content"], ["mode", "owner", "sha256"])
    content = from_base64(members["content"], "content")
    checksum = optional_text(members, "sha256")
    if checksum is not None:
        if not _SHA256.match(checksum):
            raise bad("sha256 must have 64 hexadecimal digits")
        if sha256_hex(content) != checksum.lower():
            raise Refused("checksum_mismatch", "the content does not have that SHA-256 checksum")
    return File(
        text(members, "path"),
        content,
        _mode(optional_text(members, "mode")),
        _owner(optional_text(members, "owner")),
    )


def _mode(untrusted: str | None) -> int | None:
    if untrusted is None:
        return None
    if not _MODE.match(untrusted):
        raise bad("mode must have three or four octal digits")
    return int(untrusted, 8)


def _owner(untrusted: str | None) -> tuple[str, str | None] | None:
    if untrusted is None:
        return None
    user, colon, group = untrusted.partition(":")
    return check_account_name(user), check_account_name(group) if colon else None


def _parse_injectfile(untrusted_value: str) -> File:
    # The old form cannot carry a comma in a path; everything behind the first one is content.
    path, comma, content = from_base64(untrusted_value, "the value", MAX_PATH + 1 + MAX_FILE).partition(b",")
    if not comma:
        raise bad("the value is not a path and contents with a comma between them")
    return File(_decoded(path), content)


def _parse_file_inject(untrusted_value: str) -> File:
    members = json_object(untrusted_value, ["b64_path", "b64_file"])
    path = _decoded(from_base64(members["b64_path"], "b64_path", MAX_PATH))
    return File(path, from_base64(members["b64_file"], "b64_file"))


def _decoded(untrusted_path: bytes) -> str:
    try:
        return untrusted_path.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("bad_path", "the path is not UTF-8") from None


@command("file_put", tables=BOTH, parse=_parse_file_put, max_value=MAX_FILE_VALUE, secret=True)
@command("injectfile", tables=CLEAR, parse=_parse_injectfile, secret=True)
@command("file_inject", tables=CLEAR, parse=_parse_file_inject, secret=True)
def file_put(context: Context, file: File) -> Result:
    """Write the file, whole or not at all."""
    context.system.put_file(file.untrusted_path, file.content, mode=file.mode, owner=file.owner)
    return Result()
