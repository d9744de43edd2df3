"""Archives in the format of cpio's `newc`, as Linux unpacks an initramfs from. Everything in them belongs to root.

Source of the format: Documentation/driver-api/early-userspace/buffer-format.rst of Linux. Several such archives, one
after the other, are one initramfs.
"""

from __future__ import annotations

import stat
from pathlib import Path
from types import TracebackType

_ALIGNMENT = 4
_END_ALIGNMENT = 512


class Archive:
    """An archive that is being written to a file; complete once it is closed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._number = 0
        self._directories: set[str] = set()

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._entry("TRAILER!!!", 0, b"")
            self._pad(_END_ALIGNMENT)
        self._file.close()

    def directory(self, name: str, mode: int = 0o755) -> None:
        """Add a directory and those above it, unless they are there."""
        name = name.strip("/")
        if not name or name in self._directories:
            return
        self._parents(name)
        self._directories.add(name)
        self._entry(name, stat.S_IFDIR | mode, b"")

    def file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        """Add a regular file."""
        self._parents(name)
        self._entry(name.strip("/"), stat.S_IFREG | mode, content)

    def character_device(self, name: str, major: int, minor: int) -> None:
        """Add a device that root alone may use. An initramfs needs /dev/console before anything is mounted."""
        self._parents(name)
        self._entry(name.strip("/"), stat.S_IFCHR | 0o600, b"", (major, minor))

    def tree(self, directory: Path, below: str) -> None:
        """Add the files and directories that are below a directory; `below` is where they stand in the archive."""
        for path in sorted(directory.iterdir()):
            name, mode = f"{below}/{path.name}", stat.S_IMODE(path.stat().st_mode)
            if path.is_dir():
                self.directory(name, mode)
                self.tree(path, name)
            else:
                self.file(name, path.read_bytes(), mode)

    def _parents(self, name: str) -> None:
        above = name.strip("/").rpartition("/")[0]
        if above:
            self.directory(above)

    def _entry(self, name: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> None:
        self._number += 1
        encoded = name.encode("utf-8") + b"\0"
        # inode, mode, uid, gid, links, mtime, size, device of the file (2), device itself (2), length of name, checksum
        numbers = (self._number, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0)
        self._file.write(b"070701" + b"".join(b"%08x" % number for number in numbers) + encoded)
        self._pad(_ALIGNMENT)
        self._file.write(content)
        self._pad(_ALIGNMENT)

    def _pad(self, alignment: int) -> None:
        self._file.write(bytes(-self._file.tell() % alignment))
