"""The file systems of a running Linux, as /proc/self/mountinfo tells, and in what order they can be brought to a halt.

The format is that of proc(5): `36 35 98:0 /root /mount-point rw,noatime shared:1 - ext4 /dev/root rw,errors=continue`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent_protocol.outcomes import Failed

MOUNTINFO = "/proc/self/mountinfo"
SYSFS = "/sys"

_LINE = re.compile(
    rb"(?P<id>[0-9]{1,10}) [0-9]{1,10} (?P<device>[0-9]{1,10}:[0-9]{1,10}) (?P<root>[^ ]+) (?P<point>/[^ ]*) [^ ]+"
    rb"(?: [^ ]+)*? - (?P<kind>[^ ]+) (?P<source>[^ ]*) (?P<options>[^ ]+)"
)
_ESCAPE = re.compile(rb"\\([0-3][0-7]{2})")

_NEVER_FROZEN = frozenset({"zfs", "gfs2", "ocfs2"})
"""Kinds that lie on disks and are still left alone: zfs has no such call, and the others would halt a whole cluster."""


@dataclass(frozen=True)
class Mount:
    """One place where a file system can be reached.

    mount_id: what the kernel counts mounts by. device: `major:minor` of the super block. root: the directory of the
    file system that is seen at mount_point. source: what was mounted. writable: whether the super block is.
    """

    mount_id: int
    device: str
    root: str
    mount_point: str
    kind: str
    source: str
    writable: bool


@dataclass(frozen=True)
class FileSystem:
    """One super block on a disk. mounts: where it can be reached, those that show all of it first."""

    device: str
    mounts: tuple[Mount, ...]

    @property
    def name(self) -> str:
        """Its first mount point, in what UTF-8 can hold."""
        return os.fsencode(self.mounts[0].mount_point).decode("utf-8", "backslashreplace")

    @property
    def is_left_alone(self) -> bool:
        """Whether its kind is one that must not be brought to a halt, or cannot be."""
        return self.mounts[0].kind in _NEVER_FROZEN


def parse_mountinfo(content: bytes) -> list[Mount]:
    """The mounts in their order. Failed (`bad_mountinfo`) for a line that is not understood."""
    mounts = []
    for line in content.split(b"\n"):
        if not line:
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise Failed("bad_mountinfo", "the list of mounts has a line that is not understood")
        root, point, kind, source = (_unescaped(found[name]) for name in ("root", "point", "kind", "source"))
        writable = found["options"].split(b",")[0] != b"ro"
        mounts.append(Mount(int(found["id"]), found["device"].decode("ascii"), root, point, kind, source, writable))
    return mounts


def _unescaped(field: bytes) -> str:
    # The kernel writes blank, tab, newline, backslash and # as octal numbers, and everything else as it is.
    return os.fsdecode(_ESCAPE.sub(lambda found: bytes([int(found[1], 8)]), field))


def file_systems(mounts: Iterable[Mount]) -> list[FileSystem]:
    """The super blocks that are writable and lie on a block device, in the order of their first mounts."""
    by_device: dict[str, list[Mount]] = {}
    for mount in mounts:
        if mount.writable and _lies_on_a_disk(mount):
            by_device.setdefault(mount.device, []).append(mount)
    return [
        FileSystem(device, tuple(sorted(found, key=lambda mount: mount.root != "/")))
        for device, found in by_device.items()
    ]


def _lies_on_a_disk(mount: Mount) -> bool:
    if not mount.device.startswith("0:"):
        return True
    # btrfs and its like span several disks, and have no device number of their own. What runs in a program of a
    # user's names the device of FUSE.
    return mount.kind in _NEVER_FROZEN or (mount.source.startswith("/dev/") and not mount.kind.startswith("fuse"))


def freezing_order(
    chosen: Sequence[FileSystem], mounts: Sequence[Mount], sysfs: str | os.PathLike[str] = SYSFS
) -> list[FileSystem]:
    """The same file systems in the order of freezing: the last mounted first, and no file before what lies in it.

    A loop device's file system writes into a file of another one while it comes to a halt. So it goes first,
    whatever the order of mounting, which moving or binding mounts can hide. mounts: all of them.
    """
    below = {system.device: set(_devices_below(system, mounts, Path(sysfs))) for system in chosen}
    ordered: list[FileSystem] = []
    visited: set[str] = set()

    def visit(system: FileSystem) -> None:
        if system.device in visited:
            return
        visited.add(system.device)
        for other in reversed(chosen):
            if system.device in below[other.device]:
                visit(other)
        ordered.append(system)

    for system in reversed(chosen):
        visit(system)
    return ordered


def _devices_below(system: FileSystem, mounts: Sequence[Mount], sysfs: Path) -> Iterator[str]:
    """The file systems in which the files lie that this one's loop devices use."""
    device = system.device
    if device.startswith("0:"):
        try:
            number = Path(system.mounts[0].source).stat().st_rdev
        except (OSError, ValueError):
            return
        device = f"{os.major(number)}:{os.minor(number)}"
    for path in _backing_files(device, sysfs, set()):
        holders = [mount for mount in mounts if _is_in(path, mount.mount_point)]
        if holders:
            # The deepest one, and of several at one place the uppermost.
            yield max(enumerate(holders), key=lambda entry: (len(entry[1].mount_point), entry[0]))[1].device


def _backing_files(device: str, sysfs: Path, seen: set[str]) -> Iterator[str]:
    if device in seen:
        return
    seen.add(device)
    entry = sysfs / "dev/block" / device
    # Of a partition, the directory above is the whole disk's.
    for disk in (entry, entry / ".."):
        with contextlib.suppress(OSError):
            yield os.fsdecode((disk / "loop/backing_file").read_bytes().rstrip(b"\n"))
        with contextlib.suppress(OSError):
            for slave in sorted((disk / "slaves").iterdir()):
                yield from _backing_files((slave / "dev").read_text("ascii").strip(), sysfs, seen)


def _is_in(path: str, directory: str) -> bool:
    return path.startswith(directory.rstrip("/") + "/")
