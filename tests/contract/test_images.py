"""Instances made from images: what the image service holds arrives on the guest's disk, and once in the pool."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path

import pytest

from compute_driver.images import DiskFormat, NewImage
from compute_driver.images.directory import ImageDirectory

from .house import House

MIB = 1024 * 1024


@pytest.fixture
def content() -> bytes:
    return os.urandom(2 * MIB) + bytes(2 * MIB)


@pytest.fixture
def image(directory: Path, content: bytes) -> str:
    """The id of an image that the service's own directory holds."""
    pieces = iter([content[:MIB], content[MIB:]])
    return ImageDirectory(directory / "images").store(NewImage("debian", DiskFormat.RAW), pieces).id


def root_disk(home: House, instance: str, size: int) -> bytes:
    """The first bytes of the instance's first disk, as XenServer gives them."""
    with home.session() as xenapi:
        (vbd,) = (
            record for record in map(xenapi.VBD.get_record, home.vm(instance)["VBDs"]) if record["userdevice"] == "0"
        )
        # An attached disk cannot be exported; a snapshot of it can.
        snapshot = xenapi.VDI.snapshot(vbd["VDI"])
    credentials = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    credentials.add_password(None, home.simulator.url, home.simulator.username, home.simulator.password)
    opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(credentials))
    with opener.open(f"{home.simulator.url}/export_raw_vdi?vdi={snapshot}&format=raw") as answer:
        return bytes(answer.read(size))


def test_an_image_is_what_the_guest_boots_from(home: House, image: str, content: bytes) -> None:
    home.simulator.control.log_calls()
    one = home.create("one", "--image", image, "--disk", "1")
    assert root_disk(home, one, len(content)) == content
    assert home.xenward("server", "show", "one").shown["image_ref"] == image
    # The second one is a clone of what is there: nothing travels again.
    two = home.create("two", "--image", image, "--disk", "1")
    assert root_disk(home, two, len(content)) == content
    calls = [call.name for call in home.simulator.control.read_calls()]
    assert calls.count("import_raw_vdi") == 1
    assert calls.count("VDI.clone") == 2

    for name in ("one", "two"):
        assert home.xenward("server", "delete", name).status == 0
    with home.session() as xenapi:
        records = xenapi.VDI.get_all_records().values()
    (cached,) = (record for record in records if record["managed"] and not record["is_a_snapshot"])
    assert cached["other_config"]["xenward:image"] == image


def test_an_image_that_is_not_there_makes_no_instance(home: House) -> None:
    done = home.xenward("server", "create", "web", "--image", "missing")
    assert done.status == 3, done
    assert done.shown["code"] == "image_not_found"
    assert home.xenward("server", "list").shown == []


def test_an_image_larger_than_the_disk_leaves_nothing(home: House, image: str, directory: Path) -> None:
    description = directory / "images" / f"{image}.json"
    description.write_text(description.read_text().replace('"min_disk_gb": 0', '"min_disk_gb": 3'))
    assert '"min_disk_gb": 3' in description.read_text()
    home.simulator.control.mark()
    done = home.xenward("server", "create", "web", "--image", image, "--disk", "2")
    assert done.status == 3, done
    assert done.shown["code"] == "image_too_large"
    assert [kind for kind in home.simulator.control.leftovers() if kind.cls != "session"] == []
