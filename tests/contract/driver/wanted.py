"""What the tests ask drivers for: instances, images, devices; and what they hear of the steps."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import pytest

from agent_protocol.messages import Password
from agent_protocol.outcomes import Unsuccessful
from compute_driver.files import InjectedFile
from compute_driver.images import DiskFormat, Image, ImageReader
from compute_driver.network import Interface, interfaces_from_list

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f operator@desk"
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB8eHRwbGhkYFxYVFBMSERAPDg0MCwoJCAcGBQQDAgEA another@desk"
FIRST, SECOND, THIRD = (Password(f"{word} Pass-word 1") for word in ("first", "second", "third"))
FILE = InjectedFile("/etc/motd", b"welcome\n", 0o640)
DRIVE = {"openstack/latest/meta_data.json": b'{"uuid": "here"}'}

SIZE = 1024 * 1024


@dataclass(frozen=True)
class Wanted:
    """An instance, as far as a driver is concerned."""

    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    display_name: str = "web"
    memory_mb: int = 64
    vcpus: int = 1
    root_gb: int = 1


class Steps:
    """A Progress that remembers the steps."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def step(self, name: str) -> AbstractContextManager[None]:
        self.names.append(name)
        return nullcontext()


class _Reader(io.BytesIO):
    size: int | None = SIZE


class _Bytes:
    digest_required = False

    @contextmanager
    def open(self) -> Iterator[ImageReader]:
        yield _Reader(bytes(SIZE))


def image(name: str, min_disk_gb: int = 0, **properties: str) -> Image:
    """An image of one MiB."""
    return Image(name, name, DiskFormat.RAW, _Bytes(), size=SIZE, min_disk_gb=min_disk_gb, properties=properties)


AGENTLESS = image("agentless", img_use_agent="no")
WITH_AGENT = image("with-agent")
LARGE = image("large", min_disk_gb=2, img_use_agent="no")


def interface(number: int, **members: object) -> Interface:
    """One on the pool's own network."""
    told = {"id": f"port-{number}", "mac": f"00:16:3e:00:00:{number:02x}", "network": {"bridge": "xenbr0"}}
    return interfaces_from_list([{**told, **members}])[0]


def code(call: Callable[[], object]) -> str:
    """The code of the error that a call ends with."""
    with pytest.raises(Unsuccessful) as caught:
        call()
    for secret in (FIRST, SECOND, THIRD):
        assert secret.value not in repr(caught.value)
    return caught.value.code
