"""Bringing the guest's file systems to a halt while its disks are copied, and letting them go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_protocol.outcomes import Unsupported

from .arguments import bad, ignored, json_object
from .table import SEALED, Context, Result, command

if TYPE_CHECKING:
    from ..system.freezing import Freezer

SECONDS = 10
"""How long file systems stay frozen when nothing is said: what makes a snapshot of disks takes two or three seconds."""

MAX_SECONDS = 60
"""The longest. Every program that writes stands still, and what watches over programs takes them for dead."""


def _parse_freeze(untrusted_value: str) -> int:
    untrusted = json_object(untrusted_value, [], ["seconds"]).get("seconds", SECONDS)
    if not isinstance(untrusted, int) or isinstance(untrusted, bool) or not 1 <= untrusted <= MAX_SECONDS:
        raise bad(f"seconds must be a whole number from 1 to {MAX_SECONDS}")
    return untrusted


@command("freeze", tables=SEALED, parse=_parse_freeze)
def freeze(context: Context, seconds: int) -> Result:
    """Freeze every file system that can be, for so many seconds at most."""
    frozen = _freezer(context).freeze(seconds)
    return Result(
        "",
        {
            "filesystems": list(frozen.file_systems),
            "skipped": list(frozen.skipped),
            "until_seconds": round(frozen.until_seconds, 3),
        },
    )


@command("thaw", tables=SEALED, parse=ignored)
def thaw(context: Context, arguments: None) -> Result:
    """Thaw what freeze froze. That this succeeds is the proof that all was frozen until now."""
    del arguments
    thawed = _freezer(context).thaw()
    return Result("", {"seconds": round(thawed.seconds, 3), "filesystems": list(thawed.file_systems)})


def _freezer(context: Context) -> Freezer:
    if context.freezer is None:
        raise Unsupported("nothing_runs", "this guest is a directory, where nothing runs that could be frozen")
    return context.freezer
