"""One house for all tests, whose guests are Windows (Wine) with the agent as its installer installs it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.house import House, house
from tools.labs.wine import disk, guest
from tools.labs.wine.machine import Machine
from tools.packages import msi

from .windows_guest import WindowsGuest, install

VERSION, NEWER = "1.2.3", "1.3.0"


@pytest.fixture(scope="package")
def installers() -> Iterator[dict[str, Path]]:
    """The installer in two versions."""
    with tempfile.TemporaryDirectory(prefix="xw-msi-") as directory:
        yield {version: msi.build(Path(directory, version), version) for version in (VERSION, NEWER)}


@pytest.fixture(scope="package")
def image(installers: dict[str, Path]) -> Iterator[Path]:
    """A disk with the agent, which has never run."""
    with tempfile.TemporaryDirectory(prefix="xw-wine-") as directory:
        made = Path(directory, "image")
        disk.copy(disk.installed(), made)
        with Machine(made) as machine:
            assert install(machine, installers[VERSION], "START=0") == 0
            machine.shut_down()
        yield made


@pytest.fixture(scope="package")
def home(image: Path) -> Iterator[House]:
    # Short: unix sockets allow 107 bytes.
    with tempfile.TemporaryDirectory(prefix="xw-") as directory:
        command = json.dumps(guest.command(image))
        with house(Path(directory), "--agent-command", command) as home:
            home.configure(agent={"timeout": "60", "boot_timeout": "120"})
            yield home


@pytest.fixture(scope="package")
def created(home: House) -> Iterator[WindowsGuest]:
    """An instance that the command `xenward` has created, with a password."""
    instance = home.create("web")
    with WindowsGuest.of(home, instance) as guest:
        yield guest


@pytest.fixture
def windows(created: WindowsGuest) -> WindowsGuest:
    """The same one, with the accounts of a new system and without a policy."""
    created.accounts.lay_out()
    return created
