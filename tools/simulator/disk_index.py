"""What disks build on: the part of disks.py that its files do not tell by themselves, in a journal beside them.

A line is written before what it says is done to the files. So after a kill only what the last line says can be
unfinished, and whoever reads the journal finishes it. Which blocks a file holds is told by its holes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .journal import Journal

KIND = "xenward simulator: disks 1"
"""What the journal calls itself. The number changes when former versions cannot read it."""


class Entry(NamedTuple):
    """A disk, or a layer that disks have in common. parent: the name of the layer below it."""

    sr: str
    parent: str | None = None
    shared: bool = False


class DiskIndex:
    """The journal for the files in a directory. Its methods are not safe for several threads at once."""

    def __init__(self, directory: Path) -> None:
        self.entries: dict[str, Entry] = {}
        self.capacities: dict[str, int] = {}
        self._directory = directory
        self._journal = Journal(directory.with_name(f"{directory.name}.journal"), KIND)
        self._is_open = False

    def read(self) -> list[Any]:
        """Fill the entries; gives the last line, or an empty list.

        ValueError when the journal is damaged or of another version; then nothing is changed.
        """
        lines = self._journal.read()
        if lines is None:
            return []
        self._is_open = True
        try:
            for line in lines:
                self._apply(*line)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self._journal.path} does not fit together; nothing was changed") from error
        return lines[-1] if lines else []

    def note(self, *line: Any) -> None:
        """Say what is done next. OSError when it cannot be written; then it is not to be done."""
        if not self._is_open:
            self._journal.path.parent.mkdir(parents=True, exist_ok=True)
            self._journal.rewrite(())
            self._is_open = True
        self._journal.append(line)
        self._apply(*line)

    def rewrite(self) -> None:
        """Leave what has passed out of the journal."""
        entries = [["layer", name, *entry] for name, entry in self.entries.items()]
        self._journal.rewrite([["capacity", sr, size] for sr, size in self.capacities.items()] + entries)

    def close(self) -> None:
        """Write no more."""
        self._journal.close()

    def _apply(self, operation: str, name: str, *details: Any) -> None:
        entries = self.entries
        if operation == "capacity":
            self.capacities[name] = int(details[0])
        elif operation == "layer":
            entries[name] = Entry(*details)
        elif operation == "create":
            entries[name] = Entry(str(details[0]))
        elif operation == "branch":
            shared, other = details
            old = entries.pop(name)
            entries[shared] = old._replace(shared=True)
            entries[name] = entries[other] = Entry(old.sr, shared)
        elif operation == "merge":
            entries[name] = entries[name]._replace(parent=entries.pop(details[0]).parent)
        elif operation == "remove":
            entries.pop(name)
        else:
            raise ValueError("unknown operation")


def assert_holes_are_told(directory: Path) -> None:
    """OSError ENOTSUP when the file system does not tell what was written to a file from what was not."""
    path, unit = directory / ".probe", 64 * 1024
    with path.open("w+b", buffering=0) as file:
        path.unlink()
        file.truncate(4 * unit)
        os.pwrite(file.fileno(), bytes(unit), unit)
        if list(extents(file.fileno(), 4 * unit)) != [(unit, 2 * unit)]:
            raise OSError(errno.ENOTSUP, "the file system cannot tell the holes of files", str(directory))


def extents(file: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file holds data: from here, to there."""
    begin = 0
    while begin < size:
        try:
            begin = os.lseek(file, begin, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        end = min(os.lseek(file, begin, os.SEEK_HOLE), size)
        if begin < end:
            yield begin, end
        begin = end
