"""The guest's files as renderers see them, and a renderer's changes as they are carried out."""

from __future__ import annotations

from collections.abc import Sequence

from ..system.files import read_file, write_file
from ..system.lookup import names_in
from ..system.paths import GuestPath
from ..system.snapshots import Snapshot, remove_file
from .renderer import Change


class GuestFiles:
    """The files of the guest whose `/` is `root`. Refused and Failed as read_file of system/files.py."""

    def __init__(self, root: str) -> None:
        self._root = root

    def read(self, path: GuestPath) -> bytes | None:
        """A file's content, None when there is none. Refused (`not_a_file`) for a link, say."""
        return read_file(self._root, path)

    def names(self, directory: GuestPath) -> Sequence[str]:
        """What a directory holds, in order; nothing when it is missing."""
        return names_in(self._root, directory)


def is_needed(change: Change, present: Snapshot) -> bool:
    """Whether the file is not yet as the change wants it: in content, or because others may do more with it."""
    if change.content is None or present.mode is None:
        return present.content != change.content
    return present.content != change.content or bool(present.mode & ~change.mode)


def carry_out(root: str, change: Change, present: Snapshot) -> None:
    """Write or remove the file. Its owner stays, and so does a mode that is narrower than what the change wants."""
    if change.content is None:
        remove_file(root, change.path)
        return
    mode = change.mode if present.mode is None else change.mode & present.mode
    write_file(root, change.path, change.content, mode=mode)
