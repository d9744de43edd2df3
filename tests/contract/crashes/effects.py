"""How one sees, without asking the service, whether an order has had its effect."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from compute_driver.states import PowerState

from .seen import Guest


class Effect(Protocol):
    """What an order is to bring about."""

    def has_happened(self, before: Guest | None, after: Guest | None) -> bool | None:
        """By the guest before the order and after it; None when nobody can tell."""


@dataclass(frozen=True)
class Exists:
    """A guest of these sizes, started or not, with that password if it has one."""

    sizes: tuple[int, int, int]
    power: PowerState
    password: str = ""

    def has_happened(self, before: Guest | None, after: Guest | None) -> bool | None:
        if after is None:
            return False
        if self.power != after.power or self.sizes != after.sizes or (self.password and not after.opens(self.password)):
            return None
        return True


@dataclass(frozen=True)
class Gone:
    """No guest."""

    def has_happened(self, before: Guest | None, after: Guest | None) -> bool | None:
        return after is None if before is not None else None


@dataclass(frozen=True)
class Power:
    """A guest in that state."""

    wanted: PowerState

    def has_happened(self, before: Guest | None, after: Guest | None) -> bool | None:
        if before is not None and before.power == self.wanted:
            return None
        return after is not None and after.power == self.wanted


@dataclass(frozen=True)
class Rebooted:
    """It runs in another domain than before."""

    def has_happened(self, before: Guest | None, after: Guest | None) -> bool | None:
        return after is not None and before is not None and after.domid not in (-1, before.domid)


@dataclass(frozen=True)
class PasswordSet:
    """The administrator's password is the new one; nobody else's change counts."""

    password: str

    def has_happened(self, before: Guest | None, after: Guest | None) -> bool | None:
        if before is None or after is None:
            return None
        return after.opens(self.password)


@dataclass(frozen=True)
class FileThere:
    """A file with this content."""

    path: str
    content: bytes

    def has_happened(self, before: Guest | None, after: Guest | None) -> bool | None:
        return None if after is None else after.file(self.path) == self.content


@dataclass(frozen=True)
class KeyThere:
    """A key of the administrator's."""

    key: str

    def has_happened(self, before: Guest | None, after: Guest | None) -> bool | None:
        if after is None:
            return None
        return self.key.encode() in (after.file("/root/.ssh/authorized_keys") or b"").splitlines()


@dataclass(frozen=True)
class ImageThere:
    """A whole image of that name in a directory of images."""

    directory: Path
    name: str

    def has_happened(self, before: Guest | None, after: Guest | None) -> bool | None:
        found = [it for it in map(_description, self.directory.glob("*.json")) if it.get("name") == self.name]
        if not found:
            return False
        assert len(found) == 1, f"{len(found)} images are called {self.name}"
        return self._is_whole(found[0])

    def _is_whole(self, description: dict[str, str]) -> bool:
        data = (self.directory / f"{description['id']}.{description['disk_format']}").read_bytes()
        # A VHD ends with its footer (Virtual Hard Disk Image Format Specification).
        return hashlib.sha256(data).hexdigest() == description["sha256"] and data[-512:].startswith(b"conectix")


def _description(path: Path) -> dict[str, str]:
    return {**json.loads(path.read_text()), "id": path.stem}


@dataclass(frozen=True)
class NewRoot:
    """Another root disk. A guest between two has neither. Where that did not come to its end, the instance is in error:
    what was on the former disk is gone.
    """

    def has_happened(self, before: Guest | None, after: Guest | None) -> bool | None:
        if before is None or after is None or not after.root_disk:
            return None
        return after.root_disk != before.root_disk


def _became(was: bool, after: bool) -> bool | None:
    """What was so before tells nothing."""
    return None if was else after


@dataclass(frozen=True)
class Rescued:
    """It runs from another disk than its own, or does so no longer."""

    wanted: bool

    def has_happened(self, before: Guest | None, after: Guest | None) -> bool | None:
        return _became(self._is_so(before), self._is_so(after))

    def _is_so(self, guest: Guest | None) -> bool:
        return guest is not None and guest.is_rescued == self.wanted


@dataclass(frozen=True)
class Sized:
    """These sizes, with or without a way back."""

    sizes: tuple[int, int, int]
    has_way_back: bool

    def has_happened(self, before: Guest | None, after: Guest | None) -> bool | None:
        return _became(self._is_so(before), self._is_so(after))

    def _is_so(self, guest: Guest | None) -> bool:
        return guest is not None and guest.sizes == self.sizes and guest.is_resized == self.has_way_back


@dataclass(frozen=True)
class OnNode:
    """It is there, if it is anywhere."""

    node: str

    def has_happened(self, before: Guest | None, after: Guest | None) -> bool | None:
        if before is None or after is None or after.node == "" or before.node == self.node:
            return None
        return after.node == self.node


@dataclass(frozen=True)
class VolumeThere:
    """A disk hangs on it, or does not."""

    uuid: str
    wanted: bool

    def has_happened(self, before: Guest | None, after: Guest | None) -> bool | None:
        if before is None or (self.uuid in before.volumes) == self.wanted:
            return None
        return after is not None and (self.uuid in after.volumes) == self.wanted


@dataclass(frozen=True)
class InterfaceThere:
    """An interface with that address, or none."""

    mac: str
    wanted: bool

    def has_happened(self, before: Guest | None, after: Guest | None) -> bool | None:
        if before is None or (self.mac in before.macs) == self.wanted:
            return None
        return after is not None and (self.mac in after.macs) == self.wanted


@dataclass(frozen=True)
class MetadataThere:
    """The guest is told so."""

    key: str
    value: str

    def has_happened(self, before: Guest | None, after: Guest | None) -> bool | None:
        return after is not None and after.metadata.get(self.key) == self.value
