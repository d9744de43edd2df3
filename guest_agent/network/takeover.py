"""Files in which somebody else configured our interfaces: they give way, and a copy of them stays.

A copy has a hidden name, as `.interfaces.xenward-saved`: no stack reads those, while NetworkManager and ifupdown's
`source /etc/network/interfaces.d/*` read nearly every other one.
"""

from __future__ import annotations

from ..system.paths import GuestPath
from .renderer import Change, Files

HEADER = "# Written by the xenward guest agent from what the host says. Changes to it do not last.\n"
"""First line of each file that is wholly the agent's. All stacks' comments begin with `#`."""

_SAVED = "xenward-saved"


def put(files: Files, path: GuestPath, text: str, mode: int = 0o644) -> list[Change]:
    """The agent's own file `text` at `path`, and a copy of what somebody else had written there.

    text: starts with HEADER. mode: the file's; a copy is for the superuser only, for it may hold secrets.
    """
    return [*_copy_of_foreign(files, path), Change(path, text.encode(), mode)]


def remove(files: Files, path: GuestPath) -> list[Change]:
    """No file at `path`, and a copy of what somebody else had written there. No change when there is none."""
    if files.read(path) is None:
        return []
    return [*_copy_of_foreign(files, path), Change(path, None)]


def copy(files: Files, path: GuestPath, content: bytes) -> list[Change]:
    """A copy of what stands at `path`, unless there is one already. Copies of before are never overwritten."""
    directory = path.text[: -len(path.name)]
    number = 1
    while True:
        suffix = "" if number == 1 else f"-{number}"
        kept = GuestPath(f"{directory}.{path.name}.{_SAVED}{suffix}")
        present = files.read(kept)
        if present == content:
            return []
        if present is None:
            return [Change(kept, content, 0o600)]
        number += 1


def _copy_of_foreign(files: Files, path: GuestPath) -> list[Change]:
    present = files.read(path)
    if present is None or present.startswith(HEADER.encode()):
        return []
    return copy(files, path, present)
