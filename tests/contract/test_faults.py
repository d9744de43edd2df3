"""Whatever goes wrong at whichever call: afterwards there is a working guest, or nothing of it.

Each test prints a table: call, fault, outcome, and what was left. `pytest -rA` shows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from agent_protocol.messages import Password
from agent_protocol.outcomes import Unsuccessful
from compute_driver.files import InjectedFile
from compute_driver.states import PowerState

from .faults import AGENTLESS, FAULTS, WITH_AGENT, Bench, Operation, Steps, Wanted, bench_of, try_each


def spawn(it: Bench, instance: Wanted) -> None:
    it.driver.spawn(
        instance,
        image=WITH_AGENT,
        admin_password=Password("hunter2 & Secret"),
        injected_files=[InjectedFile("/etc/motd", b"hello")],
        progress=Steps(),
    )


def is_made(it: Bench, instance: Wanted, error: Unsuccessful | None) -> None:
    """A guest that runs, or nothing and an error."""
    if error is None:
        assert it.state(instance) is PowerState.RUNNING
        it.driver.destroy(instance)
    it.assert_nothing_left()


def is_gone(it: Bench, instance: Wanted, error: Unsuccessful | None) -> None:
    """Nothing, if need be when it is asked for again."""
    if error is not None:
        it.driver.destroy(instance)
    it.assert_nothing_left()


def is_rescued(it: Bench, instance: Wanted, error: Unsuccessful | None) -> None:
    """A rescued guest, or one that is as before, powered off if that was begun; and unrescue brings back what was."""
    assert it.state(instance) in (PowerState.RUNNING, PowerState.SHUTDOWN)
    assert error is not None or it.state(instance) is PowerState.RUNNING
    assert len(it.disks(instance)) == (2 if error is None else 1)
    it.driver.unrescue(instance)
    is_itself(it, instance, None)


def is_back(it: Bench, instance: Wanted, error: Unsuccessful | None) -> None:
    """A guest on its own disk, if need be when it is asked for again."""
    if error is not None:
        it.driver.unrescue(instance)
    is_itself(it, instance, None)


def is_itself(it: Bench, instance: Wanted, error: Unsuccessful | None) -> None:
    """A guest with one root disk, which can start."""
    del error
    vm = it.vm(instance)
    assert list(it.disks(instance)) == ["0"]
    assert set(vm.other_config) - {"mac_seed"} == {"xenward:instance"}
    it.driver.power_on(instance)
    assert it.state(instance) is PowerState.RUNNING
    it.driver.destroy(instance)
    it.assert_nothing_left()


def rescued(it: Bench) -> Wanted:
    instance = it.guest()
    it.driver.rescue(instance, image=AGENTLESS, rescue_password=None, progress=Steps())
    return instance


def begin(it: Bench, instance: Wanted) -> None:
    it.driver.migrate_disk_and_power_off(instance, timeout=0, progress=Steps())


def bigger(instance: Wanted) -> Wanted:
    return replace(instance, memory_mb=128, vcpus=2, root_gb=2)


def begun(it: Bench) -> Wanted:
    instance = it.guest()
    begin(it, instance)
    return instance


def resized(it: Bench) -> Wanted:
    instance = begun(it)
    it.driver.finish_migration(bigger(instance), power_on=False, progress=Steps())
    return instance


def has_sizes(it: Bench, instance: Wanted) -> None:
    """Memory and root disk are as the instance says, and no resize is under way."""
    assert int(it.server.call("VM.get_memory_static_max", it.vm(instance).ref)) == instance.memory_mb * 1024**2
    assert int(it.server.call("VDI.get_virtual_size", it.disks(instance)["0"])) == instance.root_gb * 1024**3
    is_itself(it, instance, None)


def is_begun(it: Bench, instance: Wanted, error: Unsuccessful | None) -> None:
    """A resize that can be finished or taken back, or a guest of which nothing was changed."""
    if error is not None:
        assert "xenward:resize" not in it.vm(instance).other_config
        begin(it, instance)
    it.driver.finish_revert_migration(instance, power_on=False)
    has_sizes(it, instance)


def is_resized(it: Bench, instance: Wanted, error: Unsuccessful | None) -> None:
    """A guest with its new sizes, if need be when it is asked for again."""
    if error is not None:
        it.driver.finish_migration(bigger(instance), progress=Steps())
    assert it.state(instance) is PowerState.RUNNING
    it.driver.confirm_migration(instance)
    has_sizes(it, bigger(instance))


def is_confirmed(it: Bench, instance: Wanted, error: Unsuccessful | None) -> None:
    """The same, and what led back is gone."""
    if error is not None:
        it.driver.confirm_migration(instance)
    has_sizes(it, bigger(instance))


def is_reverted(it: Bench, instance: Wanted, error: Unsuccessful | None) -> None:
    """A guest with its old sizes, if need be when it is asked for again."""
    if error is not None:
        it.driver.finish_revert_migration(instance)
    assert it.state(instance) is PowerState.RUNNING
    has_sizes(it, instance)


def snapshot(it: Bench, instance: Wanted) -> None:
    it.driver.snapshot(instance, service=it.images, name="backup", disk_format="vhd", progress=Steps())


def is_stored(it: Bench, instance: Wanted, error: Unsuccessful | None) -> None:
    """An image, or none and an error; the guest runs as if nothing had been."""
    assert len(it.images.stored) == (1 if error is None else 0)
    it.images.stored.clear()
    assert it.state(instance) is PowerState.RUNNING
    is_itself(it, instance, None)


def node(it: Bench, instance: Wanted) -> str:
    return str(it.server.call("host.get_hostname", it.vm(instance).host))


def other_node(it: Bench, instance: Wanted) -> str:
    here = node(it, instance)
    return next(name for name in it.driver.get_available_nodes() if name != here)


def migrate(it: Bench, instance: Wanted) -> None:
    target = it.driver.check_can_live_migrate_destination(instance, node=other_node(it, instance))
    it.driver.live_migration(instance, target, progress=Steps())


def is_at_one_node(it: Bench, instance: Wanted, error: Unsuccessful | None) -> None:
    """A guest that runs, and can be moved."""
    assert it.state(instance) is PowerState.RUNNING
    there = other_node(it, instance)
    migrate(it, instance)
    assert node(it, instance) == there
    is_itself(it, instance, None)


def leave(it: Bench, instance: Wanted) -> None:
    assert it.elsewhere is not None
    there = it.elsewhere.driver
    target = there.check_can_live_migrate_destination(instance, node=there.get_available_nodes()[0])
    it.driver.live_migration(instance, target, progress=Steps())


def is_in_one_pool(it: Bench, instance: Wanted, error: Unsuccessful | None) -> None:
    """A guest that runs, in the other pool if all went well, and nothing in the pool where it is not."""
    assert it.elsewhere is not None
    benches = [each for each in (it, it.elsewhere) if each.has(instance)]
    assert len(benches) == 1
    assert error is not None or benches == [it.elsewhere]
    if benches == [it]:
        it.elsewhere.assert_nothing_left()
    else:
        it.assert_nothing_left()
        it.elsewhere.driver.post_live_migration_at_destination(instance)
    assert benches[0].state(instance) is PowerState.RUNNING
    is_itself(benches[0], instance, None)


OPERATIONS = [
    Operation("spawn", lambda it: Wanted(), spawn, is_made, agent=True),
    Operation("destroy", Bench.guest, lambda it, guest: it.driver.destroy(guest), is_gone),
    Operation(
        "rescue",
        Bench.guest,
        lambda it, guest: it.driver.rescue(guest, image=AGENTLESS, rescue_password=None, progress=Steps()),
        is_rescued,
    ),
    Operation("unrescue", rescued, lambda it, guest: it.driver.unrescue(guest), is_back),
    Operation(
        "rebuild",
        Bench.guest,
        lambda it, guest: it.driver.rebuild(guest, image=AGENTLESS, progress=Steps()),
        is_itself,
    ),
    Operation("snapshot", Bench.guest, snapshot, is_stored),
    Operation("migrate_disk_and_power_off", Bench.guest, begin, is_begun),
    Operation(
        "finish_migration",
        begun,
        lambda it, guest: it.driver.finish_migration(bigger(guest), progress=Steps()),
        is_resized,
    ),
    Operation("confirm_migration", resized, lambda it, guest: it.driver.confirm_migration(guest), is_confirmed),
    Operation("live_migration", Bench.guest, migrate, is_at_one_node, hosts=2),
    Operation("live_migration_to_another_pool", Bench.guest, leave, is_in_one_pool, leaves=True),
    Operation("revert_migration", resized, lambda it, guest: it.driver.finish_revert_migration(guest), is_reverted),
]


@pytest.fixture(scope="module", params=OPERATIONS, ids=lambda operation: operation.name)
def tried(request: pytest.FixtureRequest) -> Iterator[tuple[Bench, Operation]]:
    """An operation, and where all of its faults are tried. When the driver ends, no session is left."""
    with bench_of(request.param) as it:
        yield it, request.param
        assert it.close() == 0


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_at_each_call(tried: tuple[Bench, Operation], fault: str) -> None:
    it, operation = tried
    rows = try_each(it, operation, fault)
    print(f"{operation.name}: one call {fault}")
    for row in rows:
        print(row)
    assert len(rows) >= 2
    assert [str(row) for row in rows if row.wrong or row.left] == []
