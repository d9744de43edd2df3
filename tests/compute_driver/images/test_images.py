"""Images that make no sense, or that one must not trust, cannot be built."""

from __future__ import annotations

from typing import Any

import pytest

from agent_protocol.outcomes import Refused
from compute_driver.images import DiskFormat, Image, NewImage, check_id
from compute_driver.images.sources import HttpsSource

SHA = "0" * 64


def image(**members: Any) -> Image:
    given = {"id": "a", "name": "a", "disk_format": DiskFormat.RAW, "source": HttpsSource("https://x/y"), "sha256": SHA}
    return Image(**{**given, **members})


@pytest.mark.parametrize(
    "members",
    [
        {"id": ""},
        {"id": "../x"},
        {"id": ".x"},
        {"id": "a/b"},
        {"id": "a\n"},
        {"id": "x" * 129},
        {"id": None},
        {"name": "a\nb"},
        {"name": 7},
        {"sha256": SHA.replace("0", "A")},
        {"sha256": SHA[1:]},
        {"sha256": 0},
        {"size": 0},
        {"size": "7"},
        {"min_disk_gb": -1},
        {"min_disk_gb": True},
        {"properties": {"a": 1}},
    ],
)
def test_what_makes_no_sense_is_refused(members: dict[str, Any]) -> None:
    image()
    with pytest.raises(Refused) as caught:
        image(**members)
    assert caught.value.code == "bad_image"


def test_an_image_from_a_server_needs_a_digest_unless_its_source_says_otherwise() -> None:
    with pytest.raises(Refused) as caught:
        image(sha256=None)
    assert caught.value.code == "image_unpinned"
    assert image(sha256=None, source=HttpsSource("https://x/y", digest_required=False)).sha256 is None


def test_a_new_image_is_checked_as_well() -> None:
    NewImage("a", DiskFormat.RAW)
    for members in ({"name": "\0"}, {"min_disk_gb": -1}, {"properties": {1: "a"}}):
        with pytest.raises(Refused):
            NewImage(**{"name": "a", "disk_format": DiskFormat.RAW, **members})  # type: ignore[arg-type]


def test_an_id_is_a_plain_name() -> None:
    assert check_id("0f-A_b.raw") == "0f-A_b.raw"
