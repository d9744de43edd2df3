"""The bytes of virtual disks: a sparse file each, and what a disk shares with others only once.

As in a storage repository of VHD files, a clone or snapshot copies nothing: what both have in common becomes a layer of
its own, which nobody writes to any more, and each disk holds only what was written since. Files are named by the
disk's uuid; a file's holes are what the layer below it holds, or zeros if there is none below.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

BLOCK = 64 * 1024
"""Bytes that are shared, or not, as a whole."""

_ZEROS = bytes(BLOCK)


class NoSpace(OSError):
    """The storage repository is full; what was written until then stays."""


class _Layer:
    """A file and the blocks of it that count. shared: no disk itself, but what others have in common."""

    def __init__(self, path: Path, sr: str, size: int, parent: _Layer | None = None, shared: bool = False) -> None:
        self.path = path
        self.sr = sr
        self.size = size
        self.parent = parent
        self.shared = shared
        self.blocks: set[int] = set()

    def holder(self, block: int) -> _Layer | None:
        """The uppermost layer that holds the block; None when it is zero."""
        layer: _Layer | None = self
        while layer is not None and block not in layer.blocks:
            layer = layer.parent
        return layer


class Disks:
    """All disks of all storage repositories. Every method is atomic and may be called by any thread.

    Disks and repositories are named by uuid. KeyError for a disk that does not exist.

    directory: where the files are; it is made when it is needed.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._capacities: dict[str, int] = {}
        self._layers: dict[str, _Layer] = {}
        self._lock = threading.RLock()

    def set_capacity(self, sr: str, capacity: int) -> None:
        """How many bytes a repository can hold. Without this there is no limit."""
        self._capacities[sr] = capacity

    def capacity(self, sr: str) -> int | None:
        """How many bytes a repository can hold; None when nobody said it."""
        return self._capacities.get(sr)

    def create(self, disk: str, sr: str, size: int) -> None:
        """A new disk of `size` bytes, all zero. FileExistsError when there is one of that name."""
        with self._lock:
            self._layers[disk] = self._layer(disk, sr, size)

    def exists(self, disk: str) -> bool:
        """Whether there is such a disk, or such a shared layer."""
        return disk in self._layers

    def names(self, sr: str) -> list[str]:
        """The disks and shared layers of a repository."""
        with self._lock:
            return [name for name, layer in self._layers.items() if layer.sr == sr]

    def size(self, disk: str) -> int:
        """A disk's size, in bytes."""
        return self._layers[disk].size

    def is_shared(self, disk: str) -> bool:
        """Whether it is a layer that disks have in common."""
        return self._layers[disk].shared

    def parent(self, disk: str) -> str | None:
        """The shared layer that a disk builds on."""
        parent = self._layers[disk].parent
        return parent.path.name if parent else None

    def utilisation(self, disk: str) -> int:
        """Bytes that a disk takes by itself, without what it has in common with others."""
        with self._lock:
            return len(self._layers[disk].blocks) * BLOCK

    def repository_utilisation(self, sr: str) -> int:
        """Bytes that all disks of a repository take."""
        with self._lock:
            return sum(len(layer.blocks) for layer in self._layers.values() if layer.sr == sr) * BLOCK

    def resize(self, disk: str, size: int) -> None:
        """Make a disk larger. What is new is zero."""
        with self._lock:
            layer = self._layers[disk]
            layer.size = max(layer.size, size)
            os.truncate(layer.path, layer.size)

    def branch(self, disk: str, shared: str, other: str) -> None:
        """Make `other` a disk with the same content. `shared` becomes the name of what both have in common."""
        with self._lock:
            old = self._layers.pop(disk)
            old.path.rename(self.directory / shared)
            old.path = self.directory / shared
            old.shared = True
            self._layers[shared] = old
            for name in (disk, other):
                self._layers[name] = self._layer(name, old.sr, old.size, old)

    def remove(self, disk: str) -> None:
        """Remove a disk, and every shared layer that only it, or only one other disk, still needs."""
        with self._lock:
            layer = self._layers.pop(disk)
            layer.path.unlink(missing_ok=True)
            parent = layer.parent
            while parent is not None and parent.shared:
                children = [name for name, other in self._layers.items() if other.parent is parent]
                if len(children) > 1:
                    return
                if children:
                    self._merge(children[0])
                    return
                del self._layers[parent.path.name]
                parent.path.unlink(missing_ok=True)
                parent = parent.parent

    def remove_repository(self, sr: str) -> None:
        """Remove all disks of a repository."""
        with self._lock:
            for name in self.names(sr):
                self._layers.pop(name).path.unlink(missing_ok=True)

    def read(self, disk: str, offset: int, length: int) -> bytes:
        """Bytes of a disk; fewer at its end."""
        with self._lock:
            layer = self._layers[disk]
            end = min(offset + length, layer.size)
            pieces = []
            for holder, begin, stop in _runs(layer, offset, end):
                pieces.append(_pread(holder, begin, stop - begin) if holder else bytes(stop - begin))
            return b"".join(pieces)

    def write(self, disk: str, offset: int, data: bytes) -> None:
        """Change bytes of a disk. ValueError beyond its end, NoSpace when its repository is full."""
        with self._lock:
            layer = self._layers[disk]
            if offset < 0 or offset + len(data) > layer.size:
                raise ValueError("beyond the end of the disk")
            capacity = self._capacities.get(layer.sr, sys.maxsize)
            room = capacity - self.repository_utilisation(layer.sr)
            with layer.path.open("r+b", buffering=0) as file:
                position = 0
                while position < len(data):
                    block, within = divmod(offset + position, BLOCK)
                    piece = data[position : position + BLOCK - within]
                    position += len(piece)
                    if block not in layer.blocks:
                        holder = layer.holder(block)
                        if holder is None and piece == _ZEROS[: len(piece)]:
                            # Zeros where there is nothing yet need no space.
                            continue
                        room -= BLOCK
                        if room < 0:
                            raise NoSpace
                        if holder is not None and len(piece) < BLOCK:
                            os.pwrite(file.fileno(), _pread(holder, block * BLOCK, BLOCK), block * BLOCK)
                        layer.blocks.add(block)
                    os.pwrite(file.fileno(), piece, block * BLOCK + within)
            os.truncate(layer.path, layer.size)

    def allocated(self, disk: str, unit: int, base: str | None = None) -> list[int]:
        """The numbers of a disk's parts of `unit` bytes that may hold something, ascending.

        unit: a multiple of BLOCK. base: another disk; parts that are the same there are left out, as far as that can
        be told without reading them.
        """
        with self._lock:
            layer = self._layers[disk]
            common = set(_chain(self._layers[base])) if base is not None else set()
            found: set[int] = set()
            for one in _chain(layer):
                if one not in common:
                    found |= {block * BLOCK // unit for block in one.blocks}
            if base is not None:
                for one in _chain(self._layers[base]):
                    if one not in set(_chain(layer)):
                        found |= {block * BLOCK // unit for block in one.blocks}
            return sorted(number for number in found if number * unit < layer.size)

    def _layer(self, name: str, sr: str, size: int, parent: _Layer | None = None) -> _Layer:
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / name
        with path.open("xb") as file:
            file.truncate(size)
        return _Layer(path, sr, size, parent)

    def _merge(self, child: str) -> None:
        """Let a layer take over what it alone has from the shared layer below it."""
        upper = self._layers[child]
        lower = upper.parent
        assert lower is not None
        os.truncate(lower.path, upper.size)
        with lower.path.open("r+b", buffering=0) as file:
            for block in sorted(upper.blocks):
                os.pwrite(file.fileno(), _pread(upper, block * BLOCK, BLOCK), block * BLOCK)
            file.truncate(upper.size)
        del self._layers[lower.path.name]
        lower.path.replace(upper.path)
        upper.blocks |= lower.blocks
        upper.parent = lower.parent


def _chain(layer: _Layer | None) -> Iterator[_Layer]:
    while layer is not None:
        yield layer
        layer = layer.parent


def _runs(layer: _Layer, begin: int, end: int) -> Iterator[tuple[_Layer | None, int, int]]:
    """The range, cut where another layer holds the bytes."""
    while begin < end:
        holder = layer.holder(begin // BLOCK)
        stop = (begin // BLOCK + 1) * BLOCK
        while stop < end and layer.holder(stop // BLOCK) is holder:
            stop += BLOCK
        yield holder, begin, min(stop, end)
        begin = min(stop, end)


def _pread(layer: _Layer, offset: int, length: int) -> bytes:
    with layer.path.open("rb", buffering=0) as file:
        # A disk that was enlarged may reach beyond the end of what it has in common with others.
        return os.pread(file.fileno(), length, offset).ljust(length, b"\0")
