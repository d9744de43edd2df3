"""Bringing the file systems of the running Linux to a halt, so that a snapshot of its disks is consistent.

What is frozen is thawed again by its deadline, whatever happens to the agent: processes of their own see to that, see
freeze_guard.py. They hold a lock as long as there is one of them. If all are killed at once, a mark below /run is left,
and thaw_leftovers() thaws what it names.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_protocol.outcomes import Busy, Failed, Refused, Unknown, Unsuccessful, Unsupported

from .files import read, replace
from .freeze_guard import ASKED, DEADLINE, ERROR, Kernel, Watch, start
from .mounts import MOUNTINFO, SYSFS, FileSystem, Mount, file_systems, freezing_order, parse_mountinfo
from .paths import GuestPath, failures, open_parent

MARK = GuestPath("/run/xenward/frozen.json")
"""What is frozen, for the agent's next run. /run is a tmpfs, which is not frozen and is empty after a boot."""

UNDO_SECONDS = 5.0
"""How long after the deadline the agent waits for the word that a freeze which came too late is undone."""

THAW_SECONDS = 10.0
"""How long the agent waits for the word that all is thawed. It takes one write to the superblock of each."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Frozen:
    """What a freeze reached: mount points, of which some may be left as they were, and seconds until the deadline."""

    file_systems: tuple[str, ...]
    skipped: tuple[str, ...]
    until_seconds: float


@dataclass(frozen=True)
class Thawed:
    """What a thaw ended: the mount points, and for how many seconds all of them had been frozen."""

    file_systems: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class _Held:
    """A freeze that has not been ended by thaw(). names: of all file systems that the guard knows, by index."""

    watch: Watch
    names: tuple[str, ...]
    frozen: tuple[str, ...] = ()
    since: float = 0.0


class Freezer:
    """Freezes and thaws the file systems of one guest. For one thread.

    root: the directory below which MARK lies. mountinfo: the file that lists the mounts; what it does not list is not
    touched. sysfs: where loop devices tell their files. kernel: its calls.
    """

    def __init__(
        self,
        root: str = "/",
        mountinfo: str | os.PathLike[str] = MOUNTINFO,
        sysfs: str | os.PathLike[str] = SYSFS,
        kernel: Kernel | None = None,
    ) -> None:
        self._root = root
        self._mountinfo = Path(mountinfo)
        self._sysfs = sysfs
        self._kernel = kernel or Kernel()
        self._held: _Held | None = None

    def freeze(self, seconds: float) -> Frozen:
        """Freeze everything that can be, for at most that many seconds from now, the time it takes included.

        Busy with `frozen` when this or another agent holds something frozen, and `already_frozen` when somebody else
        does. Unsupported (`nothing_to_freeze`). Failed with the system's errno name when the mark cannot be written or
        a file system cannot be frozen, `freeze_timeout` when the deadline came first, `freeze_interrupted` when the
        guard was told to end, and `fork_failed`. After all of these nothing is frozen by us.

        Failed with `thaw_failed` or `guard_killed` when that could not be reached. Unknown (`freeze_stuck`) when the
        kernel does not come back: what it froze by then is thawed, and so is the rest as soon as it does.
        """
        if self._is_frozen():
            raise Busy("frozen", "the file systems are frozen already")
        self._forget()
        # The agent goes on meanwhile, and a module that it loads must not be written to a frozen disk as bytecode.
        sys.dont_write_bytecode = True
        self.thaw_leftovers()
        with contextlib.ExitStack() as opened:
            directory = self._lock(opened, make=True)
            if directory is None:
                raise Busy("frozen", "a freeze from before is not over")
            chosen, skipped = self._open_all(opened)
            if not chosen:
                raise Unsupported("nothing_to_freeze", "this guest has no file system that can be frozen")
            with failures(MARK.text):
                replace(directory, MARK.name, _mark([system.device for system, _ in chosen]), mode=0o600)
            descriptors = [descriptor for _, descriptor in chosen]
            try:
                watch = start(self._kernel, descriptors, directory, MARK.name, seconds)
            except OSError:
                os.unlink(MARK.name, dir_fd=directory)
                raise Failed("fork_failed", "there is no room for the processes that would thaw") from None
        names = tuple(system.name for system, _ in chosen)
        self._held = _Held(watch, names)
        report = self._first_report(watch, names, seconds + UNDO_SECONDS)
        frozen = tuple(names[index] for index in report["frozen"])
        self._held = _Held(watch, names, frozen, self._kernel.now())
        return Frozen(frozen, (*skipped, *(names[index] for index in report["skipped"])), max(0.0, report["until"]))

    def thaw(self) -> Thawed:
        """Thaw what freeze() froze.

        Refused with `not_frozen`, and once with `thawed_by_deadline` when it had to be thawed before: then a snapshot
        cannot be trusted. Failed with `thawed_early` when somebody else thawed a part, with `guard_killed` when that
        cannot be told, and with `thaw_failed`. Unknown (`thaw_stuck`) when there is no answer after THAW_SECONDS; the
        guard goes on.
        """
        held = self._held
        if held is None:
            raise Refused("not_frozen", "nothing is frozen")
        try:
            report = held.watch.receive(0)
            if report is None:
                held.watch.thaw()
                report = held.watch.receive(THAW_SECONDS)
        except EOFError:
            self._forget()
            seconds = self._kernel.now() - held.since
            if sorted(self.thaw_leftovers(wait=True)) == sorted(held.frozen):
                return Thawed(held.frozen, seconds)
            raise Failed("guard_killed", "what guarded the freeze was killed; the snapshot is not safe") from None
        if report is None:
            raise Unknown("thaw_stuck", "the kernel does not come back from thawing")
        self._forget()
        _check_thawed(report, held.names)
        if report["why"] != ASKED:
            raise Refused("thawed_by_deadline", f"all was thawed before ({report['why']}); the snapshot is not safe")
        if report["early"]:
            early = _listed(report["early"], held.names)
            raise Failed("thawed_early", f"somebody else thawed {early} before; the snapshot is not safe")
        return Thawed(tuple(held.names[index] for index in report["thawed"]), report["seconds"])

    def thaw_leftovers(self, *, wait: bool = False) -> tuple[str, ...]:
        """Thaw what an earlier run of the agent left frozen whose guards were killed too. For the agent's start.

        wait: for the end of guards, which then must be dying. Without it, what they guard is left to them.
        Returns the mount points that were frozen. What cannot be thawed is logged, and its mark stays.
        """
        with contextlib.ExitStack() as opened:
            try:
                directory = self._lock(opened, make=False, wait=wait)
                # Without the lock: those who have it thaw.
                content = None if directory is None else read(directory, MARK.name)
                if directory is None or content is None:
                    return ()
                devices = _marked(content)
                systems = {system.device: system for system in file_systems(self._mounts())}
                thawed, failed = [], False
                for device in reversed(devices):
                    if device not in systems:
                        continue  # unmounted since
                    try:
                        self._kernel.thaw(self._open(opened, systems[device]))
                        thawed.append(systems[device].name)
                    except OSError as error:
                        failed = failed or error.errno != errno.EINVAL
                if failed:
                    _log.error("file systems that an earlier run froze cannot be thawed")
                else:
                    os.unlink(MARK.name, dir_fd=directory)
            except (Unsuccessful, OSError) as error:
                _log.error("what an earlier run may have left frozen cannot be looked at: %s", error)
                return ()
        if thawed:
            _log.warning("an earlier run left file systems frozen; they are thawed")
        return tuple(thawed)

    def _is_frozen(self) -> bool:
        try:
            return self._held is not None and self._held.watch.receive(0) is None
        except EOFError:
            return False

    def _first_report(self, watch: Watch, names: Sequence[str], seconds: float) -> dict[str, Any]:
        try:
            report = watch.receive(seconds)
        except EOFError:
            self._forget()
            self.thaw_leftovers(wait=True)
            raise Failed("guard_killed", "what guards the freeze was killed in the middle of it") from None
        if report is None:
            self._forget()
            raise Unknown("freeze_stuck", "the kernel waits for a file system; it is thawed as soon as that is frozen")
        if "why" in report:
            self._forget()
            raise _freeze_error(report, names)
        return report

    def _forget(self) -> None:
        if self._held is not None:
            self._held.watch.close()
            self._held = None

    def _mounts(self) -> list[Mount]:
        with failures(os.fspath(self._mountinfo)):
            return parse_mountinfo(self._mountinfo.read_bytes())

    def _lock(self, opened: contextlib.ExitStack, *, make: bool, wait: bool = False) -> int | None:
        """The mark's directory, open and locked for whoever holds the descriptor; None when others hold the lock.

        None too when there is no such directory and none is to be made.
        """
        with failures(MARK.text):
            try:
                with open_parent(self._root, MARK, make=make) as directory:
                    descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
            except FileNotFoundError:
                if make:
                    raise
                return None
            opened.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                return None
            return descriptor

    def _open_all(self, opened: contextlib.ExitStack) -> tuple[list[tuple[FileSystem, int]], list[str]]:
        """What is to be frozen, in that order and open, and the names of what cannot be."""
        mounts = self._mounts()
        chosen, skipped = [], []
        for system in freezing_order(file_systems(mounts), mounts, self._sysfs):
            try:
                if system.is_left_alone:
                    skipped.append(system.name)
                else:
                    chosen.append((system, self._open(opened, system)))
            except OSError:
                skipped.append(system.name)
        return chosen, skipped

    def _open(self, opened: contextlib.ExitStack, system: FileSystem) -> int:
        error = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        for mount in system.mounts:
            try:
                descriptor = self._kernel.open(mount)
            except OSError as caught:
                error = caught
            else:
                opened.callback(os.close, descriptor)
                return descriptor
        raise error


def _mark(devices: Sequence[str]) -> bytes:
    return json.dumps({"devices": devices}).encode("ascii")


def _marked(untrusted_content: bytes) -> list[str]:
    try:
        devices = json.loads(untrusted_content)["devices"]
    except (ValueError, RecursionError, KeyError, TypeError):
        devices = None
    if not isinstance(devices, list) or not all(isinstance(device, str) for device in devices):
        raise Failed("bad_mark", f"{MARK.text} is not what the agent writes")
    return devices


def _listed(indices: Sequence[int], names: Sequence[str]) -> str:
    return ", ".join(names[index] for index in indices)[:500]


def _check_thawed(report: dict[str, Any], names: Sequence[str]) -> None:
    if report["unthawed"]:
        raise Failed("thaw_failed", f"the kernel does not thaw {_listed(report['unthawed'], names)}")


def _freeze_error(report: dict[str, Any], names: Sequence[str]) -> Unsuccessful:
    """What a freeze is answered with that the guard undid."""
    _check_thawed(report, names)
    if report["why"] == DEADLINE:
        return Failed("freeze_timeout", "not all was frozen by the deadline; all is thawed again")
    if report["why"] != ERROR:
        return Failed("freeze_interrupted", f"the freeze was interrupted ({report['why']}); all is thawed again")
    if report["error"] is None:
        return Unsupported("nothing_to_freeze", "none of this guest's file systems can be frozen")
    index, number = report["error"]
    if number == errno.EBUSY:
        return Busy("already_frozen", f"{names[index]} is frozen by somebody else")
    name = errno.errorcode.get(number, "EIO")
    return Failed(name.lower(), f"{name}: {names[index]} cannot be frozen; all is thawed again")
