"""One house for all tests of an environment, and in it one guest that they share: real ones take long to boot.

An environment that cannot be brought up fails every test in it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract import environments
from tests.contract.environments import GuestEnvironment
from tests.contract.house import FIRST_PASSWORD, House

from .guest import Channel, Guest

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f operator@desk"

_HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One environment after the other; tests/groups.py keeps each of them in one process."""
    places = [number for number, item in enumerate(items) if _HERE in item.path.parents]
    order = [str(parameter.id) for parameter in environments.all_of_them()]
    mine = sorted((items[place] for place in places), key=lambda item: order.index(_environment(item)))
    for place, item in zip(places, mine):
        items[place] = item


def _environment(item: pytest.Item) -> str:
    assert isinstance(item, pytest.Function)
    name = item.callspec.params["environment"].name
    assert isinstance(name, str)
    return name


@pytest.fixture(scope="package", params=environments.all_of_them())
def environment(request: pytest.FixtureRequest) -> GuestEnvironment:
    return request.param


@pytest.fixture(scope="package")
def home(environment: GuestEnvironment) -> Iterator[House]:
    # Short: unix sockets allow 107 bytes.
    with tempfile.TemporaryDirectory(prefix="xw-") as directory, environment.house(Path(directory)) as home:
        yield home


@pytest.fixture(scope="package")
def guest(home: House, environment: GuestEnvironment) -> Iterator[Guest]:
    """An instance that the command `xenward` has created, with a password and a key."""
    key = home.directory / "key.pub"
    key.write_text(KEY + "\n")
    instance = home.create("web", "--key-file", str(key))
    assert home.opens(instance, FIRST_PASSWORD)
    with environment.inside(home, instance) as inside, Guest.of(home, inside, instance) as guest:
        yield guest


@pytest.fixture
def channel(guest: Guest) -> Iterator[Channel]:
    """XenStore as dom0 sees it, for a test that speaks the protocol by itself. Whatever is left there fails it."""
    with guest.channel() as channel:
        yield channel
        channel.assert_nothing_left()
