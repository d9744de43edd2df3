"""A file of JSON values that grows at its end and outlives whatever kills its writer.

Each value is a line with a checksum of its own, appended with one system call, so a writer that is killed leaves at
most an unfinished last line, which the next reader passes over. Everything else that does not fit is damage and is
said. A file that has grown too long is written anew beside itself and renamed.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

FORMAT = 1
"""Of the lines. The first one holds this number, and what the file is."""

_CHECKSUM = 8


def _line(value: Any) -> bytes:
    text = json.dumps(value, separators=(",", ":")).encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _value(path: Path, number: int, line: bytes) -> Any:
    checksum, separator, text = line.partition(b" ")
    if separator and len(checksum) == _CHECKSUM and checksum == b"%08x" % zlib.crc32(text):
        try:
            return json.loads(text)
        except ValueError:
            pass
    raise ValueError(f"{path} is damaged in line {number}; nothing was changed")


class Journal:
    """One such file. Its methods are not safe for several threads at once.

    kind: what the file is, and the version of what is in it; a file of another kind is refused.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self.path = path
        self.size = 0
        self._header = {"format": FORMAT, "kind": kind}
        self._file: int | None = None

    def read(self) -> list[Any] | None:
        """All values that were written; None when there is no such file.

        The file is not changed. ValueError when it is damaged, or of another version; OSError when it cannot be read.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        lines = content.split(b"\n")
        # What follows the last line's end is what somebody could not finish.
        self.size = len(content) - len(lines.pop())
        values = [_value(self.path, number, line) for number, line in enumerate(lines, 1)]
        if not values:
            raise ValueError(f"{self.path} is damaged: it is empty; nothing was changed")
        if values[0] != self._header:
            raise ValueError(f"{self.path} was written by another version of the simulator; nothing was changed")
        return values[1:]

    def append(self, value: Any) -> None:
        """Add a value. Only after read() or rewrite(). OSError when it cannot be written; then it is not there."""
        line = _line(value)
        if self._file is None:
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            os.ftruncate(self._file, self.size)
        try:
            _write(self._file, line)
        except OSError:
            os.ftruncate(self._file, self.size)
            raise
        self.size += len(line)

    def sync(self) -> None:
        """Wait until what was written is on the disk, where not even the machine's own end can lose it."""
        if self._file is not None:
            os.fdatasync(self._file)

    def rewrite(self, values: Iterable[Any]) -> None:
        """Replace the whole content. Whoever is killed meanwhile leaves the former one. OSError as of append()."""
        unfinished = self.path.with_name(self.path.name + ".new")
        unfinished.unlink(missing_ok=True)
        # It holds what the API holds, secrets too: it is for its owner only.
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = sum(_write(file, line) for line in _lines(self._header, values))
            os.fsync(file)
            unfinished.replace(self.path)
            _sync_directory(self.path.parent)
        except BaseException:
            os.close(file)
            raise
        self.close()
        self._file, self.size = file, size

    def close(self) -> None:
        """Write no more, until the next append()."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _lines(header: Any, values: Iterable[Any]) -> Iterator[bytes]:
    yield _line(header)
    for value in values:
        yield _line(value)


def _write(file: int, content: bytes) -> int:
    left = memoryview(content)
    while left:
        left = left[os.write(file, left) :]
    return len(content)


def _sync_directory(directory: Path) -> None:
    file = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
