"""One environment for all tests of a driver, and in it one guest with an agent for each module that wants it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from compute_driver.driver import ComputeDriver
from compute_driver.states import PowerState
from compute_driver.volumes import Volume

from .environments import ENVIRONMENTS, Environment
from .wanted import AGENTLESS, FIRST, Steps, Wanted


@pytest.fixture(scope="package", params=ENVIRONMENTS)
def environment(request: pytest.FixtureRequest) -> Iterator[Environment]:
    with ENVIRONMENTS[request.param]() as it:
        yield it


@pytest.fixture
def driver(environment: Environment) -> ComputeDriver:
    return environment.driver


@pytest.fixture(scope="module")
def shared(environment: Environment) -> Iterator[Wanted]:
    """A guest with an agent, which runs whenever a test begins."""
    instance = Wanted(display_name="shared")
    environment.driver.spawn(instance, image=environment.image, admin_password=FIRST, progress=Steps())
    yield instance
    environment.driver.destroy(instance)
    assert environment.left() == []


@pytest.fixture
def guest(environment: Environment, shared: Wanted) -> Wanted:
    if environment.state(shared) is not PowerState.RUNNING:
        environment.driver.reboot(shared, "HARD")
    return shared


Make = Callable[..., Wanted]


@pytest.fixture
def make(environment: Environment) -> Iterator[Make]:
    """Makes guests without an agent, which are gone after the test, with all that is theirs."""
    made: list[Wanted] = []

    def make(*, sizes: tuple[int, int, int] = (64, 1, 1), **wanted: Any) -> Wanted:
        instance = Wanted(memory_mb=sizes[0], vcpus=sizes[1], root_gb=sizes[2])
        made.append(instance)
        environment.driver.spawn(instance, **{"image": AGENTLESS, "progress": Steps(), **wanted})
        return instance

    before = environment.left()
    yield make
    for instance in made:
        environment.driver.destroy(instance)
    assert environment.left() == before


@pytest.fixture
def volume(environment: Environment) -> Iterator[Volume]:
    """One that must outlive the test. Whoever wants guests, too, asks for it before `make`: they let go of it first."""
    it = environment.new_volume()
    yield it
    assert environment.has_volume(it)
    environment.remove_volume(it)
