"""The bytes of virtual disks: a sparse file each, and what a disk shares with others only once.

As in a storage repository of VHD files, a clone or snapshot copies nothing: what both have in common becomes a layer of
its own, which nobody writes to any more, and each disk holds only what was written since. Files are named by the
disk's uuid; a file's holes are what the layer below it holds, or zeros if there is none below. So the files are still
there after a restart, and with what disk_index.py wrote down they are the same disks again.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .disk_index import DiskIndex, assert_holes_are_told, extents

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
        self._full: set[str] = set()
        self._layers: dict[str, _Layer] = {}
        self._lock = threading.RLock()
        self._index = DiskIndex(directory)

    def load(self) -> None:
        """Take over the files that a former process left, whatever it was doing at its end.

        ValueError when what it wrote down is damaged, or a file that disks have in common is missing; then nothing is
        changed. OSError when a file cannot be read.
        """
        with self._lock:
            last = self._index.read()
            if not last:
                return
            self.directory.mkdir(parents=True, exist_ok=True)
            assert_holes_are_told(self.directory)
            self._finish(*last)
            self._capacities.update(self._index.capacities)
            entries = self._index.entries
            for name in [name for name in entries if not (self.directory / name).exists()]:
                if any(entry.parent == name for entry in entries.values()):
                    raise ValueError(f"{self.directory / name} is missing; nothing was changed")
                # As when somebody deletes a file of a real repository: the next scan finds that the disk is gone.
                del entries[name]
            for name, entry in entries.items():
                path = self.directory / name
                self._layers[name] = _Layer(path, entry.sr, path.stat().st_size, shared=entry.shared)
            for name, entry in entries.items():
                self._layers[name].parent = self._layers[entry.parent] if entry.parent is not None else None
            for layer in self._layers.values():
                _find_blocks(layer)
            for layer in self._layers.values():
                if layer.parent is not None:
                    _complete_blocks(layer)
            self._index.rewrite()

    def _finish(self, operation: str, name: str, *details: Any) -> None:
        """Do what is still to be done of the last operation that was written down."""
        path = self.directory / name
        if operation == "create":
            _enlarge(path, details[1])
        elif operation == "remove":
            path.unlink(missing_ok=True)
        elif operation == "branch":
            shared, other = (self.directory / detail for detail in details)
            # The other one is made last.
            is_made = other.exists()
            if not is_made and not shared.exists():
                path.rename(shared)
            if shared.exists():
                for disk in [other] if is_made else [path, other]:
                    _enlarge(disk, shared.stat().st_size)
        elif operation == "merge" and (self.directory / details[0]).exists():
            layers = [_Layer(file, "", path.stat().st_size) for file in (path, self.directory / details[0])]
            upper, upper.parent = layers
            for layer in layers:
                _find_blocks(layer)
            # What the upper one had begun to copy from the lower one is in the lower one.
            _complete_blocks(upper)
            _copy_down(upper, layers[1])

    def close(self) -> None:
        """Write nothing more down."""
        with self._lock:
            self._index.close()

    def set_capacity(self, sr: str, capacity: int) -> None:
        """How many bytes a repository can hold. Without this there is no limit."""
        with self._lock:
            if self._capacities.get(sr) != capacity:
                self._index.note("capacity", sr, capacity)
                self._capacities[sr] = capacity

    def capacity(self, sr: str) -> int | None:
        """How many bytes a repository can hold; None when nobody said it."""
        return self._capacities.get(sr)

    def set_full(self, sr: str, full: bool) -> None:
        """Let something else take all the room that a repository has left, or take it no longer."""
        with self._lock:
            (self._full.add if full else self._full.discard)(sr)

    def is_full(self, sr: str) -> bool:
        """Whether something else takes all the room that a repository has left."""
        return sr in self._full

    def create(self, disk: str, sr: str, size: int) -> None:
        """A new disk of `size` bytes, all zero. FileExistsError when there is one of that name."""
        with self._lock:
            if (self.directory / disk).exists():
                raise FileExistsError(errno.EEXIST, "there is such a disk", disk)
            self._index.note("create", disk, sr, size)
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
        """Bytes that all disks of a repository take, and what else takes room there."""
        with self._lock:
            capacity = self._capacities.get(sr)
            if sr in self._full and capacity is not None:
                return capacity
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
            self._index.note("branch", disk, shared, other)
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
            layer = self._layers[disk]
            self._index.note("remove", disk)
            del self._layers[disk]
            layer.path.unlink(missing_ok=True)
            parent = layer.parent
            while parent is not None and parent.shared:
                children = [name for name, other in self._layers.items() if other.parent is parent]
                if len(children) > 1:
                    return
                if children:
                    self._merge(children[0])
                    return
                self._index.note("remove", parent.path.name)
                del self._layers[parent.path.name]
                parent.path.unlink(missing_ok=True)
                parent = parent.parent

    def remove_repository(self, sr: str) -> None:
        """Remove all disks of a repository."""
        with self._lock:
            for name in self.names(sr):
                self._index.note("remove", name)
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
        return _Layer(self._make_file(name, size), sr, size, parent)

    def _make_file(self, name: str, size: int) -> Path:
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / name
        with path.open("xb") as file:
            file.truncate(size)
        return path

    def _merge(self, child: str) -> None:
        """Let a layer take over what it alone has from the shared layer below it."""
        upper = self._layers[child]
        lower = upper.parent
        assert lower is not None
        self._index.note("merge", child, lower.path.name)
        _copy_down(upper, lower)
        del self._layers[lower.path.name]
        upper.blocks |= lower.blocks
        upper.parent = lower.parent


def _enlarge(path: Path, size: int) -> None:
    """Make a file that has at least that size, unless there is one."""
    with path.open("ab") as file:
        if path.stat().st_size < size:
            file.truncate(size)


def _copy_down(upper: _Layer, lower: _Layer) -> None:
    """Put what the upper layer holds into the lower one's file, and that into the place of the upper one's."""
    os.truncate(lower.path, upper.size)
    with lower.path.open("r+b", buffering=0) as file:
        for block in sorted(upper.blocks):
            os.pwrite(file.fileno(), _pread(upper, block * BLOCK, BLOCK), block * BLOCK)
        file.truncate(upper.size)
    lower.path.replace(upper.path)


def _find_blocks(layer: _Layer) -> None:
    """Learn from a file's holes which blocks count."""
    with layer.path.open("rb", buffering=0) as file:
        for begin, end in extents(file.fileno(), layer.size):
            layer.blocks.update(range(begin // BLOCK, -(-end // BLOCK)))


def _complete_blocks(layer: _Layer) -> None:
    """Fill up the blocks of which a writer that was killed has written the beginning: above others, a block is whole.

    What is missing is what the layer below it holds.
    """
    below = layer.parent
    assert below is not None
    with layer.path.open("r+b", buffering=0) as file:
        written = list(extents(file.fileno(), layer.size))
        for begin, end in zip([0, *(end for _, end in written)], [*(begin for begin, _ in written), layer.size]):
            # A hole. Only where it shares a block with something that was written, the block is not whole.
            for block in {begin // BLOCK, max(end - 1, begin) // BLOCK} & layer.blocks:
                first, stop = max(begin, block * BLOCK), min(end, (block + 1) * BLOCK, layer.size)
                holder = below.holder(block)
                if holder is not None and first < stop:
                    os.pwrite(file.fileno(), _pread(holder, first, stop - first), first)


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
