"""A directory of images: what is in it is whole, and what a description says is not believed unseen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_protocol.outcomes import Refused, Unsuccessful
from compute_driver.errors import ImageNotFound, ImageUnavailable
from compute_driver.images import DiskFormat, Image, NewImage
from compute_driver.images import directory as image_directory
from compute_driver.images.directory import MAX_DESCRIPTION, ImageDirectory

NEW = NewImage("web", DiskFormat.VHD, 3, {"os_type": "linux"})


@pytest.fixture
def images(tmp_path: Path) -> ImageDirectory:
    return ImageDirectory(tmp_path / "images")


def content(image: Image) -> bytes:
    with image.source.open() as reader:
        assert reader.size is not None
        return b"".join(iter(lambda: reader.read(3), b""))


def describe(images: ImageDirectory, image_id: str, **members: Any) -> None:
    (images._directory / f"{image_id}.json").write_text(json.dumps({"disk_format": "raw", **members}))


def test_what_is_stored_is_found_again(images: ImageDirectory, tmp_path: Path) -> None:
    image = images.store(NEW, iter([b"abc", b"", b"def"]))
    assert (image.name, image.disk_format, image.min_disk_gb) == ("web", DiskFormat.VHD, 3)
    assert (image.size, image.sha256) == (6, hashlib.sha256(b"abcdef").hexdigest())
    assert image.properties == {"os_type": "linux"}
    assert content(image) == b"abcdef"
    again = ImageDirectory(tmp_path / "images").get(image.id)
    assert again == image
    names = sorted(path.name for path in images._directory.iterdir())
    assert names == [f"{image.id}.json", f"{image.id}.vhd"]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in images._directory.iterdir())
    assert images._directory.stat().st_mode & 0o777 == 0o700


def test_an_image_is_stored_under_the_id_that_it_is_to_have(images: ImageDirectory) -> None:
    new = NewImage("web", DiskFormat.RAW, id="chosen")
    assert images.store(new, iter([b"abc"])).id == "chosen"
    with pytest.raises(ImageUnavailable):
        images.store(new, iter([b"other"]))
    assert content(images.get("chosen")) == b"abc"
    with pytest.raises(Refused):
        NewImage("web", DiskFormat.RAW, id="../chosen")


@pytest.mark.parametrize("left", [[".x.vhd.part"], ["x.vhd"], ["x.vhd", ".x.json.part"], ["x.vhd", "x.json"]])
def test_what_a_crash_left_of_an_image_is_removed_with_it(images: ImageDirectory, left: list[str]) -> None:
    for name in left:
        (images._directory / name).write_bytes(b"{}")
    images.delete("x")
    assert list(images._directory.iterdir()) == []


def test_an_image_whose_bytes_break_off_is_not_there(images: ImageDirectory) -> None:
    seen: list[list[str]] = []

    def pieces() -> Iterator[bytes]:
        yield b"abc"
        seen.append([path.name for path in images._directory.iterdir() if not path.name.startswith(".")])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        images.store(NEW, pieces())
    assert seen == [[]]
    assert list(images._directory.iterdir()) == []


def test_an_image_whose_description_cannot_be_written_is_not_there(
    images: ImageDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(image_directory.json, "dumps", fail)
    with pytest.raises(OSError, match="No space"):
        images.store(NEW, iter([b"abc"]))
    assert list(images._directory.iterdir()) == []


def test_a_disk_that_is_full_is_told(images: ImageDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(image_directory.os, "fsync", fail)
    with pytest.raises(ImageUnavailable, match="No space left on device"):
        images.store(NEW, iter([b"abc"]))
    assert list(images._directory.iterdir()) == []


def test_what_is_deleted_is_gone(images: ImageDirectory) -> None:
    image = images.store(NEW, iter([b"abc"]))
    images.delete(image.id)
    assert list(images._directory.iterdir()) == []
    images.delete(image.id)
    with pytest.raises(ImageNotFound):
        images.get(image.id)


@pytest.mark.parametrize("image_ref", ["../x", "a/b", "", ".x", "x\0"])
def test_a_reference_is_no_path(images: ImageDirectory, image_ref: str) -> None:
    for use in (images.get, images.delete):
        with pytest.raises(Refused):
            use(image_ref)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "7",
        "{}",
        '{"disk_format": "iso"}',
        '{"disk_format": ["raw"]}',
        '{"disk_format": "raw", "sha256": "x"}',
        '{"disk_format": "raw", "size": "1"}',
        '{"disk_format": "raw", "name": 1}',
        '{"disk_format": "raw", "properties": []}',
        '{"disk_format": "raw", "url": 1}',
        '{"disk_format": "raw", "file": 1}',
        '{"disk_format": "raw", "url": "https://x/y", "file": "/x"}',
        "[" * 60000,
        " " * (MAX_DESCRIPTION + 1),
    ],
)
def test_a_description_that_is_none_is_refused(images: ImageDirectory, text: str) -> None:
    (images._directory / "a.json").write_text(text)
    with pytest.raises(Refused):
        images.get("a")


def test_a_description_may_name_a_server_and_then_needs_a_digest(images: ImageDirectory) -> None:
    describe(images, "a", url="https://x/y")
    with pytest.raises(Refused) as caught:
        images.get("a")
    assert caught.value.code == "image_unpinned"
    for truthy in (1, "true"):
        describe(images, "a", url="https://x/y", unpinned=truthy)
        with pytest.raises(Refused):
            images.get("a")
    describe(images, "a", url="https://x/y", unpinned=True)
    assert images.get("a").sha256 is None
    describe(images, "a", url="http://x/y", unpinned=True)
    with pytest.raises(Refused):
        images.get("a")


def test_a_description_may_name_a_file_within_the_directory_only(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for directory in (inside, outside):
        directory.mkdir()
        (directory / "x").write_bytes(b"abc")
    images = ImageDirectory(tmp_path / "images", files_below=inside)
    describe(images, "a", file=str(inside / "x"))
    assert content(images.get("a")) == b"abc"
    (inside / "link").symlink_to(outside / "x")
    for path in (outside / "x", inside / ".." / "out" / "x", inside / "link"):
        describe(images, "a", file=str(path))
        with pytest.raises(Unsuccessful) as caught:
            content(images.get("a"))
        assert caught.value.code == "image_source_refused"
