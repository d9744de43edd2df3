"""Other sizes and other places: until somebody confirms there is a way back, and a running guest never stops for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from compute_driver.driver import ComputeDriver
from compute_driver.resources import MigrationTarget
from compute_driver.states import PowerState
from compute_driver.volumes import Volume

from .conftest import Make
from .environments import Environment, FakeEnvironment, fake
from .wanted import FIRST, SECOND, THIRD, Steps, Wanted, code
from .xenserver import simulator

OLD, NEW = (64, 1, 1), (128, 2, 2)
BEFORE, SINCE = b"before" + bytes(506), b"since then" + bytes(502)


def larger(guest: Wanted) -> Wanted:
    """The same instance with its new sizes."""
    return replace(guest, memory_mb=NEW[0], vcpus=NEW[1], root_gb=NEW[2])


@pytest.fixture
def begun(environment: Environment, driver: ComputeDriver, make: Make) -> Wanted:
    """A guest whose resize was begun."""
    guest = make(sizes=OLD, power_on=False)
    environment.write_disk(guest, BEFORE)
    driver.power_on(guest)
    steps = Steps()
    driver.migrate_disk_and_power_off(larger(guest), progress=steps)
    assert steps.names == ["power_off", "keep_root_disk"]
    assert environment.state(guest) is PowerState.SHUTDOWN
    assert environment.sizes(guest) == OLD
    return guest


@pytest.fixture
def finished(environment: Environment, driver: ComputeDriver, begun: Wanted) -> Wanted:
    """One whose resize was finished; and then it wrote to its disk."""
    steps = Steps()
    driver.finish_migration(larger(begun), progress=steps)
    assert steps.names == ["resize", "boot"]
    assert environment.state(begun) is PowerState.RUNNING
    assert environment.sizes(begun) == NEW
    driver.power_off(begun, timeout=0)
    environment.write_disk(begun, SINCE)
    driver.power_on(begun)
    return begun


def test_a_confirmed_resize_stays(environment: Environment, driver: ComputeDriver, finished: Wanted) -> None:
    life = environment.life(finished)
    driver.confirm_migration(finished)
    driver.confirm_migration(finished)
    assert (environment.state(finished), environment.life(finished)) == (PowerState.RUNNING, life)
    driver.finish_revert_migration(finished)
    assert environment.life(finished) == life
    assert environment.sizes(finished) == NEW
    driver.power_off(finished, timeout=0)
    assert environment.read_disk(finished, len(SINCE)) == SINCE


@pytest.mark.parametrize("power_on", [True, False])
def test_a_reverted_resize_brings_back_sizes_and_disk(
    environment: Environment, driver: ComputeDriver, finished: Wanted, power_on: bool
) -> None:
    driver.finish_revert_migration(finished, power_on=power_on)
    assert environment.state(finished) is (PowerState.RUNNING if power_on else PowerState.SHUTDOWN)
    assert environment.sizes(finished) == OLD
    driver.power_off(finished, timeout=0)
    assert environment.read_disk(finished, len(BEFORE)) == BEFORE
    driver.finish_revert_migration(finished, power_on=False)
    assert environment.state(finished) is PowerState.SHUTDOWN


def test_a_resize_that_was_only_begun_is_taken_back(
    environment: Environment, driver: ComputeDriver, begun: Wanted
) -> None:
    assert code(lambda: driver.confirm_migration(begun)) == "resize_not_finished"
    driver.finish_revert_migration(begun)
    assert (environment.state(begun), environment.sizes(begun)) == (PowerState.RUNNING, OLD)
    driver.confirm_migration(begun)


def test_a_resize_is_finished_once(environment: Environment, driver: ComputeDriver, finished: Wanted) -> None:
    life = environment.life(finished)
    driver.finish_migration(larger(finished), progress=Steps())
    assert environment.life(finished) == life
    again = code(lambda: driver.migrate_disk_and_power_off(larger(finished), progress=Steps()))
    assert again == "resize_unconfirmed"
    assert environment.life(finished) == life


def test_a_finished_resize_may_stay_off(environment: Environment, driver: ComputeDriver, begun: Wanted) -> None:
    driver.finish_migration(larger(begun), power_on=False, progress=Steps())
    assert (environment.state(begun), environment.sizes(begun)) == (PowerState.SHUTDOWN, NEW)


def test_a_disk_is_not_made_smaller(environment: Environment, driver: ComputeDriver, make: Make) -> None:
    guest = make(sizes=NEW)
    life, small = environment.life(guest), replace(guest, root_gb=1)
    assert code(lambda: driver.migrate_disk_and_power_off(small, progress=Steps())) == "disk_shrink_refused"
    assert (environment.state(guest), environment.life(guest)) == (PowerState.RUNNING, life)
    driver.migrate_disk_and_power_off(guest, progress=Steps())
    assert code(lambda: driver.finish_migration(small, progress=Steps())) == "disk_shrink_refused"
    assert environment.sizes(guest) == NEW


def test_nothing_is_finished_that_was_not_begun(environment: Environment, driver: ComputeDriver, make: Make) -> None:
    guest = make()
    life = environment.life(guest)
    assert code(lambda: driver.finish_migration(larger(guest), progress=Steps())) == "resize_not_begun"
    assert (environment.life(guest), environment.sizes(guest)) == (life, OLD)


def test_a_cold_migration_goes_to_the_node_and_back(
    environment: Environment, driver: ComputeDriver, make: Make
) -> None:
    here, there = environment.nodes
    guest, steps = make(node=here), Steps()
    driver.migrate_disk_and_power_off(guest, node=there, progress=steps)
    assert steps.names == ["power_off", "keep_root_disk", "move"]
    driver.finish_migration(guest, progress=Steps())
    assert environment.node(guest) == there
    driver.finish_revert_migration(guest)
    assert environment.node(guest) == here


def test_a_cold_migration_to_nowhere_is_refused(environment: Environment, driver: ComputeDriver, make: Make) -> None:
    guest = make()
    life = environment.life(guest)
    refused = code(lambda: driver.migrate_disk_and_power_off(guest, node="elsewhere", progress=Steps()))
    assert refused == "node_not_found"
    assert environment.life(guest) == life


# Live


def test_a_running_guest_goes_to_another_node(
    environment: Environment, driver: ComputeDriver, volume: Volume, make: Make
) -> None:
    here, there = environment.nodes
    guest, steps = make(node=here, volumes=[volume]), Steps()
    target = driver.check_can_live_migrate_destination(guest, node=there)
    driver.live_migration(guest, MigrationTarget.from_dict(target.to_dict()), progress=steps)
    assert steps.names == ["check", "migrate"]
    assert (environment.state(guest), environment.node(guest)) == (PowerState.RUNNING, there)
    assert environment.volumes(guest) == {volume.id}
    driver.live_migration(guest, target, progress=Steps())
    driver.post_live_migration_at_destination(guest)
    assert environment.node(guest) == there


STATES: dict[str, tuple[str, Callable[[ComputeDriver, Wanted], None]]] = {
    "off": ("instance_not_running", lambda it, who: it.power_off(who, timeout=0)),
    "paused": ("instance_not_running", lambda it, who: it.pause(who)),
    "resized": ("resize_unconfirmed", lambda it, who: it.migrate_disk_and_power_off(who, progress=Steps())),
}


@pytest.mark.parametrize("state", STATES)
def test_what_does_not_run_does_not_migrate_live(
    environment: Environment, driver: ComputeDriver, make: Make, state: str
) -> None:
    here, there = environment.nodes
    expected, bring = STATES[state]
    guest = make(node=here)
    target = driver.check_can_live_migrate_destination(guest, node=there)
    bring(driver, guest)
    before = environment.state(guest)
    assert code(lambda: driver.live_migration(guest, target, progress=Steps())) == expected
    assert environment.state(guest) is before
    assert environment.node(guest) in (here, None)


@pytest.fixture
def disabled(environment: Environment, driver: ComputeDriver) -> Iterator[str]:
    """A node that takes no guests."""
    node = environment.nodes[1]
    driver.set_host_enabled(node, False)
    yield node
    driver.set_host_enabled(node, True)


def test_a_node_that_takes_no_guests_is_no_destination(
    driver: ComputeDriver, make: Make, environment: Environment, disabled: str
) -> None:
    guest = make()
    assert code(lambda: driver.check_can_live_migrate_destination(guest, node=disabled)) == "node_disabled"
    assert code(lambda: driver.check_can_live_migrate_destination(Wanted(), node=disabled)) == "node_disabled"
    assert environment.node(guest) == environment.nodes[0]


# To another pool


@pytest.fixture(scope="module")
def elsewhere(environment: Environment) -> Iterator[Environment]:
    """Another pool, empty in the end."""
    if isinstance(environment, FakeEnvironment):
        with fake() as it:
            environment.driver.introduce(it.driver)
            yield it
            assert it.left() == []
    else:
        with simulator() as it:
            yield it
            assert it.left() == []


def test_a_running_guest_goes_to_another_pool_with_its_agent(
    environment: Environment, driver: ComputeDriver, elsewhere: Environment, make: Make
) -> None:
    guest = make(image=environment.image, admin_password=FIRST)
    driver.power_off(guest, timeout=0)
    environment.write_disk(guest, BEFORE)
    driver.power_on(guest)
    driver.set_admin_password(guest, SECOND)
    driver.change_instance_metadata(guest, {"role": ["+", "web"]})
    macs = environment.macs(guest)
    there, steps = elsewhere.driver, Steps()
    target = there.check_can_live_migrate_destination(guest, node=elsewhere.nodes[1])
    driver.live_migration(guest, MigrationTarget.from_dict(target.to_dict()), progress=steps)
    there.post_live_migration_at_destination(guest)
    assert steps.names[:2] == ["check", "migrate"]
    assert environment.state(guest) is None
    assert (elsewhere.state(guest), elsewhere.node(guest)) == (PowerState.RUNNING, elsewhere.nodes[1])
    assert elsewhere.sizes(guest) == OLD
    assert elsewhere.macs(guest) == macs
    assert elsewhere.metadata(guest) == {"role": "web"}
    assert elsewhere.opens(guest, SECOND.value)
    there.set_admin_password(guest, THIRD)
    assert elsewhere.opens(guest, THIRD.value)
    there.power_off(guest, timeout=0)
    assert elsewhere.read_disk(guest, len(BEFORE)) == BEFORE
    there.destroy(guest)


def test_a_guest_with_a_volume_stays_in_its_pool(
    environment: Environment, driver: ComputeDriver, elsewhere: Environment, volume: Volume, make: Make
) -> None:
    guest = make(volumes=[volume])
    life = environment.life(guest)
    target = elsewhere.driver.check_can_live_migrate_destination(guest, node=elsewhere.nodes[0])
    assert code(lambda: driver.live_migration(guest, target, progress=Steps())) == "volume_in_pool"
    assert (environment.state(guest), environment.life(guest)) == (PowerState.RUNNING, life)
    assert elsewhere.state(guest) is None
