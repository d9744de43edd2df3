"""The built-in image service: a directory. `<id>.json` describes an image, `<id>.<format>` holds its bytes.

An image exists when its description does: that is written last and removed first. Either appears under its name whole
or not at all, and the directory may be shared by many processes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from agent_protocol.outcomes import Refused

from ..errors import ImageNotFound, ImageUnavailable
from . import DiskFormat, Image, ImageSource, NewImage, check_id
from .sources import FileSource, HttpsSource

MAX_DESCRIPTION = 64 * 1024
"""Bytes that a description may have."""

_SUFFIX = ".json"


class ImageDirectory:
    """Images in a directory, which is made when it is missing.

    A description that somebody wrote by hand may name another place instead: `"url": "https://…"`, then with `sha256`
    or `"unpinned": true`; or `"file": "/…"`, within files_below.

    ca_file, timeout, max_size: for such URLs (see HttpsSource). files_below: directory that such files must be in;
    by default this one. loopback_http: also allow http:// from this machine's own addresses.
    """

    def __init__(
        self,
        directory: Path,
        *,
        files_below: Path | None = None,
        ca_file: Path | None = None,
        timeout: float = 60.0,
        max_size: int = 1024**4,
        loopback_http: bool = False,
    ) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory.resolve()
        self._files_below = files_below or self._directory
        self._https = partial(
            HttpsSource, ca_file=ca_file, timeout=timeout, max_size=max_size, loopback_http=loopback_http
        )

    def get(self, image_ref: str) -> Image:
        """The image. ImageNotFound; ImageUnavailable when the description cannot be read, Refused when it is wrong."""
        description = self._describe(check_id(image_ref))
        disk_format = _disk_format(description.get("disk_format"))
        return Image(
            id=image_ref,
            name=description.get("name", image_ref),
            disk_format=disk_format,
            source=self._source(image_ref, description, disk_format),
            sha256=description.get("sha256"),
            size=description.get("size"),
            min_disk_gb=description.get("min_disk_gb", 0),
            properties=_properties(description.get("properties", {})),
        )

    def _describe(self, image_id: str) -> dict[str, Any]:
        try:
            with (self._directory / f"{image_id}{_SUFFIX}").open("rb") as file:
                untrusted_text = file.read(MAX_DESCRIPTION + 1)
            if len(untrusted_text) > MAX_DESCRIPTION:
                raise _bad(image_id)
            untrusted_description = json.loads(untrusted_text)
        except FileNotFoundError:
            raise ImageNotFound(image_id) from None
        except OSError as error:
            raise ImageUnavailable(image_id, error.strerror or type(error).__name__) from None
        except (ValueError, RecursionError):
            raise _bad(image_id) from None
        if not isinstance(untrusted_description, dict):
            raise _bad(image_id)
        return untrusted_description

    def _source(self, image_id: str, description: dict[str, Any], disk_format: DiskFormat) -> ImageSource:
        url, file = description.get("url"), description.get("file")
        if url is None and file is None:
            return FileSource(self._directory / f"{image_id}.{disk_format}", self._directory)
        if isinstance(url, str) and file is None:
            return self._https(url, digest_required=description.get("unpinned") is not True)
        if isinstance(file, str) and url is None:
            return FileSource(Path(file), self._files_below)
        raise _bad(image_id)

    def store(self, new: NewImage, pieces: Iterator[bytes]) -> Image:
        """Keep an image under its id, or a new one; see ImageService.

        ImageUnavailable when the directory cannot be written, or has that id already.
        """
        image_id = new.id or str(uuid.uuid4())
        data = self._directory / f"{image_id}.{new.disk_format}"
        if (self._directory / f"{image_id}{_SUFFIX}").exists() or data.exists():
            raise ImageUnavailable(image_id, os.strerror(errno.EEXIST))
        digest, size = hashlib.sha256(), 0
        temporary = _unfinished(data)
        try:
            with _created(temporary, image_id) as file:
                for piece in pieces:
                    _write(file, piece, image_id)
                    digest.update(piece)
                    size += len(piece)
                _commit(file, data, image_id)
            self._write_description(image_id, new, digest.hexdigest(), size)
        except BaseException:
            for path in (temporary, data):
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            raise
        return self.get(image_id)

    def _write_description(self, image_id: str, new: NewImage, sha256: str, size: int) -> None:
        description = {
            "name": new.name,
            "disk_format": str(new.disk_format),
            "sha256": sha256,
            "size": size,
            "min_disk_gb": new.min_disk_gb,
            "properties": dict(new.properties),
        }
        path = self._directory / f"{image_id}{_SUFFIX}"
        temporary = _unfinished(path)
        try:
            with _created(temporary, image_id) as file:
                _write(file, json.dumps(description, indent=2).encode("utf-8"), image_id)
                _commit(file, path, image_id)
        except BaseException:
            for each in (temporary, path):
                with suppress(OSError):
                    each.unlink(missing_ok=True)
            raise

    def delete(self, image_ref: str) -> None:
        """Remove an image, or what is left of storing it; nothing happens when there is none.

        Bytes that are elsewhere stay.
        """
        check_id(image_ref)
        try:
            for suffix in (_SUFFIX, *(f".{disk_format}" for disk_format in DiskFormat)):
                path = self._directory / f"{image_ref}{suffix}"
                path.unlink(missing_ok=True)
                _unfinished(path).unlink(missing_ok=True)
        except OSError as error:
            raise ImageUnavailable(image_ref, error.strerror or type(error).__name__) from None


def _bad(image_id: str) -> Refused:
    return Refused("bad_image", f"the description of image {image_id} is not usable")


def _disk_format(untrusted_name: object) -> DiskFormat:
    try:
        return DiskFormat(untrusted_name)
    except ValueError:
        raise Refused("bad_image", f"an image's format is one of {', '.join(DiskFormat)}") from None


def _properties(untrusted_properties: object) -> Mapping[str, str]:
    if not isinstance(untrusted_properties, dict):
        raise Refused("bad_image", "an image's properties are text")
    return untrusted_properties


def _unfinished(path: Path) -> Path:
    """What a file is called until it is whole."""
    return path.with_name(f".{path.name}.part")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _created(path: Path, image_id: str) -> BinaryIO:
    try:
        return open(path, "xb", opener=_private)
    except OSError as error:
        raise ImageUnavailable(image_id, error.strerror or type(error).__name__) from None


def _write(file: BinaryIO, data: bytes, image_id: str) -> None:
    try:
        file.write(data)
    except OSError as error:
        raise ImageUnavailable(image_id, error.strerror or type(error).__name__) from None


def _commit(file: BinaryIO, path: Path, image_id: str) -> None:
    """Let a whole file appear under its name, so that it survives a loss of power."""
    try:
        file.flush()
        os.fsync(file.fileno())
        Path(file.name).rename(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise ImageUnavailable(image_id, error.strerror or type(error).__name__) from None
