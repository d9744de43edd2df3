"""Images: what a guest's disk is made from, where its bytes are, and the service that knows about them.

A driver needs an Image and reads it through its source. Where images come from, and where snapshots go, is the matter
of an image service: the built-in one is a directory (directory.py); others are installed as entry points of
the group `xenward.image_services` (services.py).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent_protocol.outcomes import Refused

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_MAX_NAME = 255


class DiskFormat(str, enum.Enum):
    """How the bytes of an image describe a disk."""

    RAW = "raw"
    """The disk as it is. Its zeros are sent as well: XenServer takes no holes, so `vhd` is the better one to keep."""
    VHD = "vhd"
    QCOW2 = "qcow2"
    """Hosts of 2026 and later take it, and only where the storage repository does."""

    def __str__(self) -> str:
        return self.value


class ImageReader(Protocol):
    """An image that is being read."""

    @property
    def size(self) -> int | None:
        """How many bytes it has in all; None when nobody said."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, none only at the end. ImageUnavailable when they cannot be had."""


class ImageSource(Protocol):
    """Where the bytes of an image are."""

    @property
    def digest_required(self) -> bool:
        """Whether an image may be read from here only when its SHA-256 is known beforehand."""

    def open(self) -> AbstractContextManager[ImageReader]:
        """Begin to read. ImageUnavailable when that is not possible, Refused when a rule forbids it."""


def check_id(untrusted_id: object) -> str:
    """The id of an image. Refused unless it is a word that can be the name of a file and a part of a label."""
    if not isinstance(untrusted_id, str) or not _ID.match(untrusted_id):
        raise Refused("bad_image", "an image's id has 1 to 128 letters, digits, dots, dashes and underscores")
    return untrusted_id


def _check_name(untrusted_name: object) -> None:
    if not isinstance(untrusted_name, str) or len(untrusted_name) > _MAX_NAME or not untrusted_name.isprintable():
        raise Refused("bad_image", f"an image's name has at most {_MAX_NAME} printable characters")


def _check_properties(untrusted_properties: Mapping[Any, Any], min_disk_gb: int) -> None:
    if not all(isinstance(part, str) for pair in untrusted_properties.items() for part in pair):
        raise Refused("bad_image", "an image's properties are text")
    if type(min_disk_gb) is not int or min_disk_gb < 0:
        raise Refused("bad_image", "an image's smallest disk is a number of GiB")


@dataclass(frozen=True)
class Image:
    """An image that can be read. Refused when it makes no sense, or may not be read without a digest and has none.

    id: identifies the bytes as long as sha256 is the same: both are the key of caches. size: bytes of the file, None
    when unknown. min_disk_gb: GiB that a root disk must have at least. properties: what the guest needs, under
    Glance's names: os_type, hw_firmware_type, os_secure_boot, img_use_agent and others.
    """

    id: str
    name: str
    disk_format: DiskFormat
    source: ImageSource = field(repr=False)
    sha256: str | None = None
    size: int | None = None
    min_disk_gb: int = 0
    properties: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_id(self.id)
        _check_name(self.name)
        _check_properties(self.properties, self.min_disk_gb)
        if self.sha256 is None:
            if self.source.digest_required:
                raise Refused("image_unpinned", f"image {self.id} has no SHA-256, without which it may not be read")
        elif not isinstance(self.sha256, str) or not _SHA256.match(self.sha256):
            raise Refused("bad_image", "a SHA-256 is 64 hexadecimal digits, lower case")
        if self.size is not None and (type(self.size) is not int or self.size <= 0):
            raise Refused("bad_image", "an image's size is a number of bytes")


@dataclass(frozen=True)
class NewImage:
    """An image that is to be stored. Refused when it makes no sense. The members are those of Image.

    id: under which it is stored, for who must find what is left of it after a crash; None for any that is free.
    """

    name: str
    disk_format: DiskFormat
    min_disk_gb: int = 0
    properties: Mapping[str, str] = field(default_factory=dict)
    id: str | None = None

    def __post_init__(self) -> None:
        if self.id is not None:
            check_id(self.id)
        _check_name(self.name)
        _check_properties(self.properties, self.min_disk_gb)


class ImageService(Protocol):
    """Knows images by a reference, which is the id of those that it stored itself."""

    def get(self, image_ref: str) -> Image:
        """The image. ImageNotFound when there is none, Refused when it is not fit for use."""

    def store(self, new: NewImage, pieces: Iterator[bytes]) -> Image:
        """Keep an image, whose bytes come in pieces; gives it with its id, size and SHA-256.

        Nobody sees it before the last piece came. When `pieces` raises, nothing is kept and the error passes through.
        """

    def delete(self, image_ref: str) -> None:
        """Forget an image that was stored, or what is left of storing it; nothing happens when there is none."""
